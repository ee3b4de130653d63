"""The trace of a soup: the steps of a greedy soup, the passes of a learned soup."""

from collections.abc import Sequence

import plotly.graph_objects as go

from soupcore.figures.style import ACCEPTED, NEUTRAL, REJECTED, finish
from soupcore.recipes import Pass, Step
from soupcore.tasks import SHARE, Unit


def greedy_trace(
    trace: Sequence[Step],
    *,
    candidates: int | None = None,
    score_name: str = "accuracy",
    score_unit: Unit = SHARE,
) -> go.Figure:
    """Draw the score of each candidate in the order tried, and the score of the current soup.

    Args:
        trace: The steps so far, at least one.
        candidates: Total number of candidates. It fixes the axis while the trace grows.
        score_name: Name of the score.
        score_unit: Unit of the scores.
    """
    positions = list(range(1, len(trace) + 1))
    kept: list[float] = []
    for step in trace:
        kept.append(step.score * score_unit.factor if step.accepted else kept[-1])
    figure = go.Figure()
    figure.add_scatter(
        x=positions,
        y=kept,
        mode="lines",
        line={"shape": "hv", "color": NEUTRAL, "width": 2},
        name="current soup",
        hoverinfo="skip",
    )
    for label, ink, symbol, chosen in (
        ("accepted", ACCEPTED, "circle", [i for i, step in enumerate(trace) if step.accepted]),
        ("rejected", REJECTED, "x-thin", [i for i, step in enumerate(trace) if _seen_all(step)]),
        (
            "rejected early (upper bound)",
            REJECTED,
            "arrow-bar-down",
            [i for i, step in enumerate(trace) if step.is_bound],
        ),
    ):
        figure.add_scatter(
            x=[positions[i] for i in chosen],
            y=[trace[i].score * score_unit.factor for i in chosen],
            mode="markers",
            name=label,
            marker={"color": ink, "size": 10, "symbol": symbol, "line": {"color": ink, "width": 2}},
            customdata=[(trace[i].candidate, *_in_words(trace[i], score_unit)) for i in chosen],
            hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[1]}<br>%{customdata[2]}"
            "<extra></extra>",
        )
    figure.update_xaxes(
        title="Candidate (in order tried)",
        tickmode="array",
        tickvals=positions,
        ticktext=[step.candidate for step in trace],
        range=[0.5, (candidates or len(trace)) + 0.5],
        tickangle=-45,
    )
    figure.update_yaxes(title=score_unit.label(f"Validation {score_name} with candidate added"))
    return finish(figure, height=400)


def _seen_all(step: Step) -> bool:
    return not step.accepted and not step.is_bound


def _in_words(step: Step, unit: Unit) -> tuple[str, str]:
    """Return two lines for the hover text: the score, and the change of the score."""
    change = "" if step.gained is None else f"+{step.gained} / −{step.lost} examples"
    if step.is_bound:
        seen = f"after {step.examples} examples"
        return f"{unit.bound} {unit.text(step.score)}", f"{change} {seen}" if change else seen
    if step.interval is not None and step.interval[0] < step.interval[1]:
        low, high = step.interval
        gain = f"gain {unit.gain(low)} to {unit.gain(high)}{unit.difference_symbol} (95% CI)"
        change = f"{change}; {gain}" if change else gain
    return unit.text(step.score), change


def learning_curve(passes: Sequence[Pass]) -> go.Figure:
    """Plot the loss on the train and validation parts of select after each pass.

    Args:
        passes: The passes so far, at least one.
    """
    numbers = [found.number for found in passes]
    best = max(index for index, found in enumerate(passes) if found.best or index == 0)
    figure = go.Figure()
    for name, losses, ink, dash in (
        ("train part", [found.loss for found in passes], NEUTRAL, "dot"),
        ("validation part", [found.held_back_loss for found in passes], ACCEPTED, "solid"),
    ):
        if all(loss != loss for loss in losses):  # nothing was held back
            continue
        figure.add_scatter(
            x=numbers,
            y=losses,
            mode="lines+markers",
            line={"color": ink, "width": 2, "dash": dash},
            name=name,
            hovertemplate="pass %{x}: %{y:.4f}<extra>%{fullData.name}</extra>",
        )
    decided_by = passes[best].held_back_loss
    figure.add_scatter(
        x=[numbers[best]],
        y=[passes[best].loss if decided_by != decided_by else decided_by],
        mode="markers",
        marker={"color": ACCEPTED, "size": 14, "symbol": "circle-open", "line": {"width": 3}},
        name="selected",
        hoverinfo="skip",
    )
    figure.update_xaxes(title="Pass over select", dtick=1 if len(passes) < 20 else None)
    figure.update_yaxes(title="Mean loss (select)")
    return finish(figure, height=360)
