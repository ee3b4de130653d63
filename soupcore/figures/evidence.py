"""Calibration of networks, and the contribution of each ingredient to a soup."""

from collections.abc import Mapping

import plotly.graph_objects as go

from soupcore.analysis import Calibration, Share
from soupcore.figures.style import ACCEPTED, NEUTRAL, REJECTED, finish
from soupcore.tasks import SHARE, Unit


def reliability_diagram(
    calibrations: Mapping[str, Calibration], colours: Mapping[str, str]
) -> go.Figure:
    """Draw a reliability diagram: accuracy against confidence, in equal-mass bins.

    Args:
        calibrations: `{network: calibration}`.
        colours: `{network: colour}`.
    """
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 100],
        y=[0, 100],
        mode="lines",
        line={"color": NEUTRAL, "width": 1, "dash": "dot"},
        name="perfect calibration",
        hoverinfo="skip",
    )
    for name, calibration in calibrations.items():
        bins = calibration.bins
        figure.add_scatter(
            x=[each.confidence * 100 for each in bins],
            y=[each.accuracy * 100 for each in bins],
            mode="lines+markers",
            line={"color": colours[name], "width": 2},
            marker={"size": 7},
            name=f"{name} · ECE {SHARE.text(calibration.ece)}",
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [(each.interval[1] - each.accuracy) * 100 for each in bins],
                "arrayminus": [(each.accuracy - each.interval[0]) * 100 for each in bins],
                "thickness": 1,
                "width": 0,
            },
            customdata=[each.n for each in bins],
            hovertemplate="confidence %{x:.1f}%, accuracy %{y:.1f}%<br>"
            "%{customdata} examples<extra></extra>",
        )
    lowest = min(each.confidence for found in calibrations.values() for each in found.bins)
    figure.update_xaxes(title="Confidence, %", range=[lowest * 100 - 3, 101])
    figure.update_yaxes(title="Accuracy, %")
    return finish(figure, height=420)


def attribution_bars(
    shapley: Mapping[str, Share],
    without: Mapping[str, float],
    *,
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
) -> go.Figure:
    """Draw the Shapley value and the leave-one-out drop of each ingredient.

    Args:
        shapley: `{ingredient: share}`.
        without: `{ingredient: score of the soup minus its score without the ingredient}`.
        score_name: Name of the score.
        score_unit: Unit of the scores.
    """
    names = sorted(shapley, key=lambda name: shapley[name].value)
    figure = go.Figure()
    figure.add_bar(
        y=names,
        x=[shapley[name].value * score_unit.scale for name in names],
        orientation="h",
        name="Shapley value (mean contribution)",
        marker={"color": [ACCEPTED if shapley[n].value >= 0 else REJECTED for n in names]},
        error_x={
            "type": "data",
            "array": [1.96 * shapley[name].standard_error * score_unit.scale for name in names],
            "visible": any(share.standard_error for share in shapley.values()),
            "thickness": 1,
        },
        hovertemplate=f"<b>%{{y}}</b><br>{score_unit.difference_hover('x')}<extra></extra>",
    )
    figure.add_scatter(
        y=names,
        x=[without[name] * score_unit.scale for name in names],
        mode="markers",
        name="leave-one-out drop",
        marker={"color": NEUTRAL, "symbol": "diamond", "size": 10},
        hovertemplate="<b>%{y}</b><br>drop without it: "
        f"{score_unit.difference_hover('x')}<extra></extra>",
    )
    title = score_unit.difference_label(f"Contribution to {score_name}")
    figure.update_xaxes(title=title, zeroline=True, zerolinecolor=NEUTRAL)
    figure.update_yaxes(type="category")  # plotly would read some names as numbers or dates
    return finish(figure, height=max(220, 90 + 34 * len(names)))
