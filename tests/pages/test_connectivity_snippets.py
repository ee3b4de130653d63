import runpy
from typing import Any

import numpy as np
import pytest
import streamlit as st

from pages.components import connectivity_snippets as snippets
from pages.components import geometry_grids, pair_matrix
from pages.components.points import Point
from pages.components.state import View
from soupcore import barriers, geometry, linear_path, plane, soup_vs_ensemble, uniform
from soupcore.evaluation import StatisticsChoice
from tests.pages.conftest import NAMES, Run, Shown, assert_makes


@pytest.fixture
def points(view: View) -> dict[str, Point]:
    soup = uniform(view.sweep)
    known = {name: Point(view.sweep[name].mixture, "ingredient", name, f"sweep[{name!r}]")
             for name in NAMES}  # fmt: skip
    shares = ", ".join(f"{name!r}: Fraction('1/3')" for name in NAMES)
    return known | {
        "base": Point(view.sweep["base"].mixture, "base", "base", "sweep['base']"),
        "uniform": Point(soup.mixture, "soup", {"soup": soup.id}, f"sweep.mixture({{{shares}}})"),
    }


@pytest.mark.parametrize("tree", [True, False])
@pytest.mark.parametrize("measure", ["loss", "error", "midpoint", "angle", "distance"])
def test_the_matrix(view: View, run: Run, measure: str, tree: bool) -> None:
    code = snippets.matrix(view, NAMES, "adaptive", "val", measure, tree=tree)
    drawn = [trace.name for trace in run(code).data if trace.type == "scatter"]
    assert drawn == ["tree"] * tree + ["numbers", "preliminary", "cells"]


def test_the_matrix_of_middles_is_in_the_order_of_the_page(view: View, run: Run) -> None:
    middles = barriers(view.sweep, view.evaluator, NAMES, split="val").midpoint_advantage
    asked = pair_matrix.Asked(NAMES, "adaptive", "val", "midpoint", True)
    figure = run(snippets.matrix(view, NAMES, "adaptive", "val", "midpoint", tree=True))
    joined = pair_matrix.join(asked, middles)
    assert list(figure.layout.yaxis2.ticktext) == list(joined.order)
    (drawn,) = (trace for trace in figure.data if trace.name == "tree")
    heights = np.reshape(drawn.y, (-1, 5))[:, :4]
    np.testing.assert_allclose(heights, joined.branches[1] * 100)
    assert heights.any()


@pytest.mark.parametrize("shown", ["averaged", "re-estimated"])
def test_curves_with_both_batchnorm_statistics_have_a_panel_for_each(
    view: View, points: dict[str, Point], run: Run, shown: StatisticsChoice
) -> None:
    view = view.with_statistics(shown)
    pairs = [("base", "run1"), ("run2", "uniform")]
    code = snippets.curves(view, points, pairs, 3, ["val", "test"], [], both_statistics=True)
    figure = run(code)
    assert [note.text for note in figure.layout.annotations] == [
        f"{split}, {kind}" for split in ("val", "test") for kind in ("averaged", "re-estimated")
    ]
    averaged, anew = (
        linear_path(points["base"].mixture, points["run1"].mixture,
                    view.evaluator.with_statistics(kind), 3, split="val").losses.tolist()
        for kind in ("averaged", "re-estimated")
    )  # fmt: skip
    drawn = [list(trace.y) for trace in figure.data if trace.mode == "markers"]
    assert averaged != anew
    assert averaged in drawn
    assert anew in drawn


def test_curves_of_pairs_with_a_soup_beyond_the_ends(
    view: View, points: dict[str, Point], run: Run
) -> None:
    pairs = [("base", "run1"), ("run2", "uniform")]
    code = snippets.curves(view, points, pairs, 3, ["val", "test"], [-0.5, 1.5])
    figure = run(code)
    assert {trace.x[0] for trace in figure.data if trace.mode == "markers"} == {-0.5}
    assert [t.showlegend for t in figure.data if t.mode == "markers"].count(True) == 2


def test_paths_from_the_base(view: View, points: dict[str, Point], run: Run) -> None:
    figure = run(snippets.from_base(view, points, ["run1", "uniform"], 3))
    assert [trace.name for trace in figure.data] == ["run1", "uniform"]


def test_a_plane(view: View, points: dict[str, Point], run: Run) -> None:
    code = snippets.plane(view, points, ["base", "run1", "uniform"], ["run2"], "val", 3)
    figure = run(code)
    assert [row[0] for row in figure.data[2].customdata] == ["base", "run1", "uniform", "run2"]


def test_norms(view: View, run: Run) -> None:
    assert list(run(snippets.norms(view, NAMES)).data[0].y) == NAMES


@pytest.mark.parametrize("to", [None, "run2"])
@pytest.mark.parametrize("grouped", [True, False])
def test_layers(view: View, run: Run, to: str | None, grouped: bool) -> None:
    figure = run(snippets.layers(view, NAMES, to, grouped=grouped))
    assert len(figure.data[0].y) == (3 if grouped else 6)


@pytest.mark.parametrize("colour", [None, "lr"])
def test_angles_soups_and_theory(view: View, run: Run, colour: str | None) -> None:
    for make in (snippets.angles, snippets.soups_and_ensembles, snippets.theory):
        points = run(make(view, NAMES, "val", colour)).data[0]
        assert len(points.x) == 3
        assert isinstance(points.marker.color, str) is (colour is None)


def test_grids(view: View, run: Run) -> None:
    assert run(snippets.pair_grid(view, NAMES, "val", "lr")).data[0].z.shape == (3, 3)


def test_grids_of_ingredients(view: View, run: Run) -> None:
    figure = run(snippets.ingredient_grid(view, NAMES, "val", "lr", "seed"))
    assert figure.data[0].z.shape == (3, 3)


# Each figure of a page is the one that the Python beside it makes


def draw(monkeypatch: pytest.MonkeyPatch, view: View, page: str) -> None:
    pairs = [("run1", "run2"), ("base", "run10")]
    session = {"view": view, "selection": NAMES, "pairs": pairs, "sweep": view.folder}
    monkeypatch.setattr(st, "session_state", session)
    runpy.run_module(f"pages.{page}")


def choose(monkeypatch: pytest.MonkeyPatch, chosen: dict[str, Any]) -> None:
    """Have widgets of `streamlit` return what is chosen of them, by their labels."""
    for widget in ("selectbox", "segmented_control", "toggle"):
        usual = getattr(st, widget)

        def choice(label: str, *args: Any, usual: Any = usual, **options: Any) -> Any:
            return chosen[label] if label in chosen else usual(label, *args, **options)

        monkeypatch.setattr(st, widget, choice)


@pytest.mark.parametrize("measure", ["loss", "error", "midpoint", "angle"])
def test_the_page_of_pairs(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown], measure: str
) -> None:
    barriers(view.sweep, view.evaluator, NAMES)
    geometry(view.sweep, view.evaluator.store)
    linear_path(view.sweep["base"], view.sweep["run10"], view.evaluator)
    choose(monkeypatch, {"Measure": measure})
    draw(monkeypatch, view, "connectivity")
    assert list(shown) == ["heatmap", "curves"]
    assert_makes(run, shown["curves"])
    for trace in shown["heatmap"].figure.data:  # what is told of a cell takes the page
        if trace.name == "cells":
            trace.text = trace.customdata = trace.hovertext = None
    made = run(shown["heatmap"].code)
    for trace in made.data:
        if trace.name == "cells":
            trace.text = trace.customdata = trace.hovertext = None
    assert made == shown["heatmap"].figure


def test_the_page_of_a_plane(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown]
) -> None:
    plane(view.sweep, view.evaluator, ["base", *NAMES[:2]], 7)
    choose(monkeypatch, {"Points a side": 7})
    draw(monkeypatch, view, "plane")
    assert_makes(run, shown["plane"])


def test_the_page_of_paths_from_the_base(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown]
) -> None:
    for name in NAMES:
        for split in view.task.reported[1:]:
            linear_path(view.sweep["base"], view.sweep[name], view.evaluator, 11, split=split)
    draw(monkeypatch, view, "from_base")
    assert_makes(run, shown["from-base"])


def test_the_page_of_soups_and_ensembles(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown]
) -> None:
    for a, b in (("run1", "run2"), ("run1", "run10"), ("run2", "run10")):
        ends = view.sweep[a].mixture, view.sweep[b].mixture
        soup_vs_ensemble(view.evaluator, *ends, split="val")
    draw(monkeypatch, view, "soup_vs_ensemble")
    assert list(shown) == ["soups-and-ensembles", "theory"]
    for each in shown.values():
        assert_makes(run, each)


@pytest.mark.parametrize("tab", ["_layers", "_distances", "_advantage"])
@pytest.mark.parametrize("against", [None, "run2"])
def test_the_page_of_geometry(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown], tab: str,
    against: str | None,
) -> None:  # fmt: skip
    found = geometry(view.sweep, view.evaluator.store, NAMES)
    barriers(view.sweep, view.evaluator, NAMES, 3)
    choose(monkeypatch, {"Show": against})
    monkeypatch.setattr(st, "session_state", {"view": view, "selection": NAMES})
    page = runpy.run_module("pages.geometry")
    shown.clear()
    page[tab](view, found)
    (each,) = shown.values()
    assert_makes(run, each)


@pytest.mark.parametrize("what", ["midpoint − best end", "share of them right of ingredients"])
def test_the_grids_of_hyperparameters(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown], what: str
) -> None:
    barriers(view.sweep, view.evaluator, NAMES, 3)
    choose(monkeypatch, {"Average": what})
    geometry_grids.show(view, NAMES)
    (each,) = shown.values()
    assert_makes(run, each)
