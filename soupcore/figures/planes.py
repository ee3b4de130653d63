"""Loss and error on planes in weight space."""

import math
from collections.abc import Collection, Mapping
from dataclasses import astuple
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from soupcore.connectivity import Plane
from soupcore.connectivity.plane import Place
from soupcore.figures.axes import linear_ticks
from soupcore.figures.style import NEUTRAL, SOUP, finish, scatter
from soupcore.inner_products import Floats
from soupcore.tasks import SHARE, Unit

_INK = "#ffffff"
_FEWEST, _MOST = 5, 12  # contours
_DIGITS = (
    (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8),
    (1, 1.5, 2, 3, 5, 7),
    (1, 2, 5),
    (1,),
)  # of logarithmic levels
_ROOM = 0.09  # of the plane's size, around the number of a contour
_NAME = (0.25, 0.06)  # of the plane's width and height, around a name
_SYMBOLS = {"base": "square", "soup": "star", "ingredient": "circle"}


def plane_contours(
    plane: Plane,
    places: Mapping[str, Place],
    kinds: Mapping[str, str],
    colours: Mapping[str, str],
    *,
    loss_name: str = "loss",
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
) -> go.Figure:
    """Draw contours of loss and error on a plane, and models projected onto it.

    The error is 100 % minus the score. Scores that are not shares have no error and are drawn
    instead of it.

    Contours are labelled with their values. Models off the plane are hollow and fade with distance,
    because the colour beneath them is not their own loss. Their names are smaller. Names that would
    overlap others are shown on hover only: models on the plane come first, then the nearest to it.

    Args:
        plane: Evaluated plane; missing cells stay empty.
        places: `{name: place}` of the models to draw, including the three corners.
        kinds: `{name: kind}`, where a kind is `ingredient`, `base` or `soup`.
        colours: Colour of each ingredient.
        loss_name: Name of the loss.
        score_name: Name of the score.
        score_unit: Unit of the scores.
    """
    figure = make_subplots(
        rows=1, cols=2, shared_yaxes=True, horizontal_spacing=0.12,
        subplot_titles=[
            f"{loss_name} (log colour scale)" if _is_positive(plane.losses) else loss_name,
            "error, %" if score_unit.counts_errors else score_name,
        ],
    )  # fmt: skip
    first = _loss(plane)
    figure.add_trace(first, row=1, col=1)
    second = _error(plane) if score_unit.counts_errors else _score(plane, score_unit)
    figure.add_trace(second, row=1, col=2)
    for column, contour in ((1, first), (2, second)):
        figure.add_trace(_numbers(plane, contour, places), row=1, col=column)
    origin, other, third = _corner_names(plane, places)
    for column in (1, 2):
        figure.add_shape(  # white names would be lost where nothing is evaluated yet
            type="rect", xref="x domain", yref="y domain", x0=0, x1=1, y0=0, y1=1, layer="below",
            fillcolor=NEUTRAL, line={"width": 0}, row=1, col=column,
        )  # fmt: skip
        figure.add_trace(_markers(places, kinds, colours, column == 1), row=1, col=column)
        figure.update_xaxes(
            title=f"Distance along {origin} → {other}", range=[plane.xs[0], plane.xs[-1]],
            constrain="domain", showgrid=False, row=1, col=column,
        )  # fmt: skip
        figure.update_yaxes(
            range=[plane.ys[0], plane.ys[-1]], scaleanchor="x" if column == 1 else "x2",
            constrain="domain", showgrid=False, row=1, col=column,
        )  # fmt: skip
    figure.update_yaxes(title=f"Orthogonal distance towards {third}", row=1, col=1)
    for trace in _legend():
        figure.add_trace(trace, row=1, col=1)
    finished = finish(figure, height=560)
    # Above, the legend would overlap the titles.
    return finished.update_layout(margin={"t": 48}, legend={"y": -0.14, "yanchor": "top"})


def _corner_names(plane: Plane, places: Mapping[str, Place]) -> list[str]:
    """Return the names of the three corners; A, B or C for a corner that is not drawn."""
    corners = plane.frame.places
    near = 1e-6 * corners[1].x  # projections are rounded
    names = []
    for corner, letter in zip(corners, "ABC", strict=True):
        at = (name for name, place in places.items() if _apart(place, corner) <= near)
        names.append(next(at, letter))
    return names


def _apart(one: Place, other: Place) -> float:
    return math.dist(astuple(one), astuple(other))


def _is_positive(losses: Floats) -> bool:
    """Whether all losses can be drawn on a logarithmic scale."""
    return not (losses < 0).any()


def _loss(plane: Plane) -> go.Contour:
    losses, bar = plane.losses, {"x": 0.44}
    if not _is_positive(losses):
        return _contour(plane, losses, _levels(losses), losses, "%{customdata:.4f}", "Viridis", bar)
    values = np.maximum(losses, 1e-6)
    levels = _levels(values, log=True)
    return _contour(
        plane, np.log10(values), np.log10(levels), losses, "%{customdata:.4f}", "Viridis",
        {**bar, "ticktext": [f"{level:.4g}" for level in levels]},
    )  # fmt: skip


def _error(plane: Plane) -> go.Contour:
    error = (1 - plane.scores) * 100
    return _contour(plane, error, _levels(error), error, "%{customdata:.2f} %", "Cividis", {})


def _score(plane: Plane, unit: Unit) -> go.Contour:
    values = plane.scores * unit.factor
    scale = "Cividis_r" if unit.sign == 1 else "Cividis"  # as for the loss, dark is better
    return _contour(plane, values, _levels(values), values, unit.hover("customdata"), scale, {})


def _levels(values: Floats, *, log: bool = False) -> Floats:
    """Return round numbers strictly within the range of the values, as levels of contours."""
    low, high = _range(np.log10(values) if log else values)
    found: list[float] = []
    if log:
        low, high = 10**low * (1 + 1e-9), 10**high * (1 - 1e-9)  # the ends are not levels
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        many = (
            [float(f"{digit}e{power}") for power in powers for digit in digits]
            for digits in _DIGITS
        )
        inside = ([level for level in each if low < level < high] for each in many)
        found = next((each for each in inside if len(each) <= _MOST), [])
    if len(found) < _FEWEST:
        found = [level for level in linear_ticks(low, high, _MOST) if low < level < high]
    return np.array(found)


def _contour(
    plane: Plane, values: Floats, levels: Floats, hover: Floats, text: str, scale: str,
    bar: Mapping[str, object],
) -> go.Contour:  # fmt: skip
    """Draw contours at the levels. Plotly's have equal steps, so z is the position among them."""
    low, high = _range(values)
    count = len(levels)
    return go.Contour(
        x=plane.xs,
        y=plane.ys,
        z=np.interp(values, [low, *levels, high], np.arange(-1, count + 1)),
        customdata=hover,
        colorscale=scale,
        zmin=-1,
        zmax=count,
        contours={"start": 0, "end": count - 1, "size": 1},
        line={"width": 0.5, "color": "rgba(255,255,255,0.5)"},
        colorbar={
            "thickness": 12,
            "len": 0.9,
            "tickvals": list(range(count)),
            "ticktext": [f"{level:.4g}" for level in levels],
            **bar,
        },
        hovertemplate=f"{text}<extra></extra>",
    )


def _numbers(plane: Plane, contour: go.Contour, places: Mapping[str, Place]) -> dict[str, Any]:
    """Label each contour once, as far as possible from models, edges and other labels.

    Plotly can label contours too, but only with z, the position among the levels.
    """
    z = np.asarray(contour.z, dtype=np.float64)
    across, up = np.ptp(plane.xs), np.ptp(plane.ys)
    taken = [((place.x - plane.xs[0]) / across, (place.y - plane.ys[0]) / up)
             for place in places.values()]  # fmt: skip
    at, texts = [], []
    for level, text in enumerate(contour.colorbar.ticktext):
        points = _crossings(z, level)
        free = np.minimum(points, 1 - points).min(axis=1, initial=1.0)
        for x, y in taken:
            free = np.minimum(free, np.hypot(*(points - (x, y)).T))
        if len(points) and free.max() >= _ROOM / 2:
            taken.append(tuple(points[free.argmax()]))
            at.append(taken[-1])
            texts.append(text)
    return scatter(
        x=[plane.xs[0] + x * across for x, _ in at],
        y=[plane.ys[0] + y * up for _, y in at],
        text=texts,
        mode="text",
        textfont={"color": _INK, "size": 11, "shadow": "0 0 3px black"},
        hoverinfo="skip",
        showlegend=False,
        name="numbers",
    )


def _crossings(z: Floats, level: float) -> Floats:
    """Return where the edges of the grid cross a level, as shares of its size, shape [n, 2]."""
    found = []
    for grid, is_turned in ((z, False), (z.T, True)):
        left, right = grid[:, :-1], grid[:, 1:]
        known = np.isfinite(left) & np.isfinite(right)
        rows, columns = np.nonzero(known & ((left < level) != (right < level)))
        ends = left[rows, columns], right[rows, columns]
        along = (columns + (level - ends[0]) / (ends[1] - ends[0])) / (grid.shape[1] - 1)
        points = np.column_stack([along, rows / (grid.shape[0] - 1)])
        found.append(points[:, ::-1] if is_turned else points)
    return np.vstack(found)


def _range(values: Floats) -> tuple[float, float]:
    """Return the smallest and the largest finite value; a range around a single one."""
    known = values[np.isfinite(values)]
    low, high = float(known.min(initial=np.inf)), float(known.max(initial=-np.inf))
    return (low, high) if low < high else (low - 0.5, low + 0.5) if low == high else (0.0, 1.0)


def _markers(
    places: Mapping[str, Place],
    kinds: Mapping[str, str],
    colours: Mapping[str, str],
    labelled: bool,
) -> dict[str, Any]:
    far = max((place.distance for place in places.values()), default=0.0) or 1.0
    on_plane = {name for name, place in places.items() if place.distance < 1e-4 * far}
    order = sorted(places, key=lambda name: 0 if name in on_plane else places[name].distance)
    named = _with_room({name: places[name] for name in order}, on_plane or set(places))
    inks = {
        name: {"base": NEUTRAL, "soup": SOUP}.get(kinds[name], colours.get(name, NEUTRAL))
        for name in places
    }
    return scatter(
        x=[place.x for place in places.values()],
        y=[place.y for place in places.values()],
        mode="markers+text" if labelled else "markers",
        text=[name if name in named else "" for name in places],
        textposition="top center",
        textfont={
            "color": _INK,
            "size": [12 if name in on_plane else 10 for name in places],
            "shadow": "0 0 3px black",
        },
        customdata=[
            (name, "on the plane" if name in on_plane else f"{place.distance:.3g} off the plane")
            for name, place in places.items()
        ],
        marker={
            "symbol": [_SYMBOLS[kinds[name]] for name in places],
            "size": [14 if name in on_plane else 10 for name in places],
            "color": [inks[name] if name in on_plane else _INK for name in places],
            "opacity": [1 - 0.6 * place.distance / far for place in places.values()],
            "line": {
                "width": [1.5 if name in on_plane else 2 for name in places],
                "color": [_INK if name in on_plane else inks[name] for name in places],
            },
        },
        hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<extra></extra>",
        showlegend=False,
        name="points",
    )


def _with_room(places: Mapping[str, Place], within: Collection[str]) -> set[str]:
    """Return the names that do not overlap earlier ones, given the names that span the plane."""
    across, up = (
        max(np.ptp([getattr(places[name], axis) for name in within] or [0]), 1e-9) for axis in "xy"
    )
    taken: dict[str, Place] = {}
    for name, place in places.items():
        if all(
            abs(place.x - other.x) > _NAME[0] * across or abs(place.y - other.y) > _NAME[1] * up
            for other in taken.values()
        ):
            taken[name] = place
    return set(taken)


def _legend() -> list[dict[str, Any]]:
    """Return legend entries of models on the plane and off it."""
    return [
        scatter(
            x=[None],
            y=[None],
            mode="markers",
            marker={"size": size, "color": fill, "line": {"width": 2, "color": NEUTRAL}},
            name=title,
        )
        for title, size, fill in (
            ("on the plane", 12, NEUTRAL),
            ("off the plane (projected; the colour beneath is not its loss)", 9, _INK),
        )
    ]
