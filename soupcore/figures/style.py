"""Shared style of figures: colours and greys that work on light and dark themes."""

from collections.abc import Iterable
from colorsys import hls_to_rgb
from typing import Any

import numpy as np
import plotly.graph_objects as go

from soupcore.escaping import figure_text

NEUTRAL = "#8a8f98"  # chords, the base and other references
ACCEPTED = "#2a9d6f"
REJECTED = "#c2554d"
SOUP = "#e0a100"

# After Okabe and Ito (2008), adjusted so that any two of these, SOUP and NEUTRAL differ by at least
# 11 in CIEDE2000, for deuteranopia too, and stand out from light and dark backgrounds.
PALETTE = (
    "#0d70ad", "#d55e00", "#009e73", "#e47ea1", "#56b4e9", "#a0355f", "#7d7e3e", "#8f6cdf",
)  # fmt: skip
ABOVE = 92  # pixels of a titled figure, above its plot, for title and legend
_INK, _FAINT = "#1f2328", "#57606a"
_NO_TEXTS = ("hovertemplate", "texttemplate", "template")
_GOLDEN_ANGLE = 0.381966  # turns; keeps successive hues far apart for any number of names


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name. It depends only on the position of the name."""
    return {name: _colour(index) for index, name in enumerate(names)}


def _colour(index: int) -> str:
    if index < len(PALETTE):
        return PALETTE[index]
    red, green, blue = hls_to_rgb((index * _GOLDEN_ANGLE) % 1, 0.55, 0.5)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def space_before(unit: str) -> str:
    """Return the leading space of a unit, which plotly strips from the texts in `meta`."""
    return " " if unit.startswith(" ") else ""


def scatter(**properties: Any) -> dict[str, Any]:
    """Return a trace for a figure, which validates it. It would validate a `go.Scatter` again."""
    return {"type": "scatter", **properties}


def finish(figure: go.Figure, *, height: int, title: str = "") -> go.Figure:
    """Apply the shared layout and escape all texts. Call it exactly once, as the last step.

    Texts of a figure may contain untrusted names, so all of them are escaped. Only hover templates
    contain markup. They must not contain data, but refer to `customdata`, `meta` and the axes.
    """
    figure.update_layout(
        height=height,
        title={"text": title, "font": {"size": 14}},
        margin={"l": 8, "r": 8, "t": 40 if title else 16, "b": 8},
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
    )
    figure.update_xaxes(automargin=True, gridcolor="rgba(138,143,152,0.18)", zeroline=False)
    figure.update_yaxes(automargin=True, gridcolor="rgba(138,143,152,0.18)", zeroline=False)
    for part in (*figure.data, figure.layout):
        if changes := _escaped(part.to_plotly_json()):
            part.update(changes)
    return figure


def titled(figure: go.Figure, title: str, about: str = "") -> go.Figure:
    """Return a finished figure on white, with its title and room for it: to print or to send.

    Args:
        figure: A figure of this package.
        title: The title, one line.
        about: The splits and the numbers of examples, below the title; may be empty.
    """
    light = go.Figure(figure)
    return light.update_layout(
        {"template": "plotly_white", "height": light.layout.height + ABOVE, **heading(title, about)}
    )


def heading(title: str, about: str = "") -> dict[str, Any]:
    """Return the layout of a titled figure: its title, its top margin and its font."""
    return {
        "title": {
            "text": figure_text(title),
            "subtitle": {"text": figure_text(about), "font": {"size": 12, "color": _FAINT}},
            "x": 0,
            "xref": "container",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 20, "l": 4},
            "font": {"size": 15, "color": _INK},
        },
        "margin": {"t": ABOVE},
        "font": {"family": "system-ui, Arial, sans-serif", "color": _INK},
    }


def _escaped(node: Any) -> Any:
    """Return the changes that escape the texts in a part of a figure, or None without any.

    A dict is reduced to its changed keys. A list is returned whole.
    """
    if isinstance(node, str):
        text = figure_text(node)
        return text if text != node else None
    if isinstance(node, np.ndarray):
        return _escaped(node.tolist()) if node.dtype.kind in "OU" else None
    if isinstance(node, dict):
        changes = {key: _escaped(value) for key, value in node.items() if key not in _NO_TEXTS}
        return {key: change for key, change in changes.items() if change is not None} or None
    if isinstance(node, list | tuple):
        news = [_merged(value, _escaped(value)) for value in node]
        return news if any(new is not old for new, old in zip(news, node, strict=True)) else None
    return None


def _merged(value: Any, change: Any) -> Any:
    if change is None:
        return value
    if isinstance(value, dict):
        return {key: _merged(each, change.get(key)) for key, each in value.items()}
    return change
