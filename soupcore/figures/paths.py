"""Linear mode connectivity, drawn."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from soupcore.connectivity import Barriers, LinearPath
from soupcore.connectivity.bracket import Floats
from soupcore.figures.style import NEUTRAL, colours, finish

_CELL = 30  # pixels a row of the heatmap
_CONNECTED = {"loss": 0.1, "error": 2.0}  # nats; points (Frankle et al. 2020)
_LABELLED = 10  # ingredients up to which a cell has room for its number


def path_curves(
    paths: Mapping[tuple[str, str], LinearPath],
    *,
    loss_name: str = "loss",
    score_name: str = "accuracy",
) -> go.Figure:
    """Draw loss and score along the lines between pairs, one above the other.

    Each loss curve has its chord (the straight line between its ends) dashed, and its barrier as
    the stretch between the two at its highest.

    Args:
        paths: `{(a, b): path}`: `a` lies at α = 0, `b` at α = 1.
        loss_name: What the loss is called.
        score_name: What the score is called.
    """
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    inks = colours(f"{a} → {b}" for a, b in paths)
    for (a, b), path in paths.items():
        label = f"{a} → {b}"
        line = {"color": inks[label], "width": 2}
        end_labels = _end_labels(a, b, path) if len(paths) == 1 else None
        figure.add_scatter(
            x=path.alphas, y=path.losses, row=1, col=1,
            name=f"{label} · barrier {path.barrier:.3f}", legendgroup=label,
            mode="lines+markers+text", text=end_labels, textposition="top center",
            line=line, cliponaxis=False,
            hovertemplate=f"{label}<br>α = %{{x:.2f}}<br>{loss_name} %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=path.alphas, y=path.chord, row=1, col=1,
            legendgroup=label, showlegend=False, hoverinfo="skip", mode="lines",
            line={"color": NEUTRAL, "width": 1, "dash": "dash"},
        )  # fmt: skip
        if path.barrier > 0:
            _mark_barrier(figure, path, annotate=len(paths) == 1)
        figure.add_scatter(
            x=path.alphas, y=path.scores * 100, row=2, col=1,
            legendgroup=label, showlegend=False, mode="lines+markers", line=line,
            hovertemplate=f"{label}<br>α = %{{x:.2f}}<br>{score_name} %{{y:.2f}} %<extra></extra>",
        )  # fmt: skip
    figure.update_yaxes(title=loss_name, row=1, col=1)
    figure.update_yaxes(title=f"{score_name}, %", row=2, col=1)
    figure.update_xaxes(title="α: (1−α)·first + α·second", row=2, col=1)
    figure.update_xaxes(range=[-0.06, 1.06])
    return finish(figure, height=560)


def barrier_heatmap(barriers: Barriers, *, measure: str = "loss") -> go.Figure:
    """Draw the barriers between all pairs; cells not known yet stay empty.

    Args:
        barriers: The paths known.
        measure: `loss` (nats, for cross-entropy) or `error` (points of 100).
    """
    matrix = barriers.loss if measure == "loss" else barriers.error * 100
    names = list(barriers.names)
    unit = "" if measure == "loss" else " points"
    known = matrix[np.isfinite(matrix)]
    figure = go.Figure(
        go.Heatmap(
            z=matrix,
            x=names,
            y=names,
            colorscale="Viridis",
            zmin=min(0.0, float(known.min())),
            # Below what counts as connected, differences are not worth a colour of alarm.
            zmax=max(float(known.max()), _CONNECTED[measure]),
            xgap=1,
            ygap=1,
            colorbar={
                "title": {"text": f"{measure} barrier{unit}", "side": "right"},
                "thickness": 12,
            },
            hoverinfo="skip",
        )
    )
    if len(names) <= _LABELLED:
        decimals = 2 if measure == "loss" else 1
        figure.update_traces(texttemplate=f"%{{z:.{decimals}f}}", textfont={"size": 10})
    _make_cells_pickable(figure, names, matrix, unit)
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False)
    figure.update_xaxes(type="category", tickangle=-45, showgrid=False)
    return finish(figure, height=max(360, 150 + _CELL * len(names)))


def _make_cells_pickable(figure: go.Figure, names: list[str], matrix: Floats, unit: str) -> None:
    # A heatmap reports no clicks as selections; unseen markers on its cells do.
    cells = [
        (a, b, f"barrier {matrix[i, j]:.3f}{unit}" if np.isfinite(matrix[i, j]) else "not known")
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if a != b
    ]
    figure.add_scatter(
        x=[b for _, b, _ in cells],
        y=[a for a, _, _ in cells],
        customdata=cells,
        mode="markers",
        marker={"size": 20, "symbol": "square", "opacity": 0},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        hovertemplate="%{customdata[0]} → %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
        showlegend=False,
    )


def _end_labels(a: str, b: str, path: LinearPath) -> list[str]:
    labels = {0.0: a, 0.5: "midpoint", 1.0: b}
    return [labels.get(float(alpha), "") for alpha in path.alphas]


def _mark_barrier(figure: go.Figure, path: LinearPath, *, annotate: bool) -> None:
    index = int(np.flatnonzero(path.alphas == path.barrier_alpha)[0])
    figure.add_scatter(
        x=[path.barrier_alpha] * 2, y=[path.chord[index], path.losses[index]], row=1, col=1,
        mode="lines", showlegend=False, hoverinfo="skip",
        line={"color": NEUTRAL, "width": 2},
    )  # fmt: skip
    if annotate:
        figure.add_annotation(
            x=path.barrier_alpha,
            y=(path.chord[index] + path.losses[index]) / 2,
            row=1,
            col=1,
            text=f"barrier {path.barrier:.3f}",
            showarrow=False,
            xanchor="left",
            xshift=6,
        )
