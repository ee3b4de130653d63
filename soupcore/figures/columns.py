"""Scatter of two columns of the run table, and bars of the importance of hyperparameters."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soupcore.analysis import Importance
from soupcore.figures.axes import clip_outliers, is_logarithmic, log_ticks
from soupcore.figures.comparisons import colour_scale
from soupcore.figures.style import NEUTRAL, SOUP, add_legend, colours, finish, scatter

_MISSING = "not known"
_ROW = 26  # pixels of a bar


def column_scatter(
    table: pd.DataFrame,
    inks: Mapping[str, str],
    *,
    x: str,
    y: str,
    colour: str = "",
    selected: Collection[str] = (),
    better: Mapping[str, int] | None = None,
) -> go.Figure:
    """Plot two columns of the run table against each other, coloured by a third.

    An axis is logarithmic if its numbers are positive and span two decades, such as those of
    learning rates. Outliers are drawn at its edge; see `soupcore.figures.axes`.

    Args:
        table: Index: names. Columns: `kind` (`ingredient`, `base` or `soup`), and those below.
            Rows that lack `x` or `y` are left out.
        inks: Colour of each ingredient, used if `colour` is empty.
        x: Column of the horizontal axis, numbers or text.
        y: Column of the vertical axis.
        colour: Column shown by colour, numbers or text; empty for a colour per ingredient.
        selected: Ingredients drawn filled, the others hollow. If empty, all are filled.
        better: `{column: 1 if higher values are better, -1 if lower ones are}`, where known.
    """
    rows = table.dropna(subset=list(dict.fromkeys([x, y])))
    figure = go.Figure()
    for title, group, ink in _groups(rows, inks, colour):
        names = [str(name) for name in group.index]
        shown = group[colour].tolist() if colour else [""] * len(names)
        figure.add_trace(
            scatter(
                x=group[x].tolist(),
                y=group[y].tolist(),
                name=title,
                showlegend=bool(title),
                mode="markers",
                customdata=[
                    [name, _MISSING if pd.isna(value) else value]
                    for name, value in zip(names, shown, strict=True)
                ],
                meta=[x, y, colour],
                marker={
                    "size": [11 if kind == "ingredient" else 15 for kind in group["kind"]],
                    "symbol": _symbols(names, group["kind"].tolist(), selected),
                    "line": {"width": 2},
                    **ink,
                },
                hovertemplate="<b>%{customdata[0]}</b>"
                f"<br>%{{meta[0]}} %{{x{_digits(rows[x])}}}"
                f"<br>%{{meta[1]}} %{{y{_digits(rows[y])}}}"
                + ("<br>%{meta[2]} %{customdata[1]}" if colour else "")
                + "<extra></extra>",
            )
        )
    figure.update_xaxes(title=x, type=_axis(rows[x]))
    figure.update_yaxes(title=y, type=_axis(rows[y]))
    for axis, column in ((figure.layout.xaxis, x), (figure.layout.yaxis, y)):
        if axis.type == "log":  # Plotly would write 100µ for 0.0001
            finite = rows[column][np.isfinite(rows[column])]
            ticks = log_ticks(finite.min(), finite.max())
            axis.update(tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])
    known = better or {}
    clip_outliers(figure, better={"x": known.get(x, 0), "y": known.get(y, 0)})
    if not colour:
        add_legend(figure, inks, map(str, rows.index))
    return finish(figure, height=440)


def importance_bars(found: Mapping[str, Importance], *, score_name: str = "score") -> go.Figure:
    """Draw the marginal importance of hyperparameters; see `marginal_importance`.

    Args:
        found: `{hyperparameter: importance}`, drawn from top to bottom.
        score_name: Name of the score.
    """
    names = list(found)
    figure = go.Figure(
        go.Bar(
            x=[max(each.share, 0) for each in found.values()],
            y=names,
            orientation="h",
            marker={"color": NEUTRAL},
            text=[_text(each) for each in found.values()],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="<b>%{y}</b><br>%{text}<extra></extra>",
        )
    )
    figure.update_xaxes(
        title=f"Share of the rank variance of {score_name}",
        range=[0, 1.3],
        tickvals=[0, 0.25, 0.5, 0.75, 1],
    )
    figure.update_yaxes(type="category", autorange="reversed")
    return finish(figure, height=max(150, 80 + _ROW * len(names)))


def _groups(
    rows: pd.DataFrame, inks: Mapping[str, str], colour: str
) -> list[tuple[str, pd.DataFrame, dict[str, Any]]]:
    """Return the traces of the figure: title, rows, and the colours of their markers."""
    if not colour:
        kinds = {"base": NEUTRAL, "soup": SOUP}
        own = [
            kinds.get(kind) or inks[str(name)]
            for name, kind in zip(rows.index, rows["kind"], strict=True)
        ]
        return [("", rows, {"color": own, "line": {"width": 2, "color": own}})]
    is_known = rows[colour].notna()
    known, rest = rows[is_known], rows[~is_known]
    found: list[tuple[str, pd.DataFrame, dict[str, Any]]] = []
    if _is_numeric(rows[colour]):
        if len(known):
            marker = colour_scale(known[colour].astype(float), colour)
            line = {"width": 2, "color": marker["color"], "colorscale": marker["colorscale"]}
            found.append(("", known, {**marker, "line": line}))
    else:
        texts = known[colour].astype(str)
        for text, ink in colours(sorted(texts.unique())).items():
            line = {"width": 2, "color": ink}
            found.append((text, known[texts == text], {"color": ink, "line": line}))
    if len(rest):
        line = {"width": 2, "color": NEUTRAL}
        found.append((f"{colour} {_MISSING}", rest, {"color": NEUTRAL, "line": line}))
    return found


def _symbols(names: Sequence[str], kinds: Sequence[str], selected: Collection[str]) -> list[str]:
    own = {"base": "square", "soup": "star"}
    filled = {name for name in names if not selected or name in selected}
    return [
        own.get(kind) or ("circle" if name in filled else "circle-open")
        for name, kind in zip(names, kinds, strict=True)
    ]


def _axis(values: "pd.Series[Any]") -> str:
    if not _is_numeric(values):
        return "category"
    return "log" if is_logarithmic(values) else "linear"


def _digits(values: "pd.Series[Any]") -> str:
    return ":.4g" if _is_numeric(values) else ""


def _is_numeric(values: "pd.Series[Any]") -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _text(each: Importance) -> str:
    rho = "" if each.rho is None else f" · ρ = {each.rho:+.2f}".replace("-", "−")
    return f"{max(each.share, 0):.2f}{rho} · n = {each.n}"
