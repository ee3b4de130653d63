"""Comparisons of soups and ingredients: robustness, paired differences, BatchNorm statistics."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import display, exports, jobs, scores, snippets, tasks
from pages.components.display import plain
from pages.components.state import STATISTICS, View
from soupcore import Evaluation, figures
from soupcore.calls import OtherStatistics
from soupcore.display import capitalised
from soupcore.evaluation.measuring import compare
from soupcore.figures.tables import shift_table
from soupcore.overview import BySplit, Overview
from soupcore.stored_soups import StoredSoup
from soupcore.tasks.unit import UNKNOWN

_KINDS = ("ingredient", "base", "soup")  # from back to front


def show_scatter(
    view: View,
    known: scores.Known,
    key: str,
    soups: Sequence[StoredSoup] = (),
    *,
    selected: Collection[str] = (),
    on_pick: display.Pick | None = None,
) -> None:
    """Draw the mean score under shift over the score on report, of all that have both.

    Args:
        view: The view.
        known: The evaluations of the ingredients, the base and the soups.
        key: Key of the figure on its page.
        soups: Soups to draw in addition to the ingredients and the base.
        selected: Names of ingredients that are drawn filled.
        on_pick: Called with the points that the user clicks; None if they are not clickable.
    """
    score = view.task.score_name
    st.subheader(f"{plain(capitalised(score))} vs. robustness")
    named = scores.points_of_files(view) | scores.points_of_soups(soups)
    kinds = {
        name: each.kind for kind in _KINDS for name, each in named.items() if each.kind == kind
    }
    table = shift_table(view.task, known, kinds).dropna().rename_axis("name")
    if table.empty:
        missing = [kind for kind in ("report", "shift") if not view.task.splits_with_role(kind)]
        st.caption(
            f"Not available: the task has no {' and no '.join(missing)} split."
            if missing
            else "Available once an ingredient is evaluated on the test split and all shifted "
            "splits."
        )
        return
    figure = figures.shift_scatter(
        table,
        view.colours,
        score_name=view.task.score_name,
        score_unit=view.task.score_unit,
        selected=selected,
    )
    codes = {name: (named[name].kind, named[name].code) for name in table.index}
    code = snippets.shift_scatter(view, codes, selected)
    display.show_figure(
        figure,
        key,
        table,
        code,
        on_pick=on_pick,
        boxes=True,
        title=f"{capitalised(score)} vs. robustness",
        about=exports.sizes(view.task, "report", "shift"),
    )


def show_differences(
    view: View, known: BySplit, baseline: str | None, origin: BySplit | None
) -> None:
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
            difference, interval = _gain(view, evaluation, other)
            row[unit.difference_label(f"Δ vs. {baseline}")] = unit.difference(difference)
            row["95% CI"] = unit.difference_interval(interval)
        rows.append(row)
    st.dataframe(pd.DataFrame(rows).astype({"n": "Int64"}), hide_index=True, placeholder=UNKNOWN)
    if baseline is not None:
        st.caption(
            f"Paired comparison on the same examples. The split {plain(view.task.select)} was used "
            "for choosing, so its scores are optimistic."
        )


def sentences(view: View, stored: StoredSoup) -> list[str]:
    """Return how a soup compares with the best run: a sentence, and one with the numbers."""
    if not view.has_task:
        return [stored.label]
    known = Overview(view, [stored])
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


def show_statistics(view: View, stored: StoredSoup, *, key: str) -> None:
    """Show a soup's scores with averaged and with re-estimated BatchNorm statistics.

    Args:
        view: The view.
        stored: The soup.
        key: Distinguishes several tables of the same soup on a page.
    """
    if not view.offers_statistics:
        return
    splits = view.task.reported
    rows = {
        label: scores.evaluations(view.with_statistics(kind), {label: stored.soup.mixture})[label]
        for kind, label in STATISTICS.items()
    }
    st.markdown(f"**{plain(stored.label)}: averaged vs. re-estimated BatchNorm**")
    table = pd.DataFrame.from_dict(
        {name: {s: _scaled(view, found) for s, found in row.items()} for name, row in rows.items()},
        orient="index",
        columns=splits,
    )
    unit = view.task.score_unit
    st.dataframe(table.astype(float).style.format(unit.cell))
    st.caption(
        f"Scores: {plain(unit.label(view.task.score_name))}. Same weights, different "
        f"statistics. Other pages use **{STATISTICS[view.statistics]}** (change in the sidebar)."
    )
    _propose(view, rows, key=f"{key}-{stored.soup.id}")
    if any(found is None for row in rows.values() for found in row.values()):
        jobs.call_button(
            view, "Build with the other statistics", OtherStatistics(stored.soup.id),
            f"Other BatchNorm statistics for {stored.label}",
            key=f"statistics-{key}-{stored.soup.id}", primary=False,
            help="Adds a copy of the soup with the other statistics and evaluates it.",
        )  # fmt: skip


def _gain(
    view: View, one: Evaluation | None, other: Evaluation | None
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the paired difference of two evaluations and its interval; None where unknown."""
    if one is None or other is None:
        return None, None
    found = compare(view.task, one, other)
    return found.difference, found.interval


def _propose(view: View, rows: Mapping[str, Mapping[str, Evaluation | None]], *, key: str) -> None:
    """Show which statistics are better on select, and offer to switch to them."""
    select = {kind: rows[label][view.task.select] for kind, label in STATISTICS.items()}
    scored = {kind: (e.score, -e.loss) for kind, e in select.items() if e is not None}
    if len(scored) < len(STATISTICS):
        return
    best = max(scored, key=lambda kind: scored[kind])
    better = f"This soup is better on {plain(view.task.select)} with {STATISTICS[best]} statistics"
    if best == view.statistics:
        st.caption(f"{better} (current setting).")
        return
    st.info(f"{better}.", icon=":material/lightbulb:")
    st.button(
        f"Switch to {STATISTICS[best]}",
        key=f"use-{key}",
        on_click=tasks.use_statistics,
        args=(view, best),
    )


def _scaled(view: View, found: Evaluation | None) -> float | None:
    return None if found is None else found.score * view.task.score_unit.factor
