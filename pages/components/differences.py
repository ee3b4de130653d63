"""Paired differences of a network from another one, split by split."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.components.display import plain
from pages.components.state import View
from soupcore import Evaluation
from soupcore.evaluation.measuring import compare
from soupcore.overview import BySplit
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
            "split": split,
            "n": evaluation.n if evaluation else None,
            unit.label(view.task.score_name): unit.number(evaluation.score if evaluation else None),
        }
        if baseline is not None:
            difference, interval = gain(view, evaluation, other)
            row[unit.difference_label(f"Δ vs. {baseline}")] = unit.difference(difference)
            row["95% CI"] = unit.difference_interval(interval)
        rows.append(row)
    st.dataframe(pd.DataFrame(rows).astype({"n": "Int64"}), hide_index=True, placeholder=UNKNOWN)
    if baseline is not None:
        st.caption(
            f"Paired comparison on the same examples. {plain(view.task.select)} was used for "
            "choosing, so judge by the other splits."
        )


def gain(
    view: View, one: Evaluation | None, other: Evaluation | None
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the paired difference of two evaluations and its interval; None where unknown."""
    if one is None or other is None:
        return None, None
    found = compare(view.task, one, other)
    return found.difference, found.interval
