"""Loss and error on planes in weight space."""

import math
from collections.abc import Mapping
from dataclasses import astuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from soupcore.connectivity import Plane
from soupcore.connectivity.bracket import Floats
from soupcore.connectivity.plane import Place
from soupcore.figures.style import NEUTRAL, SOUP, finish
from soupcore.tasks import SHARE, Unit

_INK = "#ffffff"
_TICKS = np.array([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000])
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

    Models off the plane are drawn fainter with distance, because the colour beneath them is not
    their own loss.

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
    figure.add_trace(_loss(plane), row=1, col=1)
    second = _error(plane) if score_unit.counts_errors else _score(plane, score_unit)
    figure.add_trace(second, row=1, col=2)
    first, other, third = _corner_names(plane, places)
    for column in (1, 2):
        figure.add_trace(_markers(places, kinds, colours, column == 1), row=1, col=column)
        figure.update_xaxes(
            title=f"Distance along {first} → {other}", range=[plane.xs[0], plane.xs[-1]],
            constrain="domain", showgrid=False, row=1, col=column,
        )  # fmt: skip
        figure.update_yaxes(
            range=[plane.ys[0], plane.ys[-1]], scaleanchor="x" if column == 1 else "x2",
            constrain="domain", showgrid=False, row=1, col=column,
        )  # fmt: skip
    figure.update_yaxes(title=f"Orthogonal distance towards {third}", row=1, col=1)
    finished = finish(figure, height=560)
    return finished.update_layout(margin={"t": 48}, showlegend=False)


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
    if not _is_positive(plane.losses):
        losses = plane.losses
        bar: dict[str, object] = {"x": 0.44}
        return _contour(plane, losses, *_range(losses), losses, "%{customdata:.4f}", "Viridis", bar)
    logs = np.log10(np.maximum(plane.losses, 1e-6))
    low, high = _range(logs)
    ticks = np.log10(_TICKS)
    inside = (ticks >= low) & (ticks <= high)
    shown = np.linspace(low, high, 5) if inside.sum() < 2 else ticks[inside]
    return _contour(
        plane, logs, low, high, plane.losses, "%{customdata:.4f}", "Viridis",
        {"tickvals": shown, "ticktext": [f"{10**tick:.4g}" for tick in shown], "x": 0.44},
    )  # fmt: skip


def _error(plane: Plane) -> go.Contour:
    error = (1 - plane.scores) * 100
    return _contour(plane, error, *_range(error), error, "%{customdata:.2f} %", "Cividis", {})


def _score(plane: Plane, unit: Unit) -> go.Contour:
    values = plane.scores * unit.factor
    scale = "Cividis_r" if unit.sign == 1 else "Cividis"  # as for the loss, dark is better
    return _contour(plane, values, *_range(values), values, unit.hover("customdata"), scale, {})


def _contour(
    plane: Plane, values: Floats, low: float, high: float, hover: Floats, text: str,
    scale: str, bar: dict[str, object],
) -> go.Contour:  # fmt: skip
    return go.Contour(
        x=plane.xs,
        y=plane.ys,
        z=values,
        customdata=hover,
        colorscale=scale,
        zmin=low,
        zmax=high,
        ncontours=18,
        line={"width": 0.5, "color": "rgba(255,255,255,0.35)"},
        colorbar={"thickness": 12, "len": 0.9} | bar,
        hovertemplate=f"{text}<extra></extra>",
    )


def _range(values: Floats) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    low, high = float(known.min(initial=np.inf)), float(known.max(initial=-np.inf))
    return (low, high) if low < high else (low - 0.5, low + 0.5) if low == high else (0.0, 1.0)


def _markers(
    places: Mapping[str, Place],
    kinds: Mapping[str, str],
    colours: Mapping[str, str],
    labelled: bool,
) -> go.Scatter:
    far = max((place.distance for place in places.values()), default=0.0) or 1.0
    on_plane = [place.distance < 1e-4 * far for place in places.values()]
    inks = [
        {"base": NEUTRAL, "soup": SOUP}.get(kinds[name], colours.get(name, NEUTRAL))
        for name in places
    ]
    return go.Scatter(
        x=[place.x for place in places.values()],
        y=[place.y for place in places.values()],
        mode="markers+text" if labelled else "markers",
        text=[name if on else "" for name, on in zip(places, on_plane, strict=True)],
        textposition="top center",
        textfont={"color": _INK, "size": 12, "shadow": "0 0 3px black"},
        customdata=[(name, place.distance) for name, place in places.items()],
        marker={
            "symbol": [_SYMBOLS[kinds[name]] for name in places],
            "size": [14 if on else 10 for on in on_plane],
            "color": inks,
            "opacity": [1 - 0.6 * place.distance / far for place in places.values()],
            "line": {"width": 1.5, "color": _INK},
        },
        hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]:.3f} from the plane"
        "<extra></extra>",
        name="points",
    )
