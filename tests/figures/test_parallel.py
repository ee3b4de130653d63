"""Parallel coordinates: places on the axes, brushes, and the lines."""

import math
from typing import Any

import pandas as pd
import pytest

from soupcore import figures
from soupcore.figures.parallel import Axis, axes_of, brushes
from soupcore.figures.style import NEUTRAL
from soupcore.row_filter import Limits

TABLE = pd.DataFrame(
    {
        "lr": [1e-4, 1e-3, 1e-2, None],
        "optimizer": ["sgd", "adam", None, "adam"],
        "loss": [1.0, 2.0, 3.0, 4.0],
    },
    index=["a", "b", "c", "<b>d</b>"],
)
COLUMNS = ["lr", "optimizer", "loss"]
LR, OPTIMIZER, LOSS = axes_of(TABLE, COLUMNS)
SCORES = Axis.of("score", [10.0, 80.0, 82.0, 84.0, 86.0, 88.0], better=1)


@pytest.mark.parametrize(
    ("axis", "value", "place"),
    [
        (LR, 1e-4, 0.0),
        (LR, 1e-3, 0.5),
        (LR, 1e-2, 1.0),
        (LOSS, 2.5, 0.5),
        (OPTIMIZER, "adam", 0.0),
        (OPTIMIZER, "sgd", 1.0),
        (SCORES, 84.0, 0.5),
        (Axis.of("x", [3, 3]), 3, 0.5),
        (Axis.of("flag", [True, False]), True, 1.0),
    ],
)
def test_axes_place_values(axis: Axis, value: Any, place: float) -> None:
    assert axis.place(value) == pytest.approx(place)


def test_outliers_and_missing_values_are_beyond_the_ends() -> None:
    assert -0.1 < SCORES.place(10.0) < 0
    assert LR.place(None) == LR.place(math.nan) < SCORES.place(10.0)
    assert [text for _, text in SCORES.ticks] == ["80", "82", "84", "86", "88", "▾ 1 beyond"]


def test_ticks_are_in_the_units_of_the_column() -> None:
    assert LR.ticks == [(0.0, "0.0001"), (pytest.approx(0.5), "0.001"), (1.0, "0.01")]
    assert OPTIMIZER.ticks == [(0.0, "adam"), (1.0, "sgd")]
    many = Axis.of("steps", range(0, 1001, 10))
    assert [text for _, text in many.ticks] == ["0", "200", "400", "600", "800", "1000"]


def test_ticks_that_would_overlap_are_left_out() -> None:
    rates = Axis.of("lr", [0.003, 0.004, 0.006, 0.015, 0.038, 0.04])
    assert [text for _, text in rates.ticks] == ["0.003", "0.006", "0.015", "0.04"]


def test_long_titles_break_at_spaces_and_underscores() -> None:
    table = TABLE.assign(**{f"label_smoothing_{i}": TABLE["loss"] for i in range(8)})
    figure = figures.parallel_coordinates(table, [*table.columns])
    assert "label_" in [note.text for note in figure.layout.annotations]


def test_soups_and_the_base_are_marks_where_they_have_a_value() -> None:
    table = pd.concat([TABLE, pd.DataFrame({"loss": [0.5, 5.0]}, index=["soup", "base"])])
    kinds = {"soup": "soup", "base": "base"}
    figure = figures.parallel_coordinates(table, COLUMNS, score="loss", better=-1, kinds=kinds,
                                          active=[*TABLE.index, "soup"])  # fmt: skip
    drawn = {trace.name: trace for trace in figure.data}
    assert [list(point) for point in drawn["soups"].customdata] == [["soup", "loss", "0.5"]]
    assert (list(drawn["soups"].x), drawn["soups"].marker.symbol) == ([2], "star")
    assert "base" not in drawn  # the filter leaves it out
    lines = {c[0] for t in figure.data if t.mode == "lines+markers" for c in t.customdata}
    assert not lines & kinds.keys()


@pytest.mark.parametrize(
    ("across", "up", "found"),
    [
        ((-0.2, 0.2), (0.4, 0.6), {"lr": Limits(10**-3.2, 10**-2.8)}),
        ((0.3, -0.2), (0.6, -0.05), {"lr": Limits(high=10**-2.8)}),
        ((0.1, 0.3), (0.4, 1.1), {"lr": Limits(low=10**-3.2)}),  # it is the nearest axis
        ((0.8, 1.2), (-0.1, 0.2), {"optimizer": ("adam",)}),
        ((0.8, 1.2), (0.3, 0.6), {"optimizer": ()}),
        ((0.8, 2.2), (-0.1, 1.1), {"optimizer": None, "loss": None}),
        ((1.4, 1.6), (0.1, 0.9), {}),
    ],
)
def test_a_selected_box_sets_limits(
    across: tuple[float, float], up: tuple[float, float], found: dict[str, Any]
) -> None:
    made = brushes([LR, OPTIMIZER, LOSS], across, up)
    assert made.keys() == found.keys()
    for column, limit in found.items():
        assert made[column] == (pytest.approx(limit) if isinstance(limit, Limits) else limit)


def test_a_brush_up_to_the_end_holds_the_outliers_there() -> None:
    assert SCORES.limits_of(-0.08, 0.5) == Limits(high=84.0)
    assert SCORES.limits_of(-0.03, 0.5) == Limits(80.0, 84.0)


@pytest.mark.parametrize("axis", [LR, LOSS, SCORES])
def test_limits_are_marked_where_they_were_drawn(axis: Axis) -> None:
    limits = axis.limits_of(0.25, 0.75)
    assert limits is not None
    assert isinstance(limits, Limits)
    ((low, high),) = axis.brushed(limits)
    assert (low, high) == pytest.approx((0.25, 0.75))
    ((low, high),) = axis.brushed(Limits(high=limits.high))
    assert low < axis.place(axis.numbers[0])
    assert high == pytest.approx(0.75)


def test_lines_are_coloured_from_worse_to_better_and_faded_by_the_filter() -> None:
    def drawn(better: int, **options: Any) -> dict[str, tuple[str, str]]:
        figure = figures.parallel_coordinates(
            TABLE, COLUMNS, score="loss", better=better, **options
        )
        return {
            custom[0]: (trace.line.color, trace.name)
            for trace in figure.data
            if trace.mode == "lines+markers"
            for custom in trace.customdata
            if custom[0]
        }

    lower, higher = drawn(-1), drawn(1)
    assert lower["a"] == higher["&lt;b>d&lt;/b>"]  # names are text
    assert len({ink for ink, _ in lower.values()}) == 4
    told = drawn(-1, active=["a", "b"], selected=["b"])
    assert {name: rank for name, (_, rank) in told.items()} == {
        "a": "not selected", "b": "shown", "c": "filtered out", "&lt;b>d&lt;/b>": "filtered out",
    }  # fmt: skip
    assert told["c"][0] == NEUTRAL


def test_brushes_are_marked() -> None:
    brushed: dict[str, Limits | tuple[str, ...]] = {
        "lr": Limits(1e-3, 1e-2),
        "optimizer": ("ADAM",),
    }
    figure = figures.parallel_coordinates(TABLE, COLUMNS, brushed=brushed)
    marks = [shape for shape in figure.layout.shapes if shape.name == "brush"]
    assert [round((mark.x0 + mark.x1) / 2) for mark in marks] == [0, 1]
    assert marks[0].y0 == pytest.approx(0.5)
