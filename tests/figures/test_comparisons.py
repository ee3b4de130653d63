import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from soupcore import Evaluator, Store, Sweep, barriers, figures, geometry
from soupcore.analysis import ingredient_grid
from soupcore.connectivity import known_pairs
from soupcore.figures.tables import (
    angle_table,
    grid_table,
    layers_table,
    pairs_with,
    soups_and_ensembles_table,
)
from soupcore.sweeps.tables import Scalar

PAIRS = pd.DataFrame(
    {
        "first": ["a", "a", "b"],
        "second": ["b", "c", "c"],
        "angle": [60.0, 80, 90],
        "advantage": [0.02, -0.01, -0.2],
        "ensemble": [0.9, 0.85, 0.8],
        "soup": [0.91, 0.84, 0.5],
        "predicted": [0.1, 0.2, 0.5],
        "gap": [0.1, 0.3, 0.9],
        "colour": [1e-4, 1e-3, 1e-1],
    }
)


def test_the_angle_is_drawn_against_the_advantage_in_points() -> None:
    (points,) = figures.angle_scatter(PAIRS, colour="max lr").data
    assert list(points.x) == [60, 80, 90]
    np.testing.assert_allclose(points.y, [2, -1, -20])
    assert [tuple(row[:2]) for row in points.customdata] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert points.marker.colorbar.title.text == "max lr"


def test_rates_that_differ_by_factors_are_coloured_by_factors() -> None:
    (points,) = figures.angle_scatter(PAIRS, colour="max lr").data
    assert list(points.marker.color) == pytest.approx([-4, -3, -1])
    assert list(points.marker.colorbar.ticktext) == ["0.0001", "0.001", "0.1"]
    near = PAIRS.assign(colour=[1.0, 2, 3])
    (points,) = figures.angle_scatter(near, colour="epochs").data
    assert list(points.marker.color) == [1, 2, 3]


def test_one_rate_alone_is_the_one_that_the_colours_name() -> None:
    (points,) = figures.angle_scatter(PAIRS.assign(colour=0.001), colour="max lr").data
    assert list(points.marker.colorbar.tickvals) == [0.001]
    assert list(points.marker.colorbar.ticktext) == ["0.001"]


def test_points_without_a_colour_column_have_one_colour() -> None:
    (points,) = figures.angle_scatter(PAIRS.drop(columns="colour")).data
    assert isinstance(points.marker.color, str)


@pytest.mark.parametrize("table", [PAIRS, PAIRS.iloc[:0]])
def test_soups_and_theory_are_drawn_with_the_line_of_equals(table: pd.DataFrame) -> None:
    points, diagonal = figures.soup_ensemble_scatter(table, colour="lr").data
    np.testing.assert_allclose(points.x, table["ensemble"] * 100)
    np.testing.assert_allclose(points.y, table["soup"] * 100)
    assert list(diagonal.x) == list(diagonal.y)
    points, diagonal = figures.theory_scatter(table).data
    np.testing.assert_allclose(points.x, table["predicted"])
    np.testing.assert_allclose(points.y, table["gap"])
    if len(table):
        assert diagonal.x[0] <= min(points.x.min(), points.y.min())


def test_layers_and_norms_are_drawn_in_order(sweep: Sweep, store: Store) -> None:
    found = geometry(sweep, store)
    colours = figures.colours(sweep.ingredients)
    (bars,) = figures.norm_bars(found, colours).data
    np.testing.assert_allclose(bars.x, sorted(found.norms, reverse=True))
    assert [colours[name] for name in bars.y] == list(bars.marker.color)
    assert dict(zip(bars.y, bars.x, strict=True)) == dict(
        zip(found.names, found.norms, strict=True)
    )
    values = found.moves_by_layer
    heatmap, _ = figures.layer_heatmap(found.layers, found.names, values, title="moves").data
    np.testing.assert_array_equal(heatmap.z, values)
    assert (tuple(heatmap.y), tuple(heatmap.x)) == (found.layers, found.names)
    table = layers_table(found.layers, found.names, values)
    assert table.loc["0.weight", "run2"] == values[found.layers.index("0.weight"), 1]


def test_the_tables_of_pairs_hold_angles_advantages_and_the_larger_hyperparameter(
    sweep: Sweep, evaluator: Evaluator, store: Store
) -> None:
    found, known = geometry(sweep, store), barriers(sweep, evaluator, alphas=3)
    table = angle_table(sweep, found, known, "lr")
    assert table["angle"][0] == found.angles[0, 1]
    assert table["advantage"][1] == known.paths["run1", "run10"].midpoint_advantage
    assert table["colour"].isna().all()  # this sweep has no hyperparameters
    assert "colour" not in pairs_with(sweep, {("run1", "run2"): {"gap": 1.0}})
    summaries = known_pairs(sweep, evaluator, alphas=3)
    pd.testing.assert_frame_equal(angle_table(sweep, found, summaries, "lr"), table)


@pytest.mark.parametrize(
    ("rates", "larger"),
    [
        ({"a": 1, "b": 3, "c": 2}, [3, 2, 3]),  # whole numbers stay whole
        ({"a": 1, "b": 0.5, "c": 2}, [1, 2, 2]),
        ({"a": 1, "b": "high", "c": True}, [1, 1, True]),
        ({"a": "low", "b": 0.5}, [0.5, math.nan, 0.5]),
        ({}, [math.nan] * 3),
    ],
)
def test_the_colour_of_a_pair_is_the_larger_number_of_both(
    sweep: Sweep, rates: dict[str, Scalar], larger: list[float]
) -> None:
    one = next(iter(sweep.ingredients.values()))
    sweep.ingredients = {
        name: replace(one, name=name, hyperparameters={"lr": rates[name]} if name in rates else {})
        for name in "abc"
    }
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    table = pairs_with(sweep, {pair: {"gap": 1.0} for pair in pairs}, "lr")
    rows = [
        {"first": a, "second": b, "gap": 1.0, "colour": colour}
        for (a, b), colour in zip(pairs, larger, strict=True)
    ]
    pd.testing.assert_frame_equal(table, pd.DataFrame(rows))


def test_soups_are_compared_with_the_ensembles_that_are_known(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    paths = barriers(sweep, evaluator, alphas=3).paths
    known = known_pairs(sweep, evaluator, alphas=3)
    ensembles = {("run2", "run10"): math.nan, ("run1", "run10"): 0.25, ("x", "y"): 0.5}
    rows = [
        {"first": a, "second": b, "soup": path.scores[1], "ensemble": ensembles[a, b]}
        for (a, b), path in paths.items()
        if (a, b) in ensembles
    ]
    assert len(rows) == 2
    table = soups_and_ensembles_table(known, ensembles)
    pd.testing.assert_frame_equal(table, pd.DataFrame(rows))
    assert soups_and_ensembles_table(known, {}).empty


def test_a_grid_is_drawn_with_its_counts(sweep: Sweep) -> None:
    empty = ingredient_grid(sweep, {"run1": 1.0}, "lr", "seed")
    heatmap, _ = figures.grid_heatmap(empty, title="accuracy").data
    assert len(heatmap.x) == len(heatmap.y) == 0
    assert grid_table(empty).empty


def test_one_of_many_overlapping_pairs_is_drawn() -> None:
    generator = np.random.default_rng(0)
    soup, ensemble = generator.normal(0.8, 0.05, (2, 5000))
    ensemble[7] = 0.1  # an outlier
    soup[8] = np.nan
    names = [f"run-{index}" for index in range(5000)]
    table = pd.DataFrame({"first": names, "second": "b", "soup": soup, "ensemble": ensemble})
    points, _ = figures.soup_ensemble_scatter(table).data
    drawn = [int(row[0].removeprefix("run-")) for row in points.customdata]
    assert 200 < len(drawn) <= 500
    assert {7} <= set(drawn)
    assert drawn == sorted(drawn)
    told = sum(int(row[2].split()[1]) for row in points.customdata if row[2])
    assert len(drawn) + told == 4999
    # Every other pair lies near one that is drawn.
    inside = np.abs(soup - 0.8) < 0.1
    for index in np.flatnonzero(inside & (np.abs(ensemble - 0.8) < 0.1)):
        near = np.abs(soup[drawn] - soup[index]) + np.abs(ensemble[drawn] - ensemble[index])
        assert near.min() < 0.05
