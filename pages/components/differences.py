"""Paired differences of a network from another one: a table, and sentences on a soup."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.components import scores
from pages.components.display import plain
from pages.components.state import View
from soupcore import Evaluation
from soupcore.evaluation.measuring import compare
from soupcore.overview import BySplit, Overview
from soupcore.stored_soups import StoredSoup
from soupcore.tasks.unit import UNKNOWN


def show(view: View, known: BySplit, baseline: str | None, origin: BySplit | None) -> None:
    """Show a table of the scores and of the paired differences from a baseline.

    Args:
        view: The view, with a task.
        known: The evaluations of the network, by split.
        baseline: Name of the baseline; None if there is none, or if the network is the baseline.
        origin: The evaluations of the baseline, by split.
    """
    unit = view.task.score_unit
    rows: list[dict[str, Any]] = []
    for split, evaluation in known.items():
        other = origin[split] if origin is not None else None
        row = {
            "split": view.task.split_title(split),
            "n": evaluation.n if evaluation else None,
            unit.label(view.task.score_name): scores.with_interval(unit, evaluation),
        }
        if baseline is not None:
            difference, interval = gain(view, evaluation, other)
            row[unit.difference_label(f"Δ vs. {baseline}")] = unit.difference(difference)
            row["95% CI"] = unit.difference_interval(interval)
        rows.append(row)
    st.dataframe(pd.DataFrame(rows).astype({"n": "Int64"}), hide_index=True, placeholder=UNKNOWN)
    if baseline is not None:
        st.caption(
            f"Paired comparison on the same examples. The split {plain(view.task.select)} was used "
            "for choosing, so its scores are optimistic."
        )


def gain(
    view: View, one: Evaluation | None, other: Evaluation | None
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the paired difference of two evaluations and its interval; None where unknown."""
    if one is None or other is None:
        return None, None
    found = compare(view.task, one, other)
    return found.difference, found.interval


def sentences(view: View, stored: StoredSoup) -> list[str]:
    """Return how a soup compares with the best run: a sentence, and one with the numbers."""
    if not view.has_task:
        return [stored.label]
    known = Overview(view.context, [stored])
    split = known.report or view.task.select
    gain = known.gain(stored.soup.id, split)
    if gain is None or known.best is None:
        return [stored.label, "Evaluate the ingredients to compare it with the best run."]
    unit, metric = view.task.score_unit, view.task.score_name
    where = f"test ({split})" if known.report else f"validation ({split})"
    text = f"{unit.difference_text(gain.difference)} in {metric} on {where}"
    if gain.interval is not None:
        text += f", 95 % interval {unit.difference_interval(gain.interval)}, n = {gain.n:,}"
    if not known.report:
        text += "; optimistic, since soups and runs are chosen on this split"
        return [f"{stored.label}, compared with the best run, {known.best}", f"{text}."]
    verdict = {
        "better": "is better than",
        "worse": "is worse than",
        "even": "is not distinguishable from",
    }.get(gain.outcome)
    first = f"{stored.label} {verdict}" if verdict else f"{stored.label}, compared with"
    return [f"{first} the best run, {known.best}", f"{text}."]
