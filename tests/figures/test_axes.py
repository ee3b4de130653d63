"""Axes have few round ticks, and outliers are drawn at their edge."""

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcore import figures
from soupcore.figures.axes import Scale, clip_outliers, is_logarithmic, linear_ticks, log_ticks
from soupcore.tasks import PLAIN, Unit

GOOD = [80.0, 82.0, 83.0, 85.0, 86.0, 88.0]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1e-4, 1e-2, [1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]),
        (5e-5, 1e-2, [5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2]),
        (1e-5, 0.1, [1e-5, 1e-4, 1e-3, 1e-2, 0.1]),
        (2e-5, 0.05, [3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]),
        (1e-20, 1.0, [1e-20, 1e-17, 1e-14, 1e-11, 1e-8, 1e-5, 1e-2]),
    ],
)
def test_logarithmic_ticks_are_few_round_numbers(
    low: float, high: float, ticks: list[float]
) -> None:
    assert log_ticks(low, high) == ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (54.2, 66.2, [55, 60, 65]),
        (0.03, 0.031, [0.03, 0.0302, 0.0304, 0.0306, 0.0308, 0.031]),
        (-7, 93, [0, 20, 40, 60, 80]),
        (3, 3, [3]),
    ],
)
def test_linear_ticks_are_few_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert linear_ticks(low, high) == ticks


@pytest.mark.parametrize(
    ("values", "better", "sides"),
    [
        pytest.param(GOOD, 0, [], id="nothing is far"),
        pytest.param([*GOOD, 71.0], 1, [], id="beyond no fence"),
        pytest.param([*GOOD, 10.0], 1, [(10.0, -1)], id="a diverged run"),
        pytest.param([*GOOD, *[10.0] * 9], 1, [(10.0, -1)], id="many at chance count once"),
        pytest.param([*GOOD, 10.0], -1, [], id="a low value that is better"),
        pytest.param([*GOOD, 500.0], -1, [(500.0, 1)], id="a high value that is worse"),
        pytest.param([*GOOD, 500.0], 1, [], id="the better side is never cut"),
        pytest.param(
            [*GOOD, 500.0, 1.0, -400.0], 0, [(500.0, 1), (1.0, -1), (-400.0, -1)], id="both sides"
        ),
        pytest.param([80.0, 81.0, 10.0], 1, [], id="too few values"),
        pytest.param([*GOOD, -math.inf], 1, [(-math.inf, -1)], id="infinite"),
    ],
)
def test_only_values_far_outside_are_clipped(
    values: list[float], better: int, sides: list[tuple[float, int]]
) -> None:
    scale = Scale.of(values, better=better)
    assert {(value, scale.side(value)) for value in values if scale.side(value)} == {*sides}
    for value, side in sides:
        assert scale.limits is not None
        low, high = scale.limits
        assert low < scale.place(value) < high
        assert scale.place(value) < min(GOOD) if side < 0 else scale.place(value) > max(GOOD)
    assert (scale.limits is None) == (not sides)


@given(
    st.lists(st.floats(-1e6, 1e6), max_size=40), st.sampled_from([-1, 0, 1]), st.floats(0.1, 1e3)
)
def test_clipping_does_not_depend_on_the_unit_and_keeps_the_best(
    values: list[float], better: int, factor: float
) -> None:
    scale = Scale.of(values, better=better)
    sides = [scale.side(value) for value in values]
    clipped = [value for value, side in zip(values, sides, strict=True) if side]
    if better and values:
        assert scale.side(max(values, key=lambda value: better * value)) == 0
    if clipped:
        kept = [value for value, side in zip(values, sides, strict=True) if not side]
        assert np.ptp(values) >= 1.5 * np.ptp(kept)
    if values and np.ptp(values) > 1:  # else rounding decides
        again = Scale.of([factor * value for value in values], better=better)
        assert [again.side(factor * value) for value in values] == sides


def test_decades_are_not_far_on_a_logarithmic_axis() -> None:
    rates = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    assert is_logarithmic(rates)
    assert Scale.of(rates, log=True).limits is None
    scale = Scale.of([*rates, 1e30], log=True)
    assert scale.side(1e30) == 1
    assert scale.limits is not None
    assert 0 < math.log10(scale.place(1e30)) < scale.limits[1] < 1


def test_clipped_points_are_arrows_with_their_true_values_on_hover() -> None:
    table = pd.DataFrame(
        {"report": [*(g / 100 for g in GOOD), 0.1], "shift": [*(g / 100 for g in GOOD), 0.2]},
        index=[*"abcdef", "base"],
    ).assign(kind=["ingredient"] * 6 + ["base"])
    figure = figures.shift_scatter(table, figures.colours("abcdef"), selected=["a"])
    runs, base = figure.data
    assert list(base.marker.symbol) == ["triangle-sw"]
    assert set(runs.marker.symbol) == {"circle", "circle-open"}
    assert list(runs.x) == pytest.approx(GOOD)
    assert list(base.customdata[0]) == ["base", 10.0, 20.0]
    assert "test %{customdata[1]:.2f} %" in base.hovertemplate
    assert "mean shift %{customdata[2]:.2f} %" in base.hovertemplate
    assert figure.layout.xaxis.title.text == "Test accuracy, % · 1 beyond the axis"
    low, high = figure.layout.xaxis.range
    assert low < base.x[0] < 80 < 88 < high


def test_a_score_that_is_better_low_is_clipped_at_the_top() -> None:
    scores = [-1.0, -1.1, -1.2, -1.3, -1.4, -90.0]
    table = pd.DataFrame({"score": scores, "low": scores, "high": scores}, index=[*"abcdef"])
    kelvin = Unit(is_share=False, sign=-1, suffix="K")
    figure = figures.accuracy_overview(
        table.assign(low=table["score"] - 1, high=table["score"] + 1),
        figures.colours("abcdef"), score_unit=kelvin, selected=["a"],
    )  # fmt: skip
    (points,) = figure.data
    assert points.marker.symbol[0] == "triangle-right-open"
    assert points.error_x.array[0] is None
    assert points.error_x.array[1] == pytest.approx(1)
    low, high = figure.layout.xaxis.range
    assert low < 0  # intervals are not cut
    assert 2.4 < points.x[0] < high < 3
    assert "1 beyond the axis" in figure.layout.xaxis.title.text
    plain = figures.accuracy_overview(table, figures.colours("abcdef"), score_unit=PLAIN)
    assert "1 beyond the axis" in plain.layout.xaxis.title.text  # there, -90 is worse


def test_categories_and_empty_figures_stay_as_they_are() -> None:
    figure = go.Figure(
        go.Scatter(x=["a", "b"], y=[1.0, None], mode="markers", customdata=["a", "b"])
    )
    figure.update_xaxes(type="category")
    clip_outliers(figure)
    assert list(figure.data[0].x) == ["a", "b"]
    assert list(figure.data[0].y) == [1.0, None]
