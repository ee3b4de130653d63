"""What soups are made of, and how they differ from each other."""

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from soupcore.figures.style import NEUTRAL, SOUP, finish
from soupcore.tasks import SHARE, Unit

_SPREAD = 0.7  # of the distance between two splits
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star")


def coefficient_bars(table: pd.DataFrame, colours: Mapping[str, str]) -> go.Figure:
    """Draw the coefficient of each ingredient of a soup.

    Args:
        table: `coefficient` by name, from `soupcore.figures.tables.coefficients_table`.
        colours: `{ingredient: colour}`; others, such as soups, have the colour of soups.
    """
    names = [str(name) for name in table.index][::-1]
    values = [float(value) for value in table["coefficient"]][::-1]
    figure = go.Figure()
    figure.add_bar(
        y=names,
        x=values,
        orientation="h",
        marker={"color": [colours.get(name, SOUP) for name in names]},
        texttemplate="%{x:.3~g}",
        textposition="outside",
        cliponaxis=False,
        hovertemplate="<b>%{y}</b><br>coefficient %{x:.4~g}<extra></extra>",
    )
    low, high = min(0.0, *values), max(0.0, *values)
    room = 0.15 * ((high - low) or 1)
    figure.update_xaxes(
        title="Coefficient",
        range=[low - (room if low < 0 else 0), high + (room if high > 0 else 0)],
        zeroline=True,
        zerolinecolor=NEUTRAL,
    )
    figure.update_yaxes(type="category")  # plotly would read some names as numbers or dates
    return finish(figure, height=max(160, 70 + 26 * len(names)))


def difference_forest(
    table: pd.DataFrame,
    colours: Sequence[str],
    *,
    baseline: str,
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
) -> go.Figure:
    """Draw paired differences from a baseline with their 95 % intervals, grouped by split.

    Args:
        table: Columns `name`, `split`, `difference`, `low`, `high`: differences of scores, higher
            is better; a missing interval is NaN.
        colours: A colour for each name, in the order of the table.
        baseline: Name of the baseline.
        score_name: Name of the score.
        score_unit: Unit of the scores.
    """
    splits = list(dict.fromkeys(table["split"]))
    names = list(dict.fromkeys(table["name"]))
    step = _SPREAD / max(len(names), 1)
    figure = go.Figure()
    for place, name in enumerate(names):
        rows = table[table["name"] == name]
        shift = step * (place - (len(names) - 1) / 2)
        ends = rows[["low", "high"]] * score_unit.factor  # negative where lower is better
        differences = rows["difference"] * score_unit.factor
        figure.add_scatter(
            x=differences,
            y=[splits.index(split) + shift for split in rows["split"]],
            mode="markers",
            name=name,
            marker={
                "color": colours[place],
                "size": 9,
                "symbol": _SYMBOLS[place % len(_SYMBOLS)],
            },
            error_x={
                "type": "data",
                "symmetric": False,
                "array": (ends.max(axis=1, skipna=False) - differences).fillna(0),
                "arrayminus": (differences - ends.min(axis=1, skipna=False)).fillna(0),
                "thickness": 2,
                "width": 0,
            },
            customdata=list(rows["split"]),
            hovertemplate="<b>%{fullData.name}</b> on %{customdata}<br>"
            f"{score_unit.difference_hover('x')}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": NEUTRAL, "width": 1})
    figure.update_xaxes(title=score_unit.difference_label(f"Δ {score_name} vs. {baseline}"))
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(len(splits))), ticktext=splits, autorange="reversed"
    )
    return finish(figure, height=max(240, 110 + len(splits) * (24 + 14 * len(names))))
