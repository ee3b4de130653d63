"""Parallel coordinates: one vertical axis per column, one line per ingredient.

Plotly's own parallel coordinates report no selections, so the lines are traces of a scatter plot.
Its horizontal coordinate is the number of the axis; its vertical coordinate runs from 0 at the
start of the axis to 1 at its end. A box across an axis is a brush, and `Axis.limits_of` returns the
values in it.
"""

import math
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from soupcore.figures.axes import Scale, is_logarithmic, linear_ticks, log_ticks
from soupcore.figures.style import NEUTRAL, SOUP, finish, scatter
from soupcore.row_filter import Limits

MOST_CATEGORIES = 12  #: distinct texts of an axis

_BEYOND = 0.06  # distance of outliers from the ends of an axis, as a share of it
_MISSING = -0.14  # place of missing values, as a share of an axis
_GRID_TICKS = 6  # distinct numbers that are all ticks
_TICK_ROOM = 0.055  # shares of an axis between ticks
_SHADES = 12
_WORSE_TO_BETTER = ("#7d6bd0", "#c8548c", SOUP)
_LONGEST = 14  # characters of a tick
_TEXT_BRUSH = 0.05  # half the height of a marked text, in shares of the axis
_NEAR = 0.35  # of the distance between axes; a box this near brushes the axis
_HEIGHT = 400
_LINE = 15  # pixels
_TITLES = 120  # characters of all titles in a line
_MARK_EDGE = "#ffffff"
_FADED, _WEAK = 0.15, 0.35


@dataclass(frozen=True)
class Axis:
    """An axis of parallel coordinates.

    Attributes:
        title: The column.
        numbers: The distinct numbers, sorted; empty for text.
        categories: The distinct texts, sorted; empty for numbers.
        scale: The range of the numbers that is shown.
    """

    title: str
    numbers: Sequence[float] = ()
    categories: Sequence[str] = ()
    scale: Scale = field(default_factory=Scale)

    @classmethod
    def of(cls, title: str, values: Sequence[Any], *, better: int = 0) -> "Axis":
        """Return the axis of a column.

        Args:
            title: The column.
            values: Its values, numbers or text; None or NaN where there is none.
            better: 1 if higher values are better, -1 if lower ones are, 0 if neither.
        """
        known = [value for value in values if not _is_missing(value)]
        if not all(_is_number(value) for value in known):
            return cls(title, categories=sorted({str(value) for value in known}))
        numbers = sorted({float(value) for value in known})
        log = is_logarithmic(numbers)
        return cls(title, numbers, scale=Scale.of(numbers, better=better, log=log))

    def place(self, value: Any) -> float:
        """Return the share of the axis at which a value is: 0 at its start, 1 at its end.

        Outliers are slightly beyond the ends. Missing values are below the lower end.
        """
        if _is_missing(value):
            return _MISSING
        if self.categories:
            return self._share(self.categories.index(str(value)), 0, len(self.categories) - 1)
        side = self.scale.side(value)
        if side:
            return -_BEYOND if side < 0 else 1 + _BEYOND
        return self._share(*map(self._moved, (value, self.scale.start, self.scale.end)))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """The places and texts of the ticks."""
        if self.categories:
            return [(self.place(text), _short(text)) for text in self.categories]
        start, end = self.scale.start, self.scale.end
        shown = [number for number in self.numbers if not self.scale.side(number)]
        if len(shown) > _GRID_TICKS:
            shown = log_ticks(start, end) if self.scale.log else linear_ticks(start, end)
        ticks = _thinned([(self.place(number), f"{number:.4g}") for number in shown])
        sides = [self.scale.side(number) for number in self.numbers]
        ticks += [(-_BEYOND, f"▾ {sides.count(-1)} beyond")] * (-1 in sides)
        ticks += [(1 + _BEYOND, f"▴ {sides.count(1)} beyond")] * (1 in sides)
        return ticks

    def limits_of(self, low: float, high: float) -> Limits | tuple[str, ...] | None:
        """Return the values between two shares of the axis; None if these are all.

        Args:
            low: The lower share.
            high: The upper share.
        """
        if self.categories:
            inside = tuple(text for text in self.categories if low <= self.place(text) <= high)
            return None if len(inside) == len(self.categories) else inside
        least, most = self.place(self.numbers[0]), self.place(self.numbers[-1])
        limits = Limits(
            -math.inf if low <= least else self._value(low),
            math.inf if high >= most else self._value(high),
        )
        return None if limits == Limits() else limits

    def brushed(self, limits: Limits | Sequence[str]) -> list[tuple[float, float]]:
        """Return the parts of the axis that hold these values, as pairs of shares."""
        if not isinstance(limits, Limits):
            wanted = {text.casefold() for text in limits}
            half = min(_TEXT_BRUSH, 0.4 / max(len(self.categories) - 1, 1))
            at = [self.place(text) for text in self.categories if text.casefold() in wanted]
            return [(place - half, place + half) for place in at]
        if not self.numbers:
            return []
        ends = (self._bound(limits.low, -1), self._bound(limits.high, 1))
        return [ends] if ends[0] <= ends[1] else []

    def _bound(self, value: float, side: int) -> float:
        """Return the share of the axis at which a limit is."""
        least, most = self.place(self.numbers[0]), self.place(self.numbers[-1])
        edge = least - 0.02 if side < 0 else most + 0.02
        if math.isinf(value):
            return edge
        if self.scale.log and value <= 0:
            return least - 0.02
        share = self._share(*map(self._moved, (value, self.scale.start, self.scale.end)))
        return min(max(share, least - 0.02), most + 0.02)

    def _value(self, share: float) -> float:
        """Return the number at a share of the axis."""
        start, end = self._moved(self.scale.start), self._moved(self.scale.end)
        if share < 0 or share > 1:  # between the end and the outliers beyond it
            return self.scale.start if share < 0 else self.scale.end
        moved = start + share * (end - start)
        return 10.0**moved if self.scale.log else moved

    def _moved(self, value: float) -> float:
        return math.log10(value) if self.scale.log else value

    def _share(self, value: float, start: float, end: float) -> float:
        return (value - start) / (end - start) if end > start else 0.5


def brushes(
    axes: Sequence[Axis], across: Sequence[float], up: Sequence[float]
) -> dict[str, Limits | tuple[str, ...] | None]:
    """Return the limits that a box sets, `{column: limits}`; None for an axis that it frees.

    Args:
        axes: The axes from left to right.
        across: The two horizontal ends of the box, in numbers of axes.
        up: The two vertical ends, in shares of the axis.
    """
    left, right = sorted(across)
    low, high = sorted(up)
    inside = [number for number in range(len(axes)) if left <= number <= right]
    if not inside:
        nearest = min(range(len(axes)), key=lambda number: abs(number - (left + right) / 2))
        inside = [nearest] if abs(nearest - (left + right) / 2) <= _NEAR else []
    return {axes[number].title: axes[number].limits_of(low, high) for number in inside}


def parallel_coordinates(
    table: pd.DataFrame,
    columns: Sequence[str],
    *,
    score: str = "",
    better: int = 0,
    active: Collection[str] | None = None,
    selected: Collection[str] = (),
    brushed: Mapping[str, Limits | Sequence[str]] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> go.Figure:
    """Draw the rows of a table as lines across one axis per column.

    An axis is logarithmic if its numbers are positive and span two decades, text is drawn as
    categories, and outliers are beyond the ends (see `soupcore.figures.axes`).

    Args:
        table: Index: names. Rows with the columns below.
        columns: The columns, from left to right, without those that have no value at all.
        score: The column that colours the lines; empty for none.
        better: 1 if higher values of it are better, -1 if lower ones are.
        active: The rows that match the filter, the others are faded; None for all.
        selected: The selected rows. If there are any, the other lines are thin.
        brushed: `{column: limits}`, marked on the axes.
        kinds: `{name: kind}` of rows that are not ingredients, where a kind is `base` or `soup`.
            They are marks on the axes on which they have a value, such as that of the score.
    """
    others = kinds or {}
    axes = axes_of(table, columns, {score: better})
    names = [str(name) for name in table.index]
    rows = dict(zip(names, table[list(columns)].itertuples(index=False), strict=True))
    shades = _shades(table[score].tolist() if score else [None] * len(names), better)
    drawn = set(names if active is None else active)
    runs = [name for name in names if name not in others]
    groups: dict[tuple[int, str], list[str]] = {}
    for name, shade in zip(names, shades, strict=True):
        if name in others:
            continue
        rank = 0 if name not in drawn else 2 if not selected or name in selected else 1
        groups.setdefault((rank, shade if rank else NEUTRAL), []).append(name)
    figure = go.Figure()
    for number, axis in enumerate(axes):
        figure.add_shape(type="line", x0=number, x1=number, y0=0, y1=1,
                         line={"color": NEUTRAL, "width": 1.5})  # fmt: skip
        for low, high in axis.brushed((brushed or {}).get(axis.title, ())):
            figure.add_shape(
                type="rect", x0=number - 0.05, x1=number + 0.05, y0=low, y1=high,
                line={"color": SOUP, "width": 2}, fillcolor="rgba(224,161,0,0.25)", name="brush",
            )  # fmt: skip
    order = {shade: place for place, shade in enumerate(_scale())}
    for (rank, shade), members in sorted(
        groups.items(), key=lambda item: (item[0][0], order.get(item[0][1], -1))
    ):
        figure.add_trace(_lines(axes, {name: rows[name] for name in members}, shade, rank))
    for kind in ("base", "soup"):
        members = [name for name in names if others.get(name) == kind and name in drawn]
        if members:
            figure.add_trace(_marks(axes, {name: rows[name] for name in members}, kind))
    figure.add_trace(_tick_texts(axes))
    if score:
        figure.add_trace(_colour_bar(table[score].tolist(), score, better))
    titles = [_wrapped(axis.title, len(axes)) for axis in axes]
    for number, lines in enumerate(titles):
        for place, line in enumerate(reversed(lines)):
            figure.add_annotation(x=number, y=1, yref="paper", yshift=_LINE * (place + 0.5),
                                  text=line, showarrow=False)  # fmt: skip
    figure.update_xaxes(range=[-0.3, len(axes) - 0.4], visible=False, fixedrange=True)
    has_missing = any(_is_missing(value) for name in runs for value in rows[name])
    figure.update_yaxes(range=[_MISSING - 0.06 if has_missing else -0.1, 1.14], visible=False,
                        fixedrange=True)  # fmt: skip
    finished = finish(figure, height=_HEIGHT)
    top = _LINE * (max(map(len, titles)) + 1)
    return finished.update_layout(dragmode="select", showlegend=False, margin={"t": top})


def axes_of(
    table: pd.DataFrame, columns: Sequence[str], better: Mapping[str, int] | None = None
) -> list[Axis]:
    """Return the axes of columns of a table."""
    directions = better or {}
    return [
        Axis.of(column, table[column].tolist(), better=directions.get(column, 0))
        for column in columns
    ]


def _lines(axes: Sequence[Axis], rows: Mapping[str, Sequence[Any]], ink: str, rank: int
           ) -> dict[str, Any]:  # fmt: skip
    """Return the lines of rows with gaps between them; one trace per row is slow to draw."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    custom: list[list[str]] = []
    for name, values in rows.items():
        for number, (axis, value) in enumerate(zip(axes, values, strict=True)):
            xs.append(number)
            ys.append(axis.place(value))
            custom.append([name, axis.title, _text(value)])
        xs.append(None)
        ys.append(None)
        custom.append(["", "", ""])
    return scatter(
        x=xs,
        y=ys,
        mode="lines+markers",
        line={"color": ink, "width": 1.5 if rank == 2 else 1},
        marker={"color": ink, "size": 6 if rank else 4},
        opacity=(_FADED, _WEAK, 0.9)[rank],
        connectgaps=False,
        customdata=custom,
        hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]} %{customdata[2]}<extra></extra>",
        hoverinfo="all" if rank else "skip",
        name=("filtered out", "not selected", "shown")[rank],
    )


def _marks(axes: Sequence[Axis], rows: Mapping[str, Sequence[Any]], kind: str) -> dict[str, Any]:
    """Return marks on the axes on which rows have a value."""
    found = [
        (number, axis.place(value), [name, axis.title, _text(value)])
        for name, values in rows.items()
        for number, (axis, value) in enumerate(zip(axes, values, strict=True))
        if not _is_missing(value)
    ]
    return scatter(
        x=[number for number, _, _ in found],
        y=[place for _, place, _ in found],
        customdata=[custom for _, _, custom in found],
        mode="markers",
        marker={
            "symbol": {"base": "square", "soup": "star"}[kind],
            "size": 13,
            "color": {"base": NEUTRAL, "soup": SOUP}[kind],
            "line": {"width": 1, "color": _MARK_EDGE},
        },
        hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]} %{customdata[2]}<extra></extra>",
        name={"base": "base", "soup": "soups"}[kind],
    )


def _tick_texts(axes: Sequence[Axis]) -> dict[str, Any]:
    ticks = [(number, *tick) for number, axis in enumerate(axes) for tick in axis.ticks]
    return scatter(
        x=[number for number, _, _ in ticks],
        y=[place for _, place, _ in ticks],
        text=[f"\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}{text}" for _, _, text in ticks],
        mode="text",
        textposition="middle right",
        hoverinfo="skip",
        name="ticks",
    )


def _colour_bar(values: Sequence[Any], title: str, better: int) -> dict[str, Any]:
    scale = Scale.of((float(v) for v in values if not _is_missing(v)), better=better)
    return scatter(
        x=[None], y=[None], mode="markers", hoverinfo="skip", name="score",
        marker={
            "color": [scale.start], "cmin": scale.start, "cmax": scale.end or 1,
            "colorscale": _scale() if better >= 0 else _scale()[::-1], "showscale": True,
            "colorbar": {"title": {"text": title, "side": "right"}, "thickness": 10},
        },
    )  # fmt: skip


def _shades(values: Sequence[Any], better: int) -> list[str]:
    """Return the colour of each value, from worse to better."""
    scale, axis = _scale(), Axis.of("", values, better=better)
    if axis.categories or not axis.numbers:
        return [NEUTRAL] * len(values)
    linear = Axis("", axis.numbers, scale=Scale.of(axis.numbers, better=better))
    shares = [min(max(linear.place(value), 0.0), 1.0) for value in values]
    return [
        NEUTRAL if _is_missing(value)
        else scale[round((share if better >= 0 else 1 - share) * (_SHADES - 1))]
        for value, share in zip(values, shares, strict=True)
    ]  # fmt: skip


def _scale() -> list[str]:
    """Return the colours from worse to better; all stand out from light and dark backgrounds."""
    shares = [place / (_SHADES - 1) for place in range(_SHADES)]
    found: list[str] = sample_colorscale(list(_WORSE_TO_BETTER), shares)
    return found


def _wrapped(title: str, count: int) -> list[str]:
    """Return a title as lines that fit between the axes."""
    room = max(8, _TITLES // count)
    lines = textwrap.wrap(title.replace("_", "_ "), room, max_lines=3, placeholder=" …")
    return [line.replace("_ ", "_") for line in lines]


def _thinned(ticks: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """Return the last tick, and the others from the first on that do not overlap."""
    kept: list[tuple[float, str]] = []
    for tick in ticks[:-1]:
        if not kept or tick[0] - kept[-1][0] >= _TICK_ROOM:
            kept.append(tick)
    if kept and ticks[-1][0] - kept[-1][0] < _TICK_ROOM and len(kept) > 1:
        kept.pop()
    return [*kept, *ticks[-1:]]


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _text(value: Any) -> str:
    if _is_missing(value):
        return "–"
    return f"{value:.4g}" if _is_number(value) else str(value)


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
