"""Figures of a soup: trace, parameter curve, coefficients, attribution, comparison, calibration."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from soupcore.analysis import Calibration, Share
from soupcore.figures.style import ACCEPTED, NEUTRAL, REJECTED, SOUP, finish
from soupcore.recipes import Pass, Step
from soupcore.tasks import SHARE, Unit

_LINES = (
    ("select", SOUP, "solid"),
    ("report", NEUTRAL, "solid"),
    ("mean shift", NEUTRAL, "dot"),
)
_SPREAD = 0.7  # of the distance between two splits
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "x", "star")


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
        (
            "rejected",
            REJECTED,
            "x-thin",
            [i for i, step in enumerate(trace) if _is_rejected_in_full(step)],
        ),
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
        if all(map(math.isnan, losses)):  # no examples were held out
            continue
        figure.add_scatter(
            x=numbers,
            y=losses,
            mode="lines+markers",
            line={"color": ink, "width": 2, "dash": dash},
            name=name,
            hovertemplate="pass %{x}: %{y:.4f}<extra>%{fullData.name}</extra>",
        )
    held_out = passes[best].held_back_loss
    figure.add_scatter(
        x=[numbers[best]],
        y=[passes[best].loss if math.isnan(held_out) else held_out],
        mode="markers",
        marker={"color": ACCEPTED, "size": 14, "symbol": "circle-open", "line": {"width": 3}},
        name="selected",
        hoverinfo="skip",
    )
    figure.update_xaxes(title="Pass over select", dtick=1 if len(passes) < 20 else None)
    figure.update_yaxes(title="Mean loss (select)")
    return finish(figure, height=360)


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


def _is_rejected_in_full(step: Step) -> bool:
    """Return whether a candidate was rejected after an evaluation on all examples."""
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
