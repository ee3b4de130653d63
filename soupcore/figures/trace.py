"""How a soup came about: the steps of a greedy one, the passes of a learned one."""

from collections.abc import Sequence

import plotly.graph_objects as go

from soupcore.figures.style import ACCEPTED, NEUTRAL, REJECTED, finish
from soupcore.recipes import Pass, Step


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
    for label, ink, symbol, chosen in (
        ("accepted", ACCEPTED, "circle", [i for i, step in enumerate(trace) if step.accepted]),
        ("rejected", REJECTED, "x-thin", [i for i, step in enumerate(trace) if _seen_all(step)]),
        (
            "given up, at most",
            REJECTED,
            "arrow-bar-down",
            [i for i, step in enumerate(trace) if step.is_bound],
        ),
    ):
        figure.add_scatter(
            x=[positions[i] for i in chosen],
            y=[trace[i].score * 100 for i in chosen],
            mode="markers",
            name=label,
            marker={"color": ink, "size": 10, "symbol": symbol, "line": {"color": ink, "width": 2}},
            customdata=[(trace[i].candidate, *_in_words(trace[i])) for i in chosen],
            hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<br>%{customdata[2]}"
            "<extra></extra>",
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


def _seen_all(step: Step) -> bool:
    return not step.accepted and not step.is_bound


def _in_words(step: Step) -> tuple[str, str]:
    """Return what is known of the score, and what changed with the candidate."""
    change = f"+{step.gained} right, −{step.lost} wrong"
    if step.is_bound:
        return f"≤ {step.score:.2%}", f"{change} of the {step.examples} examples it saw"
    if step.interval is not None:
        low, high = (100 * end for end in step.interval)
        change += f"<br>gain, 95 %: {low:+.2f} to {high:+.2f} points"
    return f"{step.score:.2%}", change


def learning_curve(passes: Sequence[Pass]) -> go.Figure:
    """Draw the loss on what is learned from and on what is held back, pass by pass.

    Args:
        passes: The passes so far, at least one.
    """
    numbers = [found.number for found in passes]
    best = max(index for index, found in enumerate(passes) if found.best or index == 0)
    figure = go.Figure()
    for name, losses, ink, dash in (
        ("learned from", [found.loss for found in passes], NEUTRAL, "dot"),
        ("held back", [found.held_back_loss for found in passes], ACCEPTED, "solid"),
    ):
        if all(loss != loss for loss in losses):  # nothing was held back
            continue
        figure.add_scatter(
            x=numbers,
            y=losses,
            mode="lines+markers",
            line={"color": ink, "width": 2, "dash": dash},
            name=name,
            hovertemplate="pass %{x}: %{y:.4f}<extra>" + name + "</extra>",
        )
    decided_by = passes[best].held_back_loss
    figure.add_scatter(
        x=[numbers[best]],
        y=[passes[best].loss if decided_by != decided_by else decided_by],
        mode="markers",
        marker={"color": ACCEPTED, "size": 14, "symbol": "circle-open", "line": {"width": 3}},
        name="the soup",
        hoverinfo="skip",
    )
    figure.update_xaxes(title="passes over the examples", dtick=1 if len(passes) < 20 else None)
    figure.update_yaxes(title="mean loss on select")
    return finish(figure, height=360)
