"""How a greedy soup grew."""

from collections.abc import Sequence

import plotly.graph_objects as go

from soupcore.figures.style import ACCEPTED, NEUTRAL, REJECTED, finish
from soupcore.recipes import Step


def greedy_trace(
    trace: Sequence[Step], *, candidates: int | None = None, score_name: str = "accuracy"
) -> go.Figure:
    """Draw each candidate in the order it was tried, and the score of the soup so far.

    Args:
        trace: The steps so far, at least one.
        candidates: How many there will be, so that the axis does not move while it grows.
        score_name: What the score is called.
    """
    positions = list(range(1, len(trace) + 1))
    kept: list[float] = []
    for step in trace:
        kept.append(step.score * 100 if step.accepted else kept[-1])
    figure = go.Figure()
    figure.add_scatter(
        x=positions,
        y=kept,
        mode="lines",
        line={"shape": "hv", "color": NEUTRAL, "width": 2},
        name="soup so far",
        hoverinfo="skip",
    )
    for accepted, label, ink, symbol in (
        (True, "accepted", ACCEPTED, "circle"),
        (False, "rejected", REJECTED, "x-thin"),
    ):
        chosen = [i for i, step in enumerate(trace) if step.accepted is accepted]
        figure.add_scatter(
            x=[positions[i] for i in chosen],
            y=[trace[i].score * 100 for i in chosen],
            mode="markers",
            name=label,
            marker={"color": ink, "size": 10, "symbol": symbol, "line": {"color": ink, "width": 2}},
            customdata=[(trace[i].candidate, trace[i].gained, trace[i].lost) for i in chosen],
            hovertemplate="<b>%{customdata[0]}</b><br>%{y:.2f} %<br>"
            "+%{customdata[1]} right, −%{customdata[2]} wrong<extra></extra>",
        )
    figure.update_xaxes(
        title="candidates, in the order tried",
        tickmode="array",
        tickvals=positions,
        ticktext=[step.candidate for step in trace],
        range=[0.5, (candidates or len(trace)) + 0.5],
        tickangle=-45,
    )
    figure.update_yaxes(title=f"{score_name} of the soup with it, on select, %")
    return finish(figure, height=400)
