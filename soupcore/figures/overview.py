"""Scores of ingredients and soups, logged metrics, distribution shifts, and the main basin."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soupcore.connectivity.basins import CONNECTED
from soupcore.display import capitalised
from soupcore.figures.axes import ROWS, clip_outliers, fit_rows
from soupcore.figures.style import NEUTRAL, SOUP, add_legend, finish, scatter
from soupcore.tasks import SHARE, Unit

_MARKER, _SMALLEST = 11, 5  # pixels
_RIGHT = 0.7  # share of the range, from the left; labels beyond may not fit at the right edge
_SHORT, _MARGIN = 20, 48  # characters of labels that fit there, in a margin of so many pixels


def accuracy_overview(
    table: pd.DataFrame,
    colours: Mapping[str, str],
    *,
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
    selected: Collection[str] = (),
) -> go.Figure:
    """Draw the score of each ingredient with its interval, one row per ingredient.

    Args:
        table: Index: ingredient names, the first on top. Columns: `score`, `low`, `high`. Rows
            without a score and intervals of zero width are omitted.
        colours: Colour of each ingredient.
        score_name: Name of the score.
        score_unit: Unit of the scores.
        selected: Ingredients drawn filled, the others hollow. If empty, all are filled.
    """
    rows = table.dropna(subset=["score"]).iloc[::-1]
    names = list(rows.index)
    scores = rows["score"] * score_unit.factor
    spread = (rows[["low", "high"]] * score_unit.factor).sub(scores, axis=0).abs()
    if score_unit.sign < 0:
        spread = spread.rename(columns={"low": "high", "high": "low"})
    # An interval of zero width would suggest certainty.
    has_interval = spread.max(axis=1).gt(0) & spread.sum(axis=1, skipna=False).lt(np.inf)
    spread = spread.where(has_interval)
    figure = go.Figure(
        scatter(
            x=scores,
            y=names,
            mode="markers",
            customdata=names,
            marker=_markers(names, colours, selected),
            error_x={
                "type": "data",
                "array": spread["high"],
                "arrayminus": spread["low"],
                "color": NEUTRAL,
                "thickness": 1.2,
                "width": 3,
            },
            hovertemplate=f"<b>%{{y}}</b><br>{score_unit.hover('x')}<extra></extra>",
        )
    )
    title = score_unit.label(f"Validation {score_name}")
    figure.update_xaxes(title=f"{title} · 95% CI" if has_interval.any() else title)
    height = fit_rows(figure, names)
    clip_outliers(figure, better={"x": score_unit.sign})
    figure.update_traces(showlegend=False)
    add_legend(figure, colours, names)
    return finish(figure, height=height)


def logged_overview(
    table: pd.DataFrame,
    colours: Mapping[str, str],
    *,
    metric: str,
    selected: Collection[str] = (),
    better: int = 0,
) -> go.Figure:
    """Draw the value of a metric that the training tool logged, one row per ingredient.

    Args:
        table: Index: ingredient names, the first on top. Column: `value`.
        colours: Colour of each ingredient.
        metric: Name of the metric.
        selected: Ingredients drawn filled, the others hollow. If empty, all are filled.
        better: 1 if higher values are better, -1 if lower ones are, 0 if neither.
    """
    rows = table.dropna(subset=["value"]).iloc[::-1]
    names = list(rows.index)
    figure = go.Figure(
        scatter(
            x=rows["value"],
            y=names,
            mode="markers",
            customdata=names,
            marker=_markers(names, colours, selected),
            hovertemplate="<b>%{y}</b><br>%{x:.6g}<extra></extra>",
        )
    )
    figure.update_xaxes(title=f"{metric} (logged)")
    height = fit_rows(figure, names)
    clip_outliers(figure, better={"x": better})
    figure.update_traces(showlegend=False)
    add_legend(figure, colours, names)
    return finish(figure, height=height)


def shift_scatter(
    table: pd.DataFrame,
    colours: Mapping[str, str],
    *,
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
    selected: Collection[str] = (),
) -> go.Figure:
    """Plot the mean score over the shift splits against the score on `report`.

    This is figure 1 of Model Soups (arXiv:2203.05482).

    Args:
        table: Index: names. Columns: `report`, `shift` and `kind`, which is `ingredient`, `base`
            or `soup`. Rows that lack one of the two scores are omitted.
        colours: Colour of each ingredient.
        score_name: Name of the score.
        score_unit: Unit of the scores.
        selected: Ingredients drawn filled, the others hollow. If empty, all are filled.
    """
    axes = {
        "report": ("test", f"Test {score_name}"),
        "shift": ("mean shift", f"Mean {score_name} over shifts"),
    }
    return _scatter(table, colours, axes, score_unit, selected)


def select_scatter(
    table: pd.DataFrame,
    colours: Mapping[str, str],
    *,
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
    selected: Collection[str] = (),
) -> go.Figure:
    """Plot the score on `report` against the score on `select`, the split used for choosing.

    Args:
        table: Index: names. Columns: `select`, `report` and `kind`, as for `shift_scatter`. Rows
            that lack one of the two scores are omitted.
        colours: Colour of each ingredient.
        score_name: Name of the score.
        score_unit: Unit of the scores.
        selected: Ingredients drawn filled, the others hollow. If empty, all are filled.
    """
    axes = {
        "select": ("validation", f"Validation {score_name}"),
        "report": ("test", f"Test {score_name}"),
    }
    return _scatter(table, colours, axes, score_unit, selected)


def basin_map(
    table: pd.DataFrame,
    colours: Mapping[str, str],
    *,
    best: str,
    threshold: float = CONNECTED,
    loss_name: str = "loss",
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
) -> go.Figure:
    """Plot the score of each ingredient against its loss barrier to the best one.

    Barriers above ten times the threshold are drawn at the right edge, and outliers of the score
    at the lower one, so that a diverged run does not dominate the scale.

    Args:
        table: Index: names. Columns: `barrier`, `score` and `basin`, whether the ingredient is in
            the main basin (see `Overview.basin_table`).
        colours: Colour of each ingredient.
        best: Name of the best ingredient.
        threshold: Largest barrier between connected ingredients, drawn as a dotted line.
        loss_name: Name of the loss.
        score_name: Name of the score.
        score_unit: Unit of the scores.
    """
    edge = 10 * threshold
    across = max(float(table["barrier"].clip(upper=edge).max()), threshold)
    up = max(float(np.ptp(table["score"])), 1e-9)
    named = table[(table.index == best) | ~table["basin"].astype(bool)]
    labelled = _apart(
        {
            str(name): (min(row["barrier"], edge) / across, row["score"] / up)
            for name, row in named.sort_values("barrier").iterrows()
        }
    )
    figure = go.Figure()
    for is_main, title, symbol in ((True, "main basin", "circle"), (False, "apart", "x")):
        group = table[table["basin"].astype(bool) == is_main]
        names = list(group.index)
        if not names:
            continue
        inks = [colours[name] for name in names]
        figure.add_trace(
            scatter(
                x=group["barrier"].clip(upper=edge),
                y=group["score"] * score_unit.factor,
                name=title,
                mode="markers+text",
                text=[name if name in labelled else "" for name in names],
                textposition="top center" if is_main else "middle left",
                cliponaxis=False,
                customdata=[
                    [name, barrier] for name, barrier in zip(names, group["barrier"], strict=True)
                ],
                marker={
                    "size": [15 if name == best else 11 for name in names],
                    "color": inks,
                    "symbol": [
                        "triangle-right"
                        if barrier > edge
                        else "diamond"
                        if name == best
                        else symbol
                        for name, barrier in zip(names, group["barrier"], strict=True)
                    ],
                },
                hovertemplate="<b>%{customdata[0]}</b><br>barrier %{customdata[1]:.3g}<br>"
                f"{score_unit.hover('y')}<extra></extra>",
            )
        )
    figure.add_vline(threshold, line={"color": NEUTRAL, "width": 1, "dash": "dot"})
    figure.update_xaxes(title=f"{capitalised(loss_name)} barrier to {best}")
    figure.update_yaxes(title=score_unit.label(f"Validation {score_name}"))
    clip_outliers(figure, better={"y": score_unit.sign}, axes=["y"])
    return finish(figure, height=420)


def _markers(
    names: Sequence[str], colours: Mapping[str, str], selected: Collection[str]
) -> dict[str, Any]:
    inks = [colours[name] for name in names]
    symbols = [_symbol(name, selected) for name in names]
    size = max(_SMALLEST, min(_MARKER, ROWS // max(len(names), 1)))
    return {"size": size, "color": inks, "symbol": symbols, "line": {"width": 2, "color": inks}}


def _scatter(
    table: pd.DataFrame,
    colours: Mapping[str, str],
    axes: Mapping[str, tuple[str, str]],
    unit: Unit,
    selected: Collection[str],
) -> go.Figure:
    """Plot two columns of scores, given `{column: (name on hover, title)}` of x and y."""
    (x, (x_name, x_title)), (y, (y_name, y_title)) = axes.items()
    rows = table.dropna(subset=[x, y])
    figure = go.Figure()
    labelled = _with_room(rows, x, y)
    right = rows[x].min() + _RIGHT * (rows[x].max() - rows[x].min())
    for kind, group in rows.groupby("kind", sort=False):
        names = list(group.index)
        inks = [_ink(str(kind), name, colours) for name in names]
        is_ingredient = kind == "ingredient"
        figure.add_trace(
            scatter(
                x=group[x] * unit.factor,
                y=group[y] * unit.factor,
                name={"ingredient": "ingredients", "base": "base", "soup": "soups"}[str(kind)],
                mode="markers" if is_ingredient else "markers+text",
                text=None
                if is_ingredient
                else [name if name in labelled else "" for name in names],
                # Long labels at the right edge would be cut off.
                textposition=[
                    "top left" if value > right and len(name) > _SHORT else "top center"
                    for name, value in zip(names, group[x], strict=True)
                ],
                cliponaxis=False,
                customdata=names,
                marker={
                    "size": 11 if is_ingredient else 15,
                    "color": inks,
                    "symbol": [_symbol(name, selected) for name in names]
                    if is_ingredient
                    else {"base": "square", "soup": "star"}[str(kind)],
                    "line": {"width": 2 if is_ingredient else 0, "color": inks},
                },
                hovertemplate=f"<b>%{{customdata}}</b><br>{x_name} {unit.hover('x')}<br>"
                f"{y_name} {unit.hover('y')}<extra></extra>",
            )
        )
    figure.update_xaxes(title=unit.label(x_title))
    figure.update_yaxes(title=unit.label(y_title))
    clip_outliers(figure, better={"x": unit.sign, "y": unit.sign})
    if add_legend(figure, colours, rows.index[rows["kind"] == "ingredient"]):
        figure.update_traces(showlegend=False, selector={"name": "ingredients"})
    finish(figure, height=420)
    if any(rows.at[name, x] > right for name in labelled):
        figure.update_layout(margin_r=_MARGIN)
    return figure


def _with_room(rows: pd.DataFrame, x: str, y: str) -> set[str]:
    """Return the names of the base and the soups that can be labelled without overlap."""
    across, up = (max(float(np.ptp(rows[axis])), 1e-9) for axis in (x, y))
    labels = rows[rows["kind"] != "ingredient"].sort_values(x, ascending=False)
    return _apart({str(name): (row[x] / across, row[y] / up) for name, row in labels.iterrows()})


def _apart(places: Mapping[str, tuple[float, float]]) -> set[str]:
    """Return the names whose labels do not overlap the labels of earlier names.

    Args:
        places: `{name: place}` as shares of the figure's width and height.
    """
    taken: dict[str, tuple[float, float]] = {}
    for name, place in places.items():
        # A label takes about 1/4 of the figure's width and 1/16 of its height.
        if all(abs(place[0] - x) > 1 / 4 or abs(place[1] - y) > 1 / 16 for x, y in taken.values()):
            taken[name] = place
    return set(taken)


def _symbol(name: str, selected: Collection[str]) -> str:
    return "circle" if not selected or name in selected else "circle-open"


def _ink(kind: str, name: str, colours: Mapping[str, str]) -> str:
    return {"base": NEUTRAL, "soup": SOUP}.get(kind) or colours[name]
