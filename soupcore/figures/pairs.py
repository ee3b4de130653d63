"""What is measured between pairs of ingredients, as a matrix with the tree of how they join."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from soupcore.connectivity import Barriers, Tree
from soupcore.connectivity.bracket import Floats
from soupcore.figures.cell_numbers import cell_numbers
from soupcore.figures.style import NEUTRAL, finish

_CELL = 30  # pixels a row, while that leaves the matrix lower than _LARGEST
_LARGEST = 760
_LABELLED = 16  # names up to which a cell has room for its number
_TREE = 90  # pixels
_TREE_SHARE = 0.16  # of the height

Pair = tuple[str, str]


@dataclass(frozen=True)
class Measure:
    """What is measured of a pair, and how it is shown.

    Attributes:
        title: What it is called.
        unit: What follows a number, "" where it has none.
        factor: What a value is multiplied by to be shown in the unit.
        decimals: Of a number in a cell.
        connected: Up to which value, as shown, a pair counts as connected; None where it says
            nothing of that.
        diverges: Whether 0 is in the middle of the colours.
    """

    title: str
    unit: str = ""
    factor: float = 1.0
    decimals: int = 2
    connected: float | None = None
    diverges: bool = False


MEASURES = {
    "loss": Measure("loss barrier", connected=0.1),
    "error": Measure("error barrier", " points", 100, 1, connected=2.0),  # Frankle et al. 2020
    "midpoint": Measure("midpoint advantage", " points", 100, 1, diverges=True),
    "angle": Measure("angle between task vectors", "°", decimals=0),
    "distance": Measure("distance"),
}


def barrier_heatmap(barriers: Barriers, *, measure: str = "loss") -> go.Figure:
    """Draw what is known between all pairs of ingredients; cells not known yet stay empty.

    Args:
        barriers: The paths known.
        measure: `loss`, `error` or `midpoint`.
    """
    values = {
        "loss": barriers.loss, "error": barriers.error, "midpoint": barriers.midpoint_advantage
    }[measure]  # fmt: skip
    return pair_heatmap(barriers.names, values, MEASURES[measure], preliminary=barriers.open)


def pair_heatmap(
    names: Collection[str],
    values: Floats,
    measure: Measure,
    *,
    tree: Tree | None = None,
    threshold: float | None = None,
    preliminary: Collection[Pair] = (),
    details: Mapping[Pair, str] | None = None,
) -> go.Figure:
    """Draw a matrix of pairs, its rows in the order of the tree above it where there is one.

    Args:
        names: The ingredients, k of them.
        values: Shape [k, k], symmetric; NaN where a pair is not known.
        measure: What they are.
        tree: How the names join.
        threshold: Drawn across the tree, as the measure is shown.
        preliminary: Pairs that are marked by a ring: better values may come.
        details: `{(a, b): text}` to show on a cell below its value.
    """
    order = list(tree.order if tree else names)
    index = {name: position for position, name in enumerate(names)}
    rows = [index[name] for name in order]
    shown = values[np.ix_(rows, rows)] * measure.factor
    if tree is None or len(order) < 2:
        figure, row, share = make_subplots(rows=1, cols=1), 1, 1.0
    else:
        figure, row, share = _with_tree(tree, measure, threshold), 2, 1 - _TREE_SHARE
    cell = min(_CELL, _LARGEST / max(len(order), 1))
    heatmap = _heatmap(order, shown, measure, share)
    figure.add_trace(heatmap, row=row, col=1)
    if len(order) <= _LABELLED:
        figure.add_trace(cell_numbers(heatmap, measure.decimals), row=row, col=1)
    marked = {frozenset(pair) for pair in preliminary}
    figure.add_trace(_rings(order, marked), row=row, col=1)
    texts = {frozenset(pair): text for pair, text in (details or {}).items()}
    figure.add_trace(_cells(order, shown, measure, texts, cell), row=row, col=1)
    ticks = {"tickvals": list(range(len(order))), "ticktext": order, "showgrid": False}
    edges = [-0.5, len(order) - 0.5]
    figure.update_yaxes(ticks, range=edges[::-1], row=row, col=1)
    figure.update_xaxes(ticks, range=edges, tickangle=-45, showticklabels=True, row=row, col=1)
    height = max(360, 150 + cell * len(order) + (_TREE if row == 2 else 0))
    finished = finish(figure, height=round(height))
    return finished.update_layout(showlegend=False)


def _with_tree(tree: Tree, measure: Measure, threshold: float | None) -> go.Figure:
    figure = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.02,
        row_heights=[_TREE_SHARE, 1 - _TREE_SHARE],
    )
    positions, heights = tree.branches
    # One trace with gaps: a trace for each branch is slow to draw.
    gap = np.full((len(positions), 1), np.nan)
    figure.add_scatter(
        x=np.hstack([positions, gap]).ravel(),
        y=np.hstack([heights * measure.factor, gap]).ravel(),
        mode="lines",
        line={"color": NEUTRAL, "width": 1.5},
        hoverinfo="skip",
        name="tree",
        row=1,
        col=1,
    )
    if threshold is not None:
        figure.add_hline(
            threshold, line={"color": NEUTRAL, "width": 1, "dash": "dot"}, row=1, col=1
        )
    figure.update_xaxes(visible=False, row=1, col=1)
    figure.update_yaxes(rangemode="tozero", nticks=3, row=1, col=1)
    return figure


def _heatmap(order: list[str], shown: Floats, measure: Measure, share: float) -> go.Heatmap:
    known = shown[np.isfinite(shown)]
    low, high = min(0.0, known.min(initial=0)), known.max(initial=0)
    # Below what counts as connected, differences are not worth a colour of alarm.
    high = max(high, measure.connected or 0)
    if measure.diverges:
        high = max(high, -low, 1e-9)
        low = -high
    return go.Heatmap(
        z=shown,
        x=list(range(len(order))),
        y=list(range(len(order))),
        colorscale="RdBu" if measure.diverges else "Viridis",
        zmin=low,
        zmax=high,
        xgap=1,
        ygap=1,
        colorbar={
            "title": {"text": measure.title + measure.unit, "side": "right"},
            "thickness": 10,
            "len": share,
            "y": share / 2,
            "x": 1.01,
        },
        hoverinfo="skip",
    )


def _rings(order: list[str], marked: Collection[frozenset[str]]) -> go.Scatter:
    cells = [
        (i, j)
        for i, a in enumerate(order)
        for j, b in enumerate(order)
        if frozenset((a, b)) in marked
    ]
    return go.Scatter(
        x=[j + 0.32 for _, j in cells],
        y=[i - 0.3 for i, _ in cells],
        mode="markers",
        marker={"size": 5, "symbol": "circle-open", "color": "white", "line": {"width": 1}},
        hoverinfo="skip",
        name="preliminary",
    )


def _cells(
    order: list[str],
    shown: Floats,
    measure: Measure,
    details: Mapping[frozenset[str], str],
    size: float,
) -> go.Scatter:
    # A heatmap reports no clicks as selections; unseen markers on its cells do.
    cells = [
        (i, j, a, b, _text(shown[i, j], measure, details.get(frozenset((a, b)), "")))
        for i, a in enumerate(order)
        for j, b in enumerate(order)
        if a != b
    ]
    return go.Scatter(
        x=[j for _, j, *_ in cells],
        y=[i for i, *_ in cells],
        customdata=[texts for _, _, *texts in cells],
        mode="markers",
        marker={"size": min(20, size), "symbol": "square", "opacity": 0},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        hovertemplate="%{customdata[0]} → %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
        name="cells",
    )


def _text(value: float, measure: Measure, detail: str) -> str:
    if not np.isfinite(value):
        return f"{measure.title}: not known"
    text = f"{measure.title} {value:.{measure.decimals + 1}f}{measure.unit}"
    return f"{text}<br>{detail}" if detail else text
