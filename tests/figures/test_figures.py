import numpy as np
import pandas as pd

from soupcore import Pass, Step, figures
from soupcore.figures.tables import trace_table

NAMES = [f"run-{number}" for number in range(30)]


def test_every_ingredient_has_a_colour_of_its_own_that_does_not_depend_on_the_later_ones() -> None:
    colours = figures.colours(NAMES)
    assert len(set(colours.values())) == len(NAMES)
    assert figures.colours(NAMES[:7]) == {name: colours[name] for name in NAMES[:7]}


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


def test_labels_that_would_cover_each_other_are_left_to_the_hover() -> None:
    table = pd.DataFrame(
        {"report": [0.2, 0.9, 0.899, 0.5], "shift": [0.2, 0.9, 0.9, 0.5], "kind": ["soup"] * 4},
        index=["far", "best", "beside it", "between"],
    )
    (soups,) = figures.shift_scatter(table, {}).data
    assert list(soups.text) == ["far", "best", "", "between"]


def test_the_basin_map_names_what_is_apart_and_keeps_its_scale() -> None:
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


def test_a_trace_shows_what_was_accepted_and_the_soup_so_far() -> None:
    steps = [
        Step("a", 0.8, True, ("a",), 0, 0),
        Step("b", 0.7, False, ("a",), 1, 11),
        Step("c", 0.9, True, ("a", "c"), 12, 2, interval=(0.01, 0.19)),
    ]
    figure = figures.greedy_trace(steps, candidates=5)
    soup, accepted, rejected, given_up = figure.data
    np.testing.assert_allclose(soup.y, [80, 80, 90])
    assert [row[0] for row in accepted.customdata] == ["a", "c"]
    assert [tuple(row) for row in rejected.customdata] == [("b", "70.00 %", "+1 / −11 examples")]
    table = trace_table(steps)
    np.testing.assert_allclose(table["soup so far"] * 100, soup.y)
    assert [*table["gain, low"].isna()] == [True, True, False]
    assert [*table.loc[2, ["candidate", "gain, low", "gain, high"]]] == ["c", 0.01, 0.19]
    gain = "+12 / −2 examples; gain +1.00 to +19.00 pp (95% CI)"
    assert tuple(accepted.customdata[1]) == ("c", "90.00 %", gain)
    assert len(given_up.x) == 0
    assert tuple(figure.layout.xaxis.range) == (0.5, 5.5)


def test_a_candidate_given_up_early_shows_what_it_scores_at_most() -> None:
    steps = [
        Step("a", 0.9, True, ("a",), 0, 0, examples=100),
        Step("b", 0.873, False, ("a",), 1, 4, is_bound=True, examples=20),
    ]
    _, _, rejected, given_up = figures.greedy_trace(steps).data
    assert len(rejected.x) == 0
    np.testing.assert_allclose(given_up.y, [87.3])
    assert [tuple(row) for row in given_up.customdata] == [
        ("b", "≤ 87.30 %", "+1 / −4 examples after 20 examples")
    ]


def test_a_learning_curve_marks_the_pass_that_makes_the_soup() -> None:
    held = [1.0, 0.7, 0.8]
    passes = [
        Pass(number, 0.9 - 0.1 * number, loss, 0.5, 1.0, best=number < 2)
        for number, loss in enumerate(held)
    ]
    learned, held_back, chosen = figures.learning_curve(passes).data
    np.testing.assert_allclose(learned.y, [0.9, 0.8, 0.7])
    assert list(held_back.y) == held
    assert (list(chosen.x), list(chosen.y)) == ([1], [0.7])
    alone = [Pass(0, 0.9, np.nan, np.nan, 1.0, best=True)]
    learned, chosen = figures.learning_curve(alone).data
    assert (list(chosen.x), list(chosen.y)) == ([0], [0.9])
