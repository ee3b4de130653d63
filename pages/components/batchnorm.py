"""BatchNorm's statistics, averaged or re-estimated: the choice, and both side by side."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import asking
from pages.components.scores import StoredSoup
from pages.components.state import View
from soupcore import Evaluation
from soupcore.evaluation import StatisticsChoice

CHOICES: dict[StatisticsChoice, str] = {
    "averaged": "averaged",
    "re-estimated": "re-estimated on train",
}


def choose(view: View) -> None:
    """Let the user choose the statistics of every point, where the network has BatchNorm."""
    if not view.offers_statistics:
        return
    st.segmented_control(
        "BatchNorm statistics",
        [*CHOICES],
        default=view.statistics,
        required=True,
        key=f"batchnorm-{view.task_spec}",
        on_change=_chosen,
        args=(f"batchnorm-{view.task_spec}",),
        help="The mean and variance of activations at a mixture are not the mixture of means and "
        "variances. Averaged: with all other weights. Re-estimated: at each point anew, on "
        "examples of the train split (arXiv:1802.10026). Often better far from the ingredients, "
        "sometimes worse near them, so both results are kept, apart.",
    )


def both(view: View, stored: StoredSoup, *, key: str) -> None:
    """Show what a soup scores with either kind, and offer to find out what is missing.

    Args:
        view: What is looked at.
        stored: The soup.
        key: Tells the places apart that show the same soup.
    """
    if not view.offers_statistics:
        return
    splits = view.task.reported
    rows = {CHOICES[kind]: _known(view.with_statistics(kind), stored, splits) for kind in CHOICES}
    st.markdown(f"**BatchNorm statistics of {stored.label}**, both ways")
    table = pd.DataFrame.from_dict(
        {name: {s: _percent(found) for s, found in row.items()} for name, row in rows.items()},
        orient="index",
        columns=splits,
    )
    st.dataframe(table.astype(float).style.format("{:.2f}", na_rep="–"))
    st.caption(
        f"{view.task.score_name}, %. The same weights but for the statistics. What is shown "
        f"elsewhere is {CHOICES[view.statistics]}; change it in the sidebar."
    )
    _propose(view, rows, key=f"{key}-{stored.soup.id}")
    if any(found is None for row in rows.values() for found in row.values()):
        request: Mapping[str, Any] = view.request | {"soup": stored.soup.id}
        asking.button(
            "Make it the other way too", "statistics",
            f"The other BatchNorm statistics of {stored.label}", request,
            key=f"statistics-{key}-{stored.soup.id}", primary=False,
            help="Adds the soup with its other statistics, evaluated on every split.",
        )  # fmt: skip


def _propose(view: View, rows: Mapping[str, Mapping[str, Evaluation | None]], *, key: str) -> None:
    """Say which is better on select, and offer to look at everything with those."""
    select = {kind: rows[label][view.task.select] for kind, label in CHOICES.items()}
    scored = {kind: (e.score, -e.loss) for kind, e in select.items() if e is not None}
    if len(scored) < len(CHOICES):
        return
    best = max(scored, key=lambda kind: scored[kind])
    if best == view.statistics:
        st.caption(f"Better on {view.task.select}: {CHOICES[best]}, as chosen.")
        return
    st.info(
        f"On {view.task.select} the soup is better with statistics {CHOICES[best]}.",
        icon=":material/lightbulb:",
    )
    st.button(f"Take them {CHOICES[best]}", key=f"use-{key}", on_click=_use, args=(view, best))


def _use(view: View, statistics: StatisticsChoice) -> None:
    widget = f"batchnorm-{view.task_spec}"
    st.session_state[widget] = statistics
    _chosen(widget)


def _known(view: View, stored: StoredSoup, splits: list[str]) -> dict[str, Evaluation | None]:
    mixture = stored.soup.mixture
    return {split: view.evaluator.stored([mixture], split)[0] for split in splits}


def _percent(found: Evaluation | None) -> float | None:
    return None if found is None else found.score * 100


def _chosen(key: str) -> None:
    st.session_state["batchnorm"] = st.session_state[key]
    st.session_state["soup"] = ""
