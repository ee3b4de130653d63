"""The ingredients of a sweep at a glance."""

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from soupcore.figures.style import NEUTRAL, SOUP, finish

_ROW = 22  # pixels an ingredient


def accuracy_overview(
    table: pd.DataFrame,
    colours: Mapping[str, str],
    *,
    score_name: str = "accuracy",
    selected: Collection[str] = (),
) -> go.Figure:
    """Draw each ingredient's score with its interval, one row each.

    Args:
        table: Index: ingredient names. Columns: `score`, `low`, `high`, as shares of 1; rows
            with no score are left out.
        colours: Colour of each ingredient.
        score_name: What the score is called.
        selected: Names drawn filled; the others are hollow. Where none is selected all are filled.
    """
    rows = table.dropna(subset=["score"]).iloc[::-1]
    names = list(rows.index)
    scores = rows["score"] * 100
    figure = go.Figure(
        go.Scatter(
            x=scores,
            y=names,
            mode="markers",
            customdata=names,
            marker={
                "size": 11,
                "color": [colours[name] for name in names],
                "symbol": [_symbol(name, selected) for name in names],
                "line": {"width": 2, "color": [colours[name] for name in names]},
            },
            error_x={
                "type": "data",
                "array": rows["high"] * 100 - scores,
                "arrayminus": scores - rows["low"] * 100,
                "color": NEUTRAL,
                "thickness": 1.2,
                "width": 3,
            },
            hovertemplate="<b>%{y}</b><br>%{x:.2f} %<extra></extra>",
        )
    )
    figure.update_xaxes(title=f"{score_name} on select, % (95 % interval)")
    figure.update_yaxes(type="category")
    return finish(figure, height=max(220, 90 + _ROW * len(names)))


def shift_scatter(
    table: pd.DataFrame,
    colours: Mapping[str, str],
    *,
    score_name: str = "accuracy",
    selected: Collection[str] = (),
) -> go.Figure:
    """Draw the score on `report` against the mean score under shift (figure 1 of the paper).

    Args:
        table: Index: names. Columns: `report` and `shift` as shares of 1, and `kind`:
            `ingredient`, `base` or `soup`. Rows without both scores are left out.
        colours: Colour of each ingredient.
        score_name: What the score is called.
        selected: Names of ingredients drawn filled.
    """
    rows = table.dropna(subset=["report", "shift"])
    figure = go.Figure()
    labelled = _with_room(rows)
    for kind, group in rows.groupby("kind", sort=False):
        names = list(group.index)
        inks = [_ink(str(kind), name, colours) for name in names]
        is_ingredient = kind == "ingredient"
        figure.add_scatter(
            x=group["report"] * 100,
            y=group["shift"] * 100,
            name={"ingredient": "ingredients", "base": "base", "soup": "soups"}[str(kind)],
            mode="markers" if is_ingredient else "markers+text",
            text=None if is_ingredient else [name if name in labelled else "" for name in names],
            textposition="top center",
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
            hovertemplate="<b>%{customdata}</b><br>report %{x:.2f} %<br>mean shift %{y:.2f} %"
            "<extra></extra>",
        )
    figure.update_xaxes(title=f"{score_name} on report, %")
    figure.update_yaxes(title=f"mean {score_name} under shift, %")
    return finish(figure, height=420)


def _with_room(rows: pd.DataFrame) -> set[str]:
    """Return the names of the base and of those soups whose labels do not cover each other."""
    across, up = (max(float(np.ptp(rows[axis])), 1e-9) for axis in ("report", "shift"))
    taken: list[tuple[float, float]] = []
    found = set()
    labels = rows[rows["kind"] != "ingredient"].sort_values("report", ascending=False)
    for name, row in labels.iterrows():
        place = (row["report"] / across, row["shift"] / up)
        # A label is about as wide as an eighth of the figure, and as high as a sixteenth.
        if all(abs(place[0] - x) > 1 / 8 or abs(place[1] - y) > 1 / 16 for x, y in taken):
            taken.append(place)
            found.add(str(name))
    return found


def _symbol(name: str, selected: Collection[str]) -> str:
    return "circle" if not selected or name in selected else "circle-open"


def _ink(kind: str, name: str, colours: Mapping[str, str]) -> str:
    return {"base": NEUTRAL, "soup": SOUP}.get(kind) or colours[name]
