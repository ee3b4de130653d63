import numpy as np
import pandas as pd

from soupcore import figures


def test_the_overview_shows_scores_in_percent_with_their_intervals() -> None:
    table = pd.DataFrame(
        {"score": [0.5, None, 0.9], "low": [0.4, None, 0.85], "high": [0.65, None, 0.92]},
        index=["a", "b", "c"],
    )
    figure = figures.accuracy_overview(table, figures.colours("abc"), selected=["a"])
    (points,) = figure.data
    assert list(points.y) == ["c", "a"]
    np.testing.assert_allclose(points.x, [90, 50])
    np.testing.assert_allclose(points.error_x.array, [2, 15])
    np.testing.assert_allclose(points.error_x.arrayminus, [5, 10])
    assert list(points.marker.symbol) == ["circle-open", "circle"]


def test_the_scatter_omits_unknown_values_and_marks_kinds() -> None:
    table = pd.DataFrame(
        {
            "report": [0.8, 0.7, 0.6, np.nan],
            "shift": [0.5, 0.4, 0.3, 0.2],
            "kind": ["ingredient", "base", "soup", "ingredient"],
        },
        index=["a", "base", "greedy", "b"],
    )
    figure = figures.shift_scatter(table, figures.colours("ab"))
    assert {trace.name: list(trace.customdata) for trace in figure.data} == {
        "ingredients": ["a"],
        "base": ["base"],
        "soups": ["greedy"],
    }


def test_test_scores_are_drawn_against_validation_scores() -> None:
    table = pd.DataFrame(
        {"select": [0.8, np.nan], "report": [0.7, 0.6], "kind": ["ingredient"] * 2},
        index=["a", "b"],
    )
    figure = figures.select_scatter(table, figures.colours("ab"))
    (points,) = figure.data
    assert (list(points.customdata), list(points.x), list(points.y)) == (["a"], [80.0], [70.0])
    assert figure.layout.xaxis.title.text == "Validation accuracy, %"
    assert figure.layout.yaxis.title.text == "Test accuracy, %"


def test_overlapping_labels_are_omitted() -> None:
    table = pd.DataFrame(
        {"report": [0.2, 0.9, 0.899, 0.5], "shift": [0.2, 0.9, 0.9, 0.5], "kind": ["soup"] * 4},
        index=["far", "best", "beside it", "between"],
    )
    (soups,) = figures.shift_scatter(table, {}).data
    assert list(soups.text) == ["far", "best", "", "between"]


def test_the_basin_map_labels_ingredients_that_are_apart() -> None:
    table = pd.DataFrame(
        {
            "barrier": [0.0, 0.05, 0.4, 0.41, 30.0],
            "score": [0.9, 0.8, 0.5, 0.5, 0.1],
            "basin": [True, True, False, False, False],
        },
        index=["best", "near", "far", "beside it", "diverged"],
    )
    main, apart = figures.basin_map(table, dict.fromkeys(table.index, "red"), best="best").data
    assert list(main.text) == ["best", ""]
    assert list(apart.text) == ["far", "", "diverged"]
    assert list(apart.x) == [0.4, 0.41, 1.0]
    assert list(apart.marker.symbol) == ["x", "x", "triangle-right"]
    assert [custom[1] for custom in apart.customdata] == [0.4, 0.41, 30.0]
