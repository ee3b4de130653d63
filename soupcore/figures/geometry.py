"""Distances of ingredients from the base, overall and by layer."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from soupcore.connectivity import Geometry
from soupcore.figures.axes import Scale, fit_rows, linear_ticks
from soupcore.figures.style import add_legend, cell_numbers, finish, space_before
from soupcore.inner_products import Floats

_ROW = 20  # pixels per layer
_MOST_NAMED = 60  # columns whose slanted names do not overlap
_LABELLED = 16  # with more columns, cells are too narrow for numbers


def norm_bars(geometry: Geometry, colours: Mapping[str, str]) -> go.Figure:
    """Draw the distance of each ingredient from the origin of the geometry, the nearest on top."""
    order = np.argsort(-geometry.norms, kind="stable")
    names = [geometry.names[row] for row in order]
    figure = go.Figure(
        go.Bar(
            x=geometry.norms[order],
            y=names,
            orientation="h",
            marker={"color": [colours[name] for name in names]},
            hovertemplate="<b>%{y}</b><br>%{x:.4g}<extra></extra>",
            showlegend=False,
        )
    )
    add_legend(figure, colours, names)
    figure.update_xaxes(title=f"L2 distance from {geometry.origin}", rangemode="tozero")
    return finish(figure, height=fit_rows(figure, names))


def layer_heatmap(
    layers: Sequence[str],
    names: Sequence[str],
    values: Floats,
    *,
    title: str,
    unit: str = "",
    decimals: int | None = None,
) -> go.Figure:
    """Draw a quantity per ingredient and layer, with the first layer on top.

    The colour range excludes outliers; values beyond it have the colour of its end.

    Args:
        layers: Names of the L layers.
        names: Names of the k ingredients.
        values: Shape [L, k]; NaN leaves a cell empty.
        title: Name of the quantity.
        unit: Suffix of each number.
        decimals: Decimals per number in a cell; None for three significant digits.
    """
    scale = Scale.of(np.ravel(values))
    bar: dict[str, object] = {"title": {"text": title, "side": "right"}, "thickness": 12}
    if np.isfinite(scale.high):
        inside = [tick for tick in linear_ticks(scale.start, scale.end) if tick < scale.end]
        texts = [*(f"{tick:.3g}" for tick in inside), f"≥ {scale.end:.3g}"]
        bar |= {"tickvals": [*inside, scale.end], "ticktext": texts}
    digits = ".4g" if decimals is None else f".{decimals + 1}f"
    heatmap = go.Heatmap(
        z=values,
        x=list(names),
        y=list(layers),
        colorscale="Viridis",
        xgap=1,
        ygap=1,
        zmin=scale.start,
        zmax=scale.end if scale.end > scale.start else scale.start + 1,
        colorbar=bar,
        meta=[unit.strip()],
        hovertemplate=f"<b>%{{x}}</b>, %{{y}}<br>%{{z:{digits}}}"
        f"{space_before(unit)}%{{meta[0]}}<extra></extra>",
    )
    figure = go.Figure(heatmap)
    if len(names) <= _LABELLED and len(layers) <= 2 * _LABELLED:
        figure.add_trace(cell_numbers(heatmap, decimals))
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    every = -(-len(names) // _MOST_NAMED)
    figure.update_xaxes(
        type="category", tickangle=-45, showgrid=False, tickvals=list(names[::every])
    )
    return finish(figure, height=max(320, 150 + _ROW * len(layers)))
