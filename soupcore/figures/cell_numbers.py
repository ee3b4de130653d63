"""The numbers in the cells of a heatmap."""

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale, unlabel_rgb

_EQUAL_CONTRAST = 0.179  # luminance with equal contrast to black and to white (WCAG 2)


def cell_numbers(heatmap: go.Heatmap, decimals: int | None, size: int = 10) -> go.Scatter:
    """Return the numbers of a heatmap's cells, each in black or white for the higher contrast.

    Plotly's own numbers are grey and hard to read on mid-range colours.

    Args:
        heatmap: Supplies x, y, z and the colour scale, which spans `zmin` to `zmax` or, if these
            are not set, the range of the values.
        decimals: Decimals per number; None for three significant digits.
        size: Font size in pixels.
    """
    z = np.asarray(heatmap.z, dtype=np.float64).reshape(len(heatmap.y), len(heatmap.x))
    rows, columns = np.nonzero(np.isfinite(z))
    values = z[rows, columns]
    low = heatmap.zmin if heatmap.zmin is not None else values.min(initial=np.inf)
    high = heatmap.zmax if heatmap.zmax is not None else values.max(initial=-np.inf)
    shares = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    scale = [list(step) for step in heatmap.colorscale]
    inks = [_ink(colour) for colour in sample_colorscale(scale, shares.tolist())]
    return go.Scatter(
        x=[heatmap.x[column] for column in columns],
        y=[heatmap.y[row] for row in rows],
        text=[f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}" for value in values],
        mode="text",
        textfont={"size": size, "color": inks},
        hoverinfo="skip",
        showlegend=False,
        name="numbers",
    )


def _ink(colour: str) -> str:
    shares = np.asarray(unlabel_rgb(colour)) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return "#000" if linear @ (0.2126, 0.7152, 0.0722) > _EQUAL_CONTRAST else "#fff"
