"""Where ingredients lie and where they differ, drawn."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from soupcore.connectivity import Geometry
from soupcore.connectivity.bracket import Floats
from soupcore.figures.cell_numbers import cell_numbers
from soupcore.figures.style import finish

_ROW = 20  # pixels a layer
_LABELLED = 16  # columns up to which a cell has room for its number


def norm_bars(geometry: Geometry, colours: Mapping[str, str]) -> go.Figure:
    """Draw how far each ingredient lies from the base."""
    figure = go.Figure(
        go.Bar(
            x=geometry.norms,
            y=list(geometry.names),
            orientation="h",
            marker={"color": [colours[name] for name in geometry.names]},
            hovertemplate="<b>%{y}</b><br>%{x:.4g}<extra></extra>",
        )
    )
    figure.update_xaxes(title=f"distance from {geometry.origin}", rangemode="tozero")
    figure.update_yaxes(type="category", autorange="reversed")
    return finish(figure, height=max(240, 90 + 22 * len(geometry.names)))


def layer_heatmap(
    layers: Sequence[str],
    names: Sequence[str],
    values: Floats,
    *,
    title: str,
    unit: str = "",
    decimals: int = 2,
) -> go.Figure:
    """Draw what is measured of each ingredient in each layer, the input's layer on top.

    Args:
        layers: L of them.
        names: The ingredients, k of them.
        values: Shape [L, k]; NaN where there is none.
        title: What they are.
        unit: What follows a number.
        decimals: Of a number in a cell.
    """
    heatmap = go.Heatmap(
        z=values,
        x=list(names),
        y=list(layers),
        colorscale="Viridis",
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": title, "side": "right"}, "thickness": 12},
        hovertemplate=f"<b>%{{x}}</b>, %{{y}}<br>%{{z:.{decimals + 1}f}}{unit}<extra></extra>",
    )
    figure = go.Figure(heatmap)
    if len(names) <= _LABELLED and len(layers) <= 2 * _LABELLED:
        figure.add_trace(cell_numbers(heatmap, decimals))
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    figure.update_xaxes(type="category", tickangle=-45, showgrid=False)
    return finish(figure, height=max(320, 150 + _ROW * len(layers)))
