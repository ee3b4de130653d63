"""What all figures share: one colour an ingredient, neutral inks that read on light and dark."""

from collections.abc import Iterable
from colorsys import hls_to_rgb

import plotly.graph_objects as go

NEUTRAL = "#8a8f98"  # axes of meaning that are not data: chords, the base, references
ACCEPTED = "#2a9d6f"
REJECTED = "#c2554d"
SOUP = "#e0a100"

_PALETTE = (
    "#3b7dd8", "#e07b39", "#2a9d6f", "#b65fcf", "#c2554d",
    "#17a2b8", "#9a8f2f", "#e377a8", "#6b74c9", "#7a9a3a",
)  # fmt: skip
_GOLDEN_ANGLE = 0.381966  # turns; successive hues stay far apart however many there are


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return the colour of each ingredient: the same wherever the sweep's order is the same."""
    return {name: _colour(index) for index, name in enumerate(names)}


def _colour(index: int) -> str:
    if index < len(_PALETTE):
        return _PALETTE[index]
    red, green, blue = hls_to_rgb((index * _GOLDEN_ANGLE) % 1, 0.55, 0.5)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def finish(figure: go.Figure, *, height: int, title: str = "") -> go.Figure:
    """Give a figure the layout that all have."""
    figure.update_layout(
        height=height,
        title={"text": title, "font": {"size": 14}},
        margin={"l": 8, "r": 8, "t": 40 if title else 16, "b": 8},
        hoverlabel={"align": "left"},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.02, "xanchor": "left", "x": 0},
    )
    figure.update_xaxes(automargin=True, gridcolor="rgba(138,143,152,0.18)", zeroline=False)
    figure.update_yaxes(automargin=True, gridcolor="rgba(138,143,152,0.18)", zeroline=False)
    return figure
