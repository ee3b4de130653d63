"""Scores of a recipe over the values of one of its parameters, such as α or λ."""

import pandas as pd
import plotly.graph_objects as go

from soupcore.figures.style import NEUTRAL, SOUP, finish
from soupcore.tasks import SHARE, Unit

_LINES = (
    ("select", SOUP, "solid"),
    ("report", NEUTRAL, "solid"),
    ("mean shift", NEUTRAL, "dot"),
)


def recipe_curve(
    table: pd.DataFrame,
    *,
    parameter: str,
    best: float | None = None,
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
) -> go.Figure:
    """Plot the score of a recipe's soups against one of its parameters.

    Args:
        table: One row per value, in ascending order. Columns: `value`, and any of `select`,
            `report` and `mean shift`.
        parameter: Name of the parameter.
        best: The value with the best score on select, which is marked.
        score_name: Name of the score.
        score_unit: Unit of the scores.
    """
    figure = go.Figure()
    for split, ink, dash in _LINES:
        if split not in table:
            continue
        figure.add_scatter(
            x=table["value"],
            y=table[split] * score_unit.factor,
            name=f"{split} (used for choosing)" if split == "select" else split,
            mode="lines+markers",
            line={"color": ink, "width": 2, "dash": dash},
            marker={"size": 8 if split == "select" else 5},
            customdata=[[value] for value in table["value"]],
            meta=[parameter, split],
            hovertemplate="%{meta[0]} = %{x:.3g}<br>"
            f"{score_unit.hover('y')}<extra>%{{meta[1]}}</extra>",
        )
    if best is not None:
        marked = table[table["value"] == best]
        figure.add_scatter(
            x=marked["value"],
            y=marked["select"] * score_unit.factor,
            name="best on select",
            mode="markers",
            marker={"size": 16, "symbol": "circle-open", "color": SOUP, "line": {"width": 3}},
            hoverinfo="skip",
        )
    figure.update_xaxes(title=parameter)
    figure.update_yaxes(title=score_unit.label(score_name))
    return finish(figure, height=360)


def trade_off(
    table: pd.DataFrame,
    *,
    parameter: str,
    best: float | None = None,
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
) -> go.Figure:
    """Plot the mean score over shift splits against the score on report, value by value.

    This is the figure of WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903) for any parameter.

    Args:
        table: As for `recipe_curve`, with `report` and `mean shift`.
        parameter: As for `recipe_curve`.
        best: As for `recipe_curve`.
        score_name: As for `recipe_curve`.
        score_unit: As for `recipe_curve`.
    """
    ends = [0, len(table) - 1]
    figure = go.Figure(
        go.Scatter(
            x=table["report"] * score_unit.factor,
            y=table["mean shift"] * score_unit.factor,
            mode="lines+markers+text",
            line={"color": NEUTRAL, "width": 2},
            marker={
                "size": [14 if value == best else 8 for value in table["value"]],
                "color": [SOUP if value == best else NEUTRAL for value in table["value"]],
            },
            text=[
                f"{parameter} = {value:.3g}" if index in ends or value == best else ""
                for index, value in enumerate(table["value"])
            ],
            textposition=[
                "top center" if value == best else "bottom center" for value in table["value"]
            ],
            cliponaxis=False,
            customdata=[[value] for value in table["value"]],
            meta=[parameter],
            hovertemplate="%{meta[0]} = %{customdata[0]:.3g}<br>"
            f"test {score_unit.hover('x')}<br>mean shift {score_unit.hover('y')}<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(title=score_unit.label(f"Test {score_name}"))
    figure.update_yaxes(title=score_unit.label(f"Mean {score_name} over shifts"))
    return finish(figure, height=360)
