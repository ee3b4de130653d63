"""Pairs of ingredients compared: what their two-model soups gain, and what was expected."""

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soupcore.analysis.grids import Grid
from soupcore.figures.cell_numbers import cell_numbers
from soupcore.figures.style import NEUTRAL, finish

_PAIR = "<b>%{customdata[0]} + %{customdata[1]}</b><br>"


def angle_scatter(table: pd.DataFrame, *, colour: str = "", score_name: str = "accuracy"
                  ) -> go.Figure:  # fmt: skip
    """Draw what a two-model soup gains against the angle between the task vectors.

    Figure 3 of the soups' paper: the gain is the soup's score less the mean of the two.

    Args:
        table: A row a pair. Columns: `first`, `second`, `angle` in degrees, `advantage` as a share
            of 1, and `colour` where it is named.
        colour: What the colours stand for.
        score_name: What the score is called.
    """
    figure = _scatter(
        table, table["angle"], table["advantage"] * 100, colour,
        f"{_PAIR}%{{x:.1f}}°<br>%{{y:+.2f}} points",
    )  # fmt: skip
    figure.add_hline(0, line={"color": NEUTRAL, "width": 1, "dash": "dash"})
    figure.update_xaxes(title="angle between the task vectors, °")
    figure.update_yaxes(title=f"{score_name} of the soup − mean of the two, points")
    return figure


def soup_ensemble_scatter(table: pd.DataFrame, *, colour: str = "", score_name: str = "accuracy"
                          ) -> go.Figure:  # fmt: skip
    """Draw the two-model soup's score against the two-model ensemble's (figure 4 of the paper).

    Args:
        table: A row a pair. Columns: `first`, `second`, `ensemble` and `soup` as shares of 1, and
            `colour` where it is named.
        colour: What the colours stand for.
        score_name: What the score is called.
    """
    figure = _scatter(
        table, table["ensemble"] * 100, table["soup"] * 100, colour,
        f"{_PAIR}ensemble %{{x:.2f}} %<br>soup %{{y:.2f}} %",
    )  # fmt: skip
    _diagonal(figure, "equal")
    figure.update_xaxes(title=f"{score_name} of the ensemble of two, %")
    figure.update_yaxes(title=f"{score_name} of the soup of two, %")
    return figure


def theory_scatter(table: pd.DataFrame, *, colour: str = "") -> go.Figure:
    """Draw the loss that soups have over ensembles against what equation 1 predicts (K.1).

    Args:
        table: A row a pair. Columns: `first`, `second`, `predicted` and `gap` in nats, and `colour`
            where it is named.
        colour: What the colours stand for.
    """
    figure = _scatter(
        table, table["predicted"], table["gap"], colour,
        f"{_PAIR}predicted %{{x:+.4f}}<br>true %{{y:+.4f}}",
    )  # fmt: skip
    _diagonal(figure, "as predicted")
    figure.update_xaxes(title="predicted L(soup) − L(ensemble), nats")
    figure.update_yaxes(title="true L(soup) − L(ensemble), nats")
    return figure


def grid_heatmap(grid: Grid, *, title: str, unit: str = "", diverges: bool = False) -> go.Figure:
    """Draw the mean of a value over a grid of hyperparameters; empty where none has the two.

    Args:
        grid: What was averaged.
        title: What it is.
        unit: What follows a number.
        diverges: Whether 0 is in the middle of the colours.
    """
    known = grid.means[np.isfinite(grid.means)]
    far = max(np.abs(known).max(initial=0), 1e-9)
    heatmap = go.Heatmap(
        z=grid.means,
        x=[str(value) for value in grid.columns],
        y=[str(value) for value in grid.rows],
        customdata=grid.counts,
        colorscale="RdBu" if diverges else "Viridis",
        zmin=-far if diverges else None,
        zmax=far if diverges else None,
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": title, "side": "right"}, "thickness": 12},
        hovertemplate=f"{grid.column_name} %{{x}}<br>{grid.row_name} %{{y}}<br>"
        f"%{{z:.3f}}{unit}, mean of %{{customdata}}<extra></extra>",
    )
    figure = go.Figure([heatmap, cell_numbers(heatmap, 2, size=11)])
    figure.update_xaxes(title=grid.column_name, type="category", showgrid=False)
    figure.update_yaxes(title=grid.row_name, type="category", showgrid=False)
    return finish(figure, height=max(320, 140 + 44 * len(grid.rows)))


def _scatter(
    table: pd.DataFrame, x: "pd.Series[float]", y: "pd.Series[float]", colour: str, hover: str
) -> go.Figure:
    coloured = colour != "" and "colour" in table
    figure = go.Figure(
        go.Scatter(
            x=x,
            y=y,
            mode="markers",
            customdata=table[["first", "second", *(["colour"] if coloured else [])]].to_numpy(),
            marker={"size": 9, "opacity": 0.85, "line": {"width": 0.5, "color": NEUTRAL}}
            | (_colours(table["colour"], colour) if coloured else {"color": NEUTRAL}),
            hovertemplate=hover
            + (f"<br>{colour} %{{customdata[2]}}" if coloured else "")
            + "<extra></extra>",
            showlegend=False,
        )
    )
    return finish(figure, height=460)


def _colours(values: "pd.Series[float]", title: str) -> dict[str, object]:
    bar: dict[str, object] = {"title": {"text": title, "side": "right"}, "thickness": 12}
    known = values.dropna()
    if len(known) and known.min() > 0 and known.max() > 10 * known.min():
        # Learning rates go by factors.
        values = values.map(math.log10)
        ticks = sorted(known.unique())
        ticks = ticks[:: -(-len(ticks) // 6)]
        bar |= {
            "tickvals": [math.log10(tick) for tick in ticks],
            "ticktext": [f"{tick:g}" for tick in ticks],
        }
    elif known.nunique() == 1:  # plotly would put the one value in the middle of a scale of its own
        bar |= {"tickvals": [known.iloc[0]], "ticktext": [f"{known.iloc[0]:g}"]}
    return {"color": values, "colorscale": "Viridis", "showscale": True, "colorbar": bar}


def _diagonal(figure: go.Figure, label: str) -> None:
    points = figure.data[0]
    low = min(min(points.x, default=0), min(points.y, default=0))
    high = max(max(points.x, default=1), max(points.y, default=1))
    figure.add_scatter(
        x=[low, high], y=[low, high], mode="lines", name=label, hoverinfo="skip",
        line={"color": NEUTRAL, "width": 1, "dash": "dash"},
    )  # fmt: skip
