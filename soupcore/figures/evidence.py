"""How sure a network is against how right, and which ingredient a soup owes its score to."""

from collections.abc import Mapping

import plotly.graph_objects as go

from soupcore.analysis import Calibration, Share
from soupcore.figures.style import ACCEPTED, NEUTRAL, REJECTED, finish


def reliability_diagram(
    calibrations: Mapping[str, Calibration], colours: Mapping[str, str]
) -> go.Figure:
    """Draw accuracy over confidence, bins of equal mass; the diagonal is perfect calibration.

    Args:
        calibrations: By the name of the network.
        colours: By the same names.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 100],
        y=[0, 100],
        mode="lines",
        line={"color": NEUTRAL, "width": 1, "dash": "dot"},
        name="as sure as right",
        hoverinfo="skip",
    )
    for name, found in calibrations.items():
        bins = found.bins
        figure.add_scatter(
            x=[each.confidence * 100 for each in bins],
            y=[each.accuracy * 100 for each in bins],
            mode="lines+markers",
            line={"color": colours[name], "width": 2},
            marker={"size": 7},
            name=f"{name} · ECE {found.ece:.2%}",
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [(each.interval[1] - each.accuracy) * 100 for each in bins],
                "arrayminus": [(each.accuracy - each.interval[0]) * 100 for each in bins],
                "thickness": 1,
                "width": 0,
            },
            customdata=[each.n for each in bins],
            hovertemplate="sure %{x:.1f} %, right %{y:.1f} %<br>"
            "%{customdata} examples<extra></extra>",
        )
    lowest = min(each.confidence for found in calibrations.values() for each in found.bins)
    figure.update_xaxes(title="confidence, %", range=[lowest * 100 - 3, 101])
    figure.update_yaxes(title="accuracy, %")
    return finish(figure, height=420)


def attribution_bars(
    shapley: Mapping[str, Share], without: Mapping[str, float], *, score_name: str = "accuracy"
) -> go.Figure:
    """Draw what each ingredient adds: its Shapley value, and what the soup loses without it.

    Args:
        shapley: By ingredient.
        without: Score of the soup less its score without the ingredient, by ingredient.
        score_name: What the score is called.
    """
    names = sorted(shapley, key=lambda name: shapley[name].value)
    figure = go.Figure()
    figure.add_bar(
        y=names,
        x=[shapley[name].value * 100 for name in names],
        orientation="h",
        name="Shapley value: what it adds on average",
        marker={"color": [ACCEPTED if shapley[n].value >= 0 else REJECTED for n in names]},
        error_x={
            "type": "data",
            "array": [1.96 * shapley[name].standard_error * 100 for name in names],
            "visible": any(share.standard_error for share in shapley.values()),
            "thickness": 1,
        },
        hovertemplate="<b>%{y}</b><br>adds %{x:.2f} points<extra></extra>",
    )
    figure.add_scatter(
        y=names,
        x=[without[name] * 100 for name in names],
        mode="markers",
        name="loss when it alone is left out",
        marker={"color": NEUTRAL, "symbol": "diamond", "size": 10},
        hovertemplate="<b>%{y}</b><br>without it %{x:.2f} points less<extra></extra>",
    )
    figure.update_xaxes(title=f"points of {score_name}", zeroline=True, zerolinecolor=NEUTRAL)
    return finish(figure, height=max(220, 90 + 34 * len(names)))
