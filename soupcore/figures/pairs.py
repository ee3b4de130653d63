"""Pairwise metrics of ingredients, as a matrix below its single-linkage dendrogram."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from soupcore.connectivity import Barriers, Tree
from soupcore.connectivity.basins import CONNECTED
from soupcore.connectivity.path import Pair
from soupcore.figures.style import NEUTRAL, SOUP, cell_numbers, finish
from soupcore.inner_products import Floats
from soupcore.tasks import SHARE, Unit

_CELL = 30  # pixels per row, fewer if the matrix would be higher than _LARGEST
_LARGEST = 760  # pixels
_LABELLED = 16  # with more names, cells are too small for numbers
_NAMED_COLUMNS = 40
_TICK = 12  # pixels
_SMALLEST_TICK = 9  # pixels
_TREE = 90  # pixels
_TREE_SHARE = 0.16  # of the height
_CLIPPED = 5  # multiples of the threshold; one far pair would hide differences among the others
_FADED = 0.6  # opacity of preliminary cells


@dataclass(frozen=True)
class Measure:
    """A pairwise metric and its display format.

    Attributes:
        title: Name of the metric.
        unit: Suffix of each number; may be empty.
        factor: Factor that converts a value to the displayed unit.
        decimals: Decimals per number in a cell; None for three significant digits.
        connected: Largest displayed value at which a pair counts as connected; None if the metric
            does not measure connectivity.
        diverges: Whether the colour scale is centred on 0.
    """

    title: str
    unit: str = ""
    factor: float = 1.0
    decimals: int | None = 2
    connected: float | None = None
    diverges: bool = False


def measures(score_unit: Unit = SHARE, score_name: str = "score") -> dict[str, Measure]:
    """Return the pairwise metrics by name.

    Args:
        score_unit: Unit of the scores. If they are accuracies, pairs with an error barrier of up to
            2 percentage points count as connected (Frankle et al. 2020). Other scores have no such
            threshold.
        score_name: Name of the score, in the titles of barriers of scores that are not accuracies.
    """
    unit, factor = score_unit.difference_symbol, score_unit.scale
    drop, connected = f"{score_name} barrier", None
    if score_unit.counts_errors:
        drop, connected = "error barrier", 2.0
    decimals = 1 if score_unit.is_share else None
    return {
        "loss": Measure("loss barrier", connected=CONNECTED),
        "error": Measure(drop, unit, factor, decimals, connected),
        "error (Frankle)": Measure(
            f"{drop} above endpoint mean", unit, factor, decimals, connected
        ),
        "midpoint": Measure("midpoint gain", unit, factor, decimals, diverges=True),
        "angle": Measure("angle between task vectors", "°", decimals=0),
        "distance": Measure("L2 distance between weights"),
    }


MEASURES = measures()


def barrier_heatmap(
    barriers: Barriers,
    *,
    measure: str = "loss",
    score_name: str = "score",
    score_unit: Unit = SHARE,
) -> go.Figure:
    """Draw the matrix of barriers. Cells of pairs that were not evaluated stay empty.

    Args:
        barriers: The evaluated paths.
        measure: `loss`, `error`, `error (Frankle)` or `midpoint`.
        score_name: Name of the score.
        score_unit: Unit of the scores.
    """
    values = {
        "loss": barriers.loss,
        "error": barriers.error,
        "error (Frankle)": barriers.error_over_mean,
        "midpoint": barriers.midpoint_advantage,
    }[measure]
    chosen = measures(score_unit, score_name)[measure]
    return pair_heatmap(barriers.names, values, chosen)


def pair_heatmap(
    names: Collection[str],
    values: Floats,
    measure: Measure,
    *,
    tree: Tree | None = None,
    threshold: float | None = None,
    preliminary: Collection[Pair] = (),
    details: Mapping[Pair, str] | None = None,
    outlined: Sequence[Collection[str]] = (),
) -> go.Figure:
    """Draw a pairwise metric as a matrix, in the order of the dendrogram if there is one.

    Barriers above five times the threshold share one colour.

    Args:
        names: Names of the k ingredients.
        values: Shape [k, k], symmetric; NaN if a pair was not evaluated.
        measure: The metric.
        tree: Dendrogram to draw above the matrix.
        threshold: Largest value of a connected pair, in displayed units: the height of a dotted
            line across the dendrogram, and the step of the colour bar. Default: that of the
            metric.
        preliminary: Pairs drawn faded because their values may still change.
        details: `{(a, b): text}`, one line shown on hover over evaluated pairs.
        outlined: Groups of names, the basins. Rows are labelled with the number of their basin, as
            in "run-01 · B1", and a basin gets an outline if its rows are adjacent.
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
    step = measure.connected if threshold is None else threshold
    heatmap = _heatmap(order, shown, measure, step, share)
    is_faded = _among(order, preliminary)
    for name, is_hidden in (("settled", is_faded), ("preliminary", ~is_faded)):
        part = go.Heatmap(heatmap)
        part.update(
            z=np.where(is_hidden, np.nan, shown),
            opacity=_FADED if name == "preliminary" else 1,
            showscale=name == "settled",
            name=name,
        )
        figure.add_trace(part, row=row, col=1)
    if len(order) <= _LABELLED:
        figure.add_trace(cell_numbers(heatmap, measure.decimals), row=row, col=1)
    for group in outlined:
        _outline(figure, order, group, row)
    texts = {frozenset(pair): text for pair, text in (details or {}).items()}
    for points in _cells(order, shown, measure, texts, cell):
        figure.add_trace(points, row=row, col=1)
    every = max(1, math.ceil(_SMALLEST_TICK / cell))  # the others are named on hover
    ticks = {
        "tickvals": list(range(0, len(order), every)),
        "ticktext": order[::every],
        "tickfont": {"size": min(_TICK, round(cell * every))},
        "showgrid": False,
    }
    edges = [-0.5, len(order) - 0.5]
    number = {name: place for place, group in enumerate(outlined, start=1) for name in group}
    named = [f"{name} · B{number[name]}" if name in number else name for name in order[::every]]
    figure.update_yaxes(ticks | {"ticktext": named}, range=edges[::-1], row=row, col=1)
    # Slanted names of more rows would overlap; the rows have the same names.
    are_named = len(order) <= _NAMED_COLUMNS
    figure.update_xaxes(ticks, range=edges, tickangle=-45, showticklabels=are_named, row=row, col=1)
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
    # One trace with gaps, because one trace per branch is slow to draw.
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


def _heatmap(
    order: list[str], shown: Floats, measure: Measure, step: float | None, share: float
) -> go.Heatmap:
    known = shown[np.isfinite(shown)]
    low, high = min(0.0, known.min(initial=0)), known.max(initial=0)
    # Differences far below the threshold should not span the whole colour scale.
    high = max(high, step or 0)
    ticks = {}
    if measure.diverges:
        high = max(high, -low, 1e-9)
        low = -high
    elif step and high > _CLIPPED * step:
        high = _CLIPPED * step
        low = max(low, -high)
        steps = [number * step for number in range(_CLIPPED + 1)]
        texts = [f"{value:.3g}" for value in steps]
        ticks = {"tickvals": steps, "ticktext": [*texts[:-1], f"≥ {texts[-1]}"]}
    elif high == low:  # plotly would invent a range around a single value
        high = low + 1
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
            "title": {"text": _with_unit(measure), "side": "right"},
            "thickness": 10,
            "len": share,
            "y": share / 2,
            "x": 1.01,
            **ticks,
        },
        hoverinfo="skip",
    )


def _with_unit(measure: Measure) -> str:
    return f"{measure.title}, {measure.unit.strip()}" if measure.unit else measure.title


def _among(order: list[str], pairs: Collection[Pair]) -> npt.NDArray[np.bool_]:
    """Return whether each cell belongs to one of the pairs, shape [k, k]."""
    index = {name: position for position, name in enumerate(order)}
    cells = np.zeros((len(order), len(order)), dtype=bool)
    for a, b in pairs:
        cells[index[a], index[b]] = cells[index[b], index[a]] = True
    return cells


def _outline(figure: go.Figure, order: list[str], group: Collection[str], row: int) -> None:
    """Outline the cells of a group if its rows are adjacent."""
    places = sorted(order.index(name) for name in group)
    first, last = places[0], places[-1]
    if len(group) < 2 or last - first + 1 > len(group):
        return
    corners = {"x0": first - 0.5, "x1": last + 0.5, "y0": first - 0.5, "y1": last + 0.5}
    figure.add_shape(
        type="rect", **corners, line={"color": SOUP, "width": 2}, row=row, col=1, name="basin"
    )


def _cells(
    order: list[str],
    shown: Floats,
    measure: Measure,
    details: Mapping[frozenset[str], str],
    size: float,
) -> list[go.Scatter]:
    """Return points on the cells that can be hovered and clicked.

    Plotly does not report selections on heatmaps, so the cells are covered by invisible markers.
    Those of evaluated pairs are in the last trace, which takes precedence if small cells are
    equally near.
    """
    marker = {"size": min(20, size), "symbol": "square", "opacity": 0}
    if len(order) > _NAMED_COLUMNS:
        # A browser takes seconds to draw thousands of markers. Those that Plotly leaves out are
        # reported on hover and click all the same.
        marker["maxdisplayed"] = 1
    names = np.array(order, dtype=object)
    is_known = np.isfinite(shown) | _among(order, [(a, b) for a, b in map(tuple, details)])
    points = []
    for title, where in (("empty cells", ~is_known), ("cells", is_known)):
        rows, columns = np.nonzero(where & ~np.eye(len(order), dtype=bool))
        custom = [names[rows], names[columns]]
        text = "meta[0]"  # the same for all, so it is sent once
        if title == "cells":
            text = "customdata[2]"
            texts = [
                _text(shown[i, j], measure, details.get(frozenset((order[i], order[j])), ""))
                for i, j in zip(rows.tolist(), columns.tolist(), strict=True)
            ]
            custom.append(np.array(texts, dtype=object))
        elif not len(rows):
            continue
        points.append(
            go.Scatter(
                x=columns,
                y=rows,
                customdata=np.column_stack(custom),
                mode="markers",
                marker=marker,
                selected={"marker": {"opacity": 0}},
                unselected={"marker": {"opacity": 0}},
                meta=[f"{measure.title}: not evaluated"],
                hovertemplate="%{customdata[0]} → %{customdata[1]}<br>"
                f"%{{{text}}}<extra></extra>",
                name=title,
            )
        )
    return points


def _text(value: float, measure: Measure, detail: str) -> str:
    text = f"{measure.title}: undefined"
    if np.isfinite(value):
        digits = ".4g" if measure.decimals is None else f".{measure.decimals + 1}f"
        text = f"{measure.title} {value:{digits}}{measure.unit}"
    return f"{text} · {detail}" if detail else text
