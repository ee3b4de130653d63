"""Every figure writes scores in the unit that it is told."""

import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from soupcore import Barriers, LinearPath, Plane, Step, figures
from soupcore.analysis import Share
from soupcore.connectivity.plane import Place
from soupcore.tasks import PLAIN, SHARE, Unit

SCORES = np.array([-2.5, -3.5, -1.5])
PATH = LinearPath(np.array([0, 0.5, 1]), np.array([2.5, 3.5, 1.5]), SCORES, "select", 9)
BY_SPLIT = pd.DataFrame(
    {
        "value": [0.0, 0.5, 1.0], "alpha": [0.0, 0.5, 1.0], "score": SCORES, "low": SCORES - 1,
        "high": SCORES + 1, "select": SCORES, "report": SCORES, "shift": SCORES,
        "mean shift": SCORES, "kind": "ingredient", "first": "a", "second": "b", "angle": 60.0,
        "advantage": SCORES, "soup": SCORES, "ensemble": SCORES,
    },
    index=["a", "b", "c"],
)  # fmt: skip
BASINS = BY_SPLIT.assign(barrier=[0.0, 0.3, 7.0], basin=[True, False, False])
GRID = np.outer(np.ones(3), SCORES)
CORNERS = (Place(0.0, 0.0, 0.0), Place(1.0, 0.0, 0.0), Place(0.0, 1.0, 0.0))
FRAME: Any = SimpleNamespace(places=CORNERS)  # figures use nothing else of a frame
PLANE = Plane(FRAME, np.arange(3.0), np.arange(3.0), -GRID, GRID, "select")
INKS = figures.colours("abc")
PLACES = {"a": Place(0.0, 0.0, 0.0)}
STEPS = [Step("a", -2.5, True, ("a",), 0, 0),
         Step("b", -1.5, True, ("a", "b"), 1, 0, interval=(0.5, 1.5))]  # fmt: skip

Draw = Callable[..., go.Figure]
FIGURES: dict[str, Draw] = {
    "overview": lambda **k: figures.accuracy_overview(BY_SPLIT, INKS, **k),
    "shift scatter": lambda **k: figures.shift_scatter(BY_SPLIT, INKS, **k),
    "select scatter": lambda **k: figures.select_scatter(BY_SPLIT, INKS, **k),
    "basins": lambda **k: figures.basin_map(BASINS, INKS, best="a", **k),
    "curves": lambda **k: figures.path_curves({("a", "b"): [PATH]}, loss_name="MAE", **k),
    "from base": lambda **k: figures.from_base({"a": BY_SPLIT}, INKS, **k),
    "recipe curve": lambda **k: figures.recipe_curve(BY_SPLIT, parameter="α", best=0.5, **k),
    "trade-off": lambda **k: figures.trade_off(BY_SPLIT, parameter="α", **k),
    "angles": lambda **k: figures.angle_scatter(BY_SPLIT, **k),
    "soups and ensembles": lambda **k: figures.soup_ensemble_scatter(BY_SPLIT, **k),
    "attribution": lambda **k: figures.attribution_bars({"a": Share(-1.5, 0)}, {"a": -2.5}, **k),
    "trace": lambda **k: figures.greedy_trace(STEPS, **k),
    "plane": lambda **k: figures.plane_contours(PLANE, PLACES, {"a": "ingredient"}, INKS, **k),
}


@pytest.mark.parametrize("name", FIGURES)
def test_scores_that_are_no_shares_are_drawn_as_they_are(name: str) -> None:
    figure = FIGURES[name](score_name="negative MAE in kelvin", score_unit=PLAIN)
    told = "\n".join(texts(figure)).replace("95% CI", "")
    assert "negative MAE in kelvin" in told
    assert re.findall(r" %(?!\{)|\b[xy]:.?\.2f| pp", told) == []
    assert set(SCORES.tolist()) & set(numbers(figure))
    assert not set((100 * SCORES).tolist()) & set(numbers(figure))


@pytest.mark.parametrize("name", FIGURES)
def test_shares_are_drawn_as_percentages(name: str) -> None:
    figure = FIGURES[name](score_name="accuracy", score_unit=SHARE)
    assert FIGURES[name]() == figure
    told = "\n".join(texts(figure))
    assert ", %" in told or ", pp" in told
    assert set((100 * SCORES).tolist()) & set(numbers(figure)) or name == "plane"


@pytest.mark.parametrize(
    ("unit", "measure", "value", "title"),
    [
        (SHARE, "error", 150, "error barrier, pp"),
        (PLAIN, "error", 1.5, "score barrier"),
        (PLAIN, "error (Frankle)", 1.5, "score barrier above endpoint mean"),
        (PLAIN, "midpoint", -1.5, "midpoint gain"),
        (PLAIN, "loss", 1.5, "loss barrier"),
    ],
)
def test_barriers_are_in_the_unit_of_the_score(
    unit: Unit, measure: str, value: float, title: str
) -> None:
    found = Barriers(("a", "b"), {("a", "b"): PATH})
    heatmap = figures.barrier_heatmap(found, measure=measure, score_unit=unit).data[0]
    np.testing.assert_allclose(heatmap.z, [[0, value], [value, 0]])
    assert heatmap.colorbar.title.text == title
    named = figures.measures(unit, "perplexity")["error"].title
    assert named == ("error barrier" if unit.is_share else "perplexity barrier")
    limits = {name: each.connected for name, each in figures.measures(unit).items()}
    assert limits["loss"] == 0.1
    assert limits["error"] == (2 if unit.is_share else None)


def test_an_interval_without_a_width_is_not_drawn() -> None:
    table = BY_SPLIT.assign(low=[-4.5, -3.5, np.nan], high=[-1.5, -3.5, np.nan])
    (points,) = figures.accuracy_overview(table, INKS, score_unit=PLAIN).data
    np.testing.assert_equal(points.error_x.array, [np.nan, np.nan, 1.0])
    assert "95% CI" in figures.accuracy_overview(table, INKS).layout.xaxis.title.text
    none = table.assign(low=SCORES, high=SCORES)
    assert "95% CI" not in figures.accuracy_overview(none, INKS).layout.xaxis.title.text


def texts(figure: go.Figure) -> Iterator[str]:
    plain = figure.to_plotly_json()
    for part in (plain["data"], {**plain["layout"], "template": None}):
        yield from (each for each in leaves(part) if isinstance(each, str))


def numbers(figure: go.Figure) -> list[float]:
    found = leaves(figure.to_plotly_json()["data"])
    return [float(each) for each in found if isinstance(each, int | float)]


def leaves(node: Any) -> Iterator[Any]:
    if isinstance(node, np.ndarray):
        node = node.tolist()
    if isinstance(node, dict) and "bdata" in node:
        node = np.frombuffer(b64decode(node["bdata"]), node["dtype"]).tolist()
    if isinstance(node, dict):
        for each in node.values():
            yield from leaves(each)
    elif isinstance(node, list | tuple):
        for each in node:
            yield from leaves(each)
    else:
        yield node
