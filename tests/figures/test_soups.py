import numpy as np
import pandas as pd
import pytest
import torch

from soupcore import Pass, Step, figures
from soupcore.analysis import Share, calibration
from soupcore.figures.style import SOUP
from soupcore.figures.tables import attribution_table, calibration_table, trace_table
from soupcore.tasks import Unit

CURVE = pd.DataFrame(
    {
        "value": [0.0, 0.5, 1.0],
        "select": [0.7, 0.9, 0.8],
        "report": [0.6, 0.8, 0.9],
        "mean shift": [0.5, 0.4, 0.6],
    }
)

DIFFERENCES = pd.DataFrame(
    [
        ("a", "val", 0.02, 0.01, 0.04),
        ("a", "test", -0.01, np.nan, np.nan),
        ("b", "val", 0.03, 0.0, 0.06),
    ],
    columns=["name", "split", "difference", "low", "high"],
)


def test_a_greedy_trace_shows_candidates_and_the_current_soup() -> None:
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


def test_a_candidate_rejected_early_shows_its_upper_bound() -> None:
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


def test_a_learning_curve_marks_the_selected_pass() -> None:
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


def test_a_curve_has_a_line_for_each_split_and_marks_the_best() -> None:
    figure = figures.recipe_curve(CURVE, parameter="λ", best=0.5)
    assert [trace.name for trace in figure.data] == [
        "select (used for choosing)",
        "report",
        "mean shift",
        "best on select",
    ]
    assert list(figure.data[1].y) == [60, 80, 90]
    assert (figure.data[3].x[0], figure.data[3].y[0]) == (0.5, 90)
    assert [list(point) for point in figure.data[0].customdata] == [[0.0], [0.5], [1.0]]


@pytest.mark.parametrize("gone", [["report"], ["mean shift"], ["report", "mean shift"]])
def test_missing_splits_have_no_line(gone: list[str]) -> None:
    figure = figures.recipe_curve(CURVE.drop(columns=gone), parameter="λ")
    assert len(figure.data) == 3 - len(gone)


def test_a_trade_off_labels_its_ends_and_the_best() -> None:
    (line,) = figures.trade_off(CURVE, parameter="α", best=0.5).data
    assert list(line.x) == [60, 80, 90]
    assert list(line.y) == [50, 40, 60]
    assert list(line.text) == ["α = 0", "α = 0.5", "α = 1"]
    assert list(figures.trade_off(CURVE, parameter="α").data[0].text) == ["α = 0", "", "α = 1"]


def test_coefficients_have_the_colours_of_ingredients() -> None:
    table = pd.DataFrame({"coefficient": [0.75, -0.25]}, index=["1e5", "a soup"])
    (bars,) = figures.coefficient_bars(table, {"1e5": "#123456"}).data
    assert list(bars.y) == ["a soup", "1e5"]  # drawn from the bottom up
    assert list(bars.x) == [-0.25, 0.75]
    assert list(bars.marker.color) == [SOUP, "#123456"]


@pytest.mark.parametrize(
    ("unit", "x", "above", "below"),
    [(Unit(is_share=True), [2, -1], [2, 0], [1, 0]), (Unit(is_share=False, sign=-1, suffix="K"),
      [-0.02, 0.01], [0.01, 0], [0.02, 0])],
)  # fmt: skip
def test_differences_are_drawn_with_their_intervals_as_they_are_written(
    unit: Unit, x: list[float], above: list[float], below: list[float]
) -> None:
    figure = figures.difference_forest(
        DIFFERENCES, ["#111111", "#222222"], baseline="base", score_unit=unit
    )
    one, other = figure.data
    assert (one.name, other.name) == ("a", "b")
    assert list(one.x) == pytest.approx(x)
    assert list(one.error_x.array) == pytest.approx(above)
    assert list(one.error_x.arrayminus) == pytest.approx(below)
    assert list(figure.layout.yaxis.ticktext) == ["val", "test"]
    assert [round(y) for y in one.y] == [0, 1]
    assert [round(y) for y in other.y] == [0]


def test_a_reliability_diagram_has_a_line_per_network_and_the_diagonal() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.0], [3.0, 0.0]])
    found = calibration(logits, torch.tensor([0, 1, 1, 0]), bins=2)
    figure = figures.reliability_diagram({"soup": found}, {"soup": "#000000"})
    diagonal, line = figure.data
    assert list(diagonal.x) == list(diagonal.y)
    np.testing.assert_allclose(line.x, [100 * each.confidence for each in found.bins])
    np.testing.assert_allclose(line.y, [50, 100])
    assert list(line.customdata) == [2, 2]
    table = calibration_table({"soup": found})
    np.testing.assert_allclose(table["confidence"] * 100, line.x)
    np.testing.assert_allclose((table["high"] - table["accuracy"]) * 100, line.error_y.array)


def test_the_largest_contribution_is_on_top_and_harmful_ones_have_another_colour() -> None:
    shares = {"a": Share(0.01, 0.001), "b": Share(-0.02), "c": Share(0.03)}
    without = {"a": 0.0, "b": -0.01, "c": 0.02}
    figure = figures.attribution_bars(shares, without)
    assert [*attribution_table(shares, without).loc["a"]] == [0.01, 0.001, 0.0]
    bars, marks = figure.data
    assert list(bars.y) == ["b", "a", "c"]
    np.testing.assert_allclose(bars.x, [-2, 1, 3])
    np.testing.assert_allclose(marks.x, [-1, 0, 2])
    assert bars.marker.color[0] != bars.marker.color[1] == bars.marker.color[2]
