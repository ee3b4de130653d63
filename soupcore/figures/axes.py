"""Axes: logarithmic scales, round ticks, rows of names, and clipping of outliers.

Points far outside are drawn at the edge of an axis, as arrows. A point is far outside if it is
beyond Tukey's outer fences, three interquartile ranges below the first or above the third quartile
(Exploratory Data Analysis, 1977). Quartiles are those of the distinct values, because diverged runs
often have the same score, that of chance. An axis is cut only if it would otherwise be at least 1.5
times as long. The better side of an axis is never cut.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import plotly.graph_objects as go

ROWS = 720  #: height of all rows of a figure at most, in pixels

_ROW = 22  # pixels, fewer if all rows would be higher than ROWS
_NAME = 14  # pixels
_LEAST, _AROUND = 220, 90  # pixels of a figure, and of its title and horizontal axis
_TWO_DECADES = 100
_MOST_TICKS = 8
_MOST_LINEAR = 6

_FENCE = 3.0  # interquartile ranges
_FEWEST = 5  # distinct values; quartiles of fewer are meaningless
_SHRINKS = 1.5  # how many times longer the uncut axis has to be
_PAD = 0.07  # of the range of the points inside, on both sides
_EDGE = 0.045  # where arrows are, likewise

_COMPASS = {(-1, 0): "left", (1, 0): "right", (0, -1): "down", (0, 1): "up",
            (-1, -1): "sw", (-1, 1): "nw", (1, -1): "se", (1, 1): "ne"}  # fmt: skip


def is_logarithmic(values: Iterable[float]) -> bool:
    """Return whether an axis is logarithmic: its numbers are positive and span two decades."""
    known = [value for value in values if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) >= _TWO_DECADES * min(known)


def log_ticks(low: float, high: float) -> list[float]:
    """Return up to eight round numbers of a logarithmic axis, powers of ten among them.

    Args:
        low: The smallest value, positive.
        high: The largest value.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        ticks = [float(f"{tick:.3g}") for tick in ticks if low <= tick * (1 + 1e-9) and
                 tick <= high * (1 + 1e-9)]  # fmt: skip
        if len(ticks) <= _MOST_TICKS:
            return ticks
    return ticks[:: math.ceil(len(ticks) / _MOST_TICKS)]


def linear_ticks(low: float, high: float, most: int = _MOST_LINEAR) -> list[float]:
    """Return round numbers of a linear axis.

    Args:
        low: The smallest value.
        high: The largest value.
        most: The largest number of ticks, at least 4.
    """
    if not low < high:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / (most - 1)))
    steps = (factor * power for factor in (1, 2, 5, 10, 20))
    step = next(step for step in steps if (high - low) / step < most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def fit_rows(figure: go.Figure, names: Sequence[str]) -> int:
    """Name the rows of a figure as far as there is room, and return its height in pixels.

    Args:
        figure: The figure, with one row for each name.
        names: The names, from the bottom to the top.
    """
    rows = min(_ROW * len(names), ROWS)
    every = max(1, math.ceil(_NAME * len(names) / max(rows, 1)))  # hover shows the other names
    figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=list(names),
        range=[-0.8, len(names) - 0.2],
        tickvals=list(names[::-1][::every]),
    )
    return max(_LEAST, _AROUND + rows)


@dataclass(frozen=True)
class Scale:
    """The range of values that an axis shows in full.

    Attributes:
        low: Smallest value drawn in its place; -inf if the axis is not cut below.
        high: Largest value drawn in its place; inf if the axis is not cut above.
        start: Smallest value in this range.
        end: Largest value in this range.
        log: Whether the axis is logarithmic.
    """

    low: float = -math.inf
    high: float = math.inf
    start: float = 0.0
    end: float = 1.0
    log: bool = False

    @classmethod
    def of(cls, values: Iterable[float], *, better: int = 0, log: bool = False) -> "Scale":
        """Return the scale of values. Infinite values are always beyond it; NaN has no place.

        Args:
            values: The values of all points.
            better: 1 if higher values are better, -1 if lower ones are, 0 if neither.
            log: Whether the axis is logarithmic.
        """
        everything = np.array(list(values), dtype=float)
        known = np.unique(everything[np.isfinite(everything)])
        if log:
            known = known[known > 0]
        if len(known) == 0:
            return cls(log=log)
        inside = _without_far(np.log10(known) if log else known, better)
        kept = known[inside]
        start, end = float(kept[0]), float(kept[-1])
        is_cut = (
            start > known[0] or bool(np.isneginf(everything).any()),
            end < known[-1] or bool(np.isposinf(everything).any()),
        )
        return cls(start if is_cut[0] else -math.inf, end if is_cut[1] else math.inf, start, end,
                   log)  # fmt: skip

    def side(self, value: float) -> int:
        """Return -1 if a value is beyond the lower end, 1 beyond the upper one, else 0."""
        return -1 if value < self.low else 1 if value > self.high else 0

    def place(self, value: float) -> float:
        """Return where a value is drawn: in its place, or at the edge that it is beyond."""
        side = self.side(value)
        return self._beyond(side * _EDGE) if side else value

    @property
    def limits(self) -> list[float] | None:
        """The range of the Plotly axis, logarithms for a log axis; None if it is not cut."""
        if math.isinf(self.low) and math.isinf(self.high):
            return None
        ends = [self._beyond(-_PAD), self._beyond(_PAD)]
        return [math.log10(end) for end in ends] if self.log else ends

    def _beyond(self, share: float) -> float:
        """Return the value a share of the range below its start, or above its end."""
        ends = (self.start, self.end)
        start, end = map(math.log10, ends) if self.log else ends
        across = (end - start) or abs(start) or 1.0
        moved = (start if share < 0 else end) + share * across
        return 10.0**moved if self.log else moved


def clip_outliers(
    figure: go.Figure,
    *,
    better: Mapping[str, int] | None = None,
    axes: Collection[str] = ("x", "y"),
) -> None:
    """Cut the axes of a figure with one panel where outliers would dominate them.

    Markers beyond an axis become arrows at its edge, the title of the axis counts them, and the
    hover label shows their true values. Call it once the traces have their markers and the axes
    their titles and types, and before references such as diagonals are added.

    Args:
        figure: The figure; all of its traces are scatters with markers.
        better: `{axis: 1 if higher values are better, -1 if lower ones are}` for "x" and "y".
        axes: The axes that may be cut.
    """
    sides = {
        name: _cut(figure, name, (better or {}).get(name, 0))
        if name in axes
        else [[0] * len(trace[name]) for trace in figure.data]
        for name in ("x", "y")
    }
    for place, trace in enumerate(figure.data):
        x, y = sides["x"][place], sides["y"][place]
        if not (any(x) or any(y)):
            continue
        own = trace.marker.symbol or "circle"
        symbols = [own] * len(x) if isinstance(own, str) else own
        trace.marker.symbol = [_symbol(*each) for each in zip(symbols, x, y, strict=True)]
        for error, column in ((trace.error_x, x), (trace.error_y, y)):
            for half in ("array", "arrayminus"):
                if error[half] is not None:  # an interval around the edge would be wrong
                    error[half] = [
                        None if side else each
                        for each, side in zip(error[half], column, strict=True)
                    ]


def _without_far(known: "np.ndarray[Any, np.dtype[np.float64]]", better: int) -> Any:
    """Return which sorted distinct values are not far outside."""
    everything = np.ones(len(known), dtype=bool)
    if len(known) < _FEWEST:
        return everything
    first, third = np.quantile(known, [0.25, 0.75])
    reach = _FENCE * (third - first)
    inside = everything.copy()
    if better >= 0:
        inside &= known >= first - reach
    if better <= 0:
        inside &= known <= third + reach
    kept = known[inside]
    return inside if np.ptp(known) >= _SHRINKS * np.ptp(kept) else everything


def _cut(figure: go.Figure, name: str, better: int) -> list[list[int]]:
    """Cut an axis, and return the side of each point that it is beyond, by trace."""
    axis = figure.layout[f"{name}axis"]
    columns = [list(trace[name]) for trace in figure.data]
    nowhere = [[0] * len(column) for column in columns]
    if axis.type == "category":
        return nowhere
    scale = Scale.of(
        (value for column in columns for value in column if value is not None),
        better=better, log=axis.type == "log",
    )  # fmt: skip
    sides = [[0 if v is None else scale.side(v) for v in column] for column in columns]
    count = sum(side != 0 for column in sides for side in column)
    if not count:
        return nowhere
    ends = [end for trace, column in zip(figure.data, sides, strict=True)
            for end in _ends(trace, name, column)]  # fmt: skip
    scale = replace(scale, start=min([scale.start, *ends]), end=max([scale.end, *ends]))
    for trace, column in zip(figure.data, columns, strict=True):
        _hover_over(trace, name, column)
        trace[name] = [None if value is None else scale.place(value) for value in column]
    axis.range = scale.limits
    axis.title.text = f"{axis.title.text} · {count:,} beyond the axis"
    return sides


def _ends(trace: go.Scatter, name: str, sides: Sequence[int]) -> list[float]:
    """Return the ends of the intervals around the points within an axis."""
    error = trace[f"error_{name}"]
    if error.array is None:
        return []
    below = error.array if error.arrayminus is None else error.arrayminus
    inside = [place for place, side in enumerate(sides) if not side]
    ends = [trace[name][place] - below[place] for place in inside]
    ends += [trace[name][place] + error.array[place] for place in inside]
    return [end for end in ends if math.isfinite(end)]


def _hover_over(trace: go.Scatter, name: str, values: Sequence[float]) -> None:
    """Have the hover label show these values instead of the places of the points."""
    template = trace.hovertemplate
    custom = [[each] if isinstance(each, str) else list(each) for each in trace.customdata]
    if not custom:
        return
    trace.customdata = [[*each, value] for each, value in zip(custom, values, strict=True)]
    template = template.replace("%{customdata}", "%{customdata[0]}")
    trace.hovertemplate = template.replace(f"%{{{name}", f"%{{customdata[{len(custom[0])}]")


def _symbol(own: str, x: int, y: int) -> str:
    """Return the symbol of a point: its own, or an arrow to the side that it is beyond."""
    side = _COMPASS.get((x, y))
    if side is None:
        return own
    return f"triangle-{side}-open" if own.endswith("-open") else f"triangle-{side}"
