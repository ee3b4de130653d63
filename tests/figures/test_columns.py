"""Any column of the run table against any other."""

import math

import pandas as pd
import pytest

from soupcore import figures

INKS = {"a": "#111111", "b": "#222222", "c": "#333333"}
TABLE = pd.DataFrame(
    {
        "kind": ["ingredient", "ingredient", "ingredient", "base", "soup"],
        "lr": [1e-4, 1e-3, 1e-2, None, None],
        "decay": [0.0, 0.1, 20.0, None, None],
        "batch": [16.0, 32.0, 64.0, None, None],
        "score": [80.0, 85.0, None, 10.0, 87.0],
        "optimizer": ["sgd", "adam", "adam", None, None],
    },
    index=["a", "b", "c", "base", "soup"],
)


@pytest.mark.parametrize(
    ("column", "kind"),
    [("lr", "log"), ("decay", "linear"), ("batch", "linear"), ("optimizer", "category")],
)
def test_an_axis_is_logarithmic_if_positive_numbers_span_two_decades(
    column: str, kind: str
) -> None:
    figure = figures.column_scatter(TABLE, INKS, x=column, y="batch")
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == (kind, "linear")
    (points,) = figure.data
    assert [name for name, _ in points.customdata] == ["a", "b", "c"]
    assert list(points.marker.color) == ["#111111", "#222222", "#333333"]


@pytest.mark.parametrize(("x", "y"), [("lr", "loss"), ("loss", "lr"), ("lr", "lr")])
def test_infinite_values_have_no_ticks(x: str, y: str) -> None:
    names = list("abcdefghi")
    powers = [10.0**power for power in range(8)]
    table = pd.DataFrame(
        {"kind": "ingredient", "lr": [*powers, 1e8], "loss": [*powers, math.inf]}, index=names
    )
    inks = dict.fromkeys(names, "#111111")
    figure = figures.column_scatter(table, inks, x=x, y=y, colour="loss")
    axes = figure.layout.xaxis, figure.layout.yaxis, figure.data[0].marker.colorbar
    assert all(math.isfinite(tick) for axis in axes for tick in axis.tickvals)


def test_rows_are_drawn_by_kind_and_selection() -> None:
    figure = figures.column_scatter(TABLE, INKS, x="score", y="score", selected=["b"])
    (points,) = figure.data
    assert [name for name, _ in points.customdata] == ["a", "b", "base", "soup"]
    assert list(points.marker.symbol) == ["circle-open", "circle", "square", "star"]


def test_a_third_column_colours_the_points() -> None:
    numbers, rest = figures.column_scatter(TABLE, INKS, x="score", y="score", colour="batch").data
    assert list(numbers.marker.color) == [16.0, 32.0]
    assert numbers.marker.showscale
    assert [name for name, _ in rest.customdata] == ["base", "soup"]
    assert rest.name == "batch not known"
    traces = figures.column_scatter(TABLE, INKS, x="lr", y="batch", colour="optimizer").data
    assert {t.name: [name for name, _ in t.customdata] for t in traces} == {
        "adam": ["b", "c"],
        "sgd": ["a"],
    }
