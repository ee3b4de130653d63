"""A recipe with one parameter at several values: the sweeps over λ and α of the papers."""

import pandas as pd
import plotly.graph_objects as go

from soupcore.figures.style import NEUTRAL, SOUP, finish

_LINES = (
    ("select", SOUP, "solid"),
    ("report", NEUTRAL, "solid"),
    ("mean shift", NEUTRAL, "dot"),
)


def recipe_curve(
    table: pd.DataFrame, *, parameter: str, best: float | None = None, score_name: str = "accuracy"
) -> go.Figure:
    """Draw the score of a recipe's soups over one of its parameters.

    Args:
        table: A row for each value, in the order of values. Columns: `value`, and of `select`,
            `report` and `mean shift` those that there are, as shares of 1.
        parameter: What the parameter is called.
        best: The value with the best score on select, to be marked.
        score_name: What the score is called.
    """
    figure = go.Figure()
    for split, ink, dash in _LINES:
        if split not in table:
            continue
        figure.add_scatter(
            x=table["value"],
            y=table[split] * 100,
            name=f"{split} (to choose by)" if split == "select" else split,
            mode="lines+markers",
            line={"color": ink, "width": 2, "dash": dash},
            marker={"size": 8 if split == "select" else 5},
            customdata=[[value] for value in table["value"]],
            hovertemplate=f"{parameter} = %{{x:.3g}}<br>%{{y:.2f}} %<extra>{split}</extra>",
        )
    if best is not None:
        marked = table[table["value"] == best]
        figure.add_scatter(
            x=marked["value"],
            y=marked["select"] * 100,
            name="best on select",
            mode="markers",
            marker={"size": 16, "symbol": "circle-open", "color": SOUP, "line": {"width": 3}},
            hoverinfo="skip",
        )
    figure.update_xaxes(title=parameter)
    figure.update_yaxes(title=f"{score_name}, %")
    return finish(figure, height=360)


def trade_off(
    table: pd.DataFrame, *, parameter: str, best: float | None = None, score_name: str = "accuracy"
) -> go.Figure:
    """Draw the score under shift against that on report, from value to value.

    The figure of WiSE-FT (Wortsman et al. 2022, arXiv:2109.01903), for any parameter.

    Args:
        table: As for `recipe_curve`, with `report` and `mean shift`.
        parameter: As for `recipe_curve`.
        best: As for `recipe_curve`.
        score_name: As for `recipe_curve`.
    """
    ends = [0, len(table) - 1]
    figure = go.Figure(
        go.Scatter(
            x=table["report"] * 100,
            y=table["mean shift"] * 100,
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
            hovertemplate=f"{parameter} = %{{customdata[0]:.3g}}<br>report %{{x:.2f}} %"
            "<br>mean shift %{y:.2f} %<extra></extra>",
            showlegend=False,
        )
    )
    figure.update_xaxes(title=f"{score_name} on report, %")
    figure.update_yaxes(title=f"mean {score_name} under shift, %")
    return finish(figure, height=360)
