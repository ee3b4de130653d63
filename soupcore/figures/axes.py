"""Axes of numbers that span orders of magnitude, such as learning rates, and axes of names."""

import math
from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

ROWS = 720  #: height of all rows of a figure at most, in pixels

_ROW = 22  # pixels, fewer if all rows would be higher than ROWS
_NAME = 14  # pixels
_LEAST, _AROUND = 220, 90  # pixels of a figure, and of its title and horizontal axis
_TWO_DECADES = 100
_MOST_TICKS = 8
_MOST_LINEAR = 6


def is_logarithmic(values: Iterable[float]) -> bool:
    """Whether an axis is logarithmic: its numbers are positive and span two decades."""
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
