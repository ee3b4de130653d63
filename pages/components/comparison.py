"""Soups, ingredients and ensembles compared: table, scatter and BatchNorm statistics."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import (
    display,
    exports,
    jobs,
    results,
    scores,
    side_by_side,
    snippets,
    soup_links,
    sweeps,
    tasks,
)
from pages.components.display import plain
from pages.components.state import STATISTICS, View
from soupcore import Evaluation, figures
from soupcore.calls import EnsembleScores, GreedyEnsembleScores, OtherStatistics, Result
from soupcore.display import capitalised
from soupcore.figures.tables import shift_table
from soupcore.overview import best_on_select
from soupcore.plan import seconds
from soupcore.stored_soups import StoredSoup
from soupcore.tasks.unit import UNKNOWN

_CHOSEN = "selection"
_REPORTED = "held out"
_KINDS = ("ingredient", "base", "soup")  # from back to front


def show(view: View) -> None:
    """Show the table and the scatter of all soups, ingredients and ensembles."""
    if not view.has_task:
        tasks.show_needed("Comparing scores")
        return
    stored = view.overview.soups
    if not stored:
        soup_links.offer_build()
    points = scores.ingredients(view)
    base = {view.sweep.base.name: view.sweep.base.mixture} if view.sweep.base else {}
    known = scores.of_all(view, stored)
    side_by_side.show(view, stored, known)
    if not stored:
        return
    st.subheader("All soups and ingredients")
    can_average = view.task.why_no_ensemble is None
    label = "Show the ensemble for" if can_average else "Soup"
    picked = scores.choose_soup(view, stored, label)
    scores.offer_evaluation(view, picked, key="compare")
    rows = [_row(view, soup.label, "soup", known[soup.label]) for soup in stored]
    if can_average:
        rows.append(_ensemble_row(view, picked))
        rows += _greedy_ensemble_rows(view, known, list(points))
    best = best_on_select(known, view.task.select, points)
    if best is not None:
        rows.append(_row(view, best, "best ingredient", known[best]))
    rows += [_row(view, name, "base", known[name]) for name in base]
    rows += [_row(view, name, "ingredient", known[name]) for name in points if name != best]
    _table(view, rows)
    scores.show_undefined(view, known)
    scores.show_shortfall(view, stored)
    show_statistics(view, picked, key="compare")
    show_scatter(
        view,
        known,
        "comparison-scatter",
        stored,
        selected=st.session_state["selection"],
        on_pick=soup_links.pick(view, stored),
    )


def _row(
    view: View, name: str, kind: str, known: Mapping[str, Evaluation | None]
) -> dict[tuple[str, str], Any]:
    by_split = {split: found.score if found else None for split, found in known.items()}
    return _scores_row(view, name, kind, by_split, cost=1)


def _ensemble_row(view: View, picked: StoredSoup) -> dict[tuple[str, str], Any]:
    names, seen = tuple(picked.soup.ingredients), view.including(picked.soups)
    by_split = dict.fromkeys(view.task.reported)
    members = {name: seen.sweep[name].mixture for name in names}
    if view.task.averages == "outputs":
        found = _ensemble_by_passes(seen, EnsembleScores(names), picked)
        by_split |= found["scores"] if found else {}
    elif _have_outputs(scores.evaluations(seen, members), names):
        title = f"Ensemble of {picked.label}"
        found = results.derived(seen, EnsembleScores(names), title, key="ensemble")
        by_split |= found["scores"] if found else {}
    name = f"ensemble of {picked.label}'s {len(names)} ingredients"
    return _scores_row(view, name, "ensemble", by_split, cost=len(names))


def _ensemble_by_passes(view: View, call: EnsembleScores, picked: StoredSoup) -> Result | None:
    """Return the scores of an ensemble whose outputs are not kept, or show a button for them."""
    found = call.result(view.context)
    if found is None:
        sizes = [len(view.task.split(split)) for split in view.task.reported]
        jobs.call_button(
            view, "Evaluate the ensemble", call, f"Ensemble of {picked.label}", key="ensemble",
            primary=False,
            help=f"Runs {len(call.names)} ingredients on {len(view.task.reported)} splits and "
            "averages their outputs batch by batch.",
            price=seconds(view.overview, len(call.names) * sum(sizes)),
        )  # fmt: skip
    return found


def _greedy_ensemble_rows(
    view: View, known: scores.Known, names: Sequence[str]
) -> list[dict[tuple[str, str], Any]]:
    if view.task.why_no_kept_outputs is not None or not _have_outputs(known, names):
        return []
    call = GreedyEnsembleScores(tuple(names))
    found = results.derived(view, call, "Greedy ensemble", key="greedy-ensemble")
    if found is None or "why_none" in found:  # `show_undefined` names the undefined scores
        return []
    cost = len(found["members"])
    name = f"greedy ensemble ({cost} members)"
    return [_scores_row(view, name, "ensemble", found["scores"], cost=cost)]


def _have_outputs(known: scores.Known, names: Sequence[str]) -> bool:
    return all(found and found.has_outputs for name in names for found in known[name].values())


def _scores_row(
    view: View, name: str, kind: str, by_split: Mapping[str, float | None], *, cost: int
) -> dict[tuple[str, str], Any]:
    factor = view.task.score_unit.factor
    row: dict[tuple[str, str], Any] = {
        ("", "name"): name,
        ("", "kind"): kind,
        ("", "forward passes"): cost,
    }
    for split in view.task.reported:
        group = _CHOSEN if split == view.task.select else _REPORTED
        score = by_split[split]
        row[(group, split)] = None if score is None else score * factor
    if view.task.splits_with_role("shift"):
        shift = view.task.mean_shift(by_split)
        row[(_REPORTED, "mean shift")] = None if shift is None else shift * factor
    return row


def _table(view: View, rows: list[dict[tuple[str, str], Any]]) -> None:
    table = pd.DataFrame(
        [list(row.values()) for row in rows], columns=pd.MultiIndex.from_tuples(rows[0])
    )
    numbers = [column for column in rows[0] if column[0] in (_CHOSEN, _REPORTED)]
    table = table.astype(dict.fromkeys(numbers, float))
    chosen = [column for column in numbers if column[0] == _CHOSEN]
    unit = view.task.score_unit
    styled = (
        table.style.format(unit.cell, subset=pd.Index(numbers))
        .set_properties(subset=pd.Index(chosen), **{"background-color": "rgba(224, 161, 0, 0.14)"})
        .apply(_bold_best, subset=pd.Index(numbers), sign=unit.sign)
    )
    st.dataframe(styled, hide_index=True, height=min(74 + 35 * len(rows), 620), placeholder=UNKNOWN)
    named = {
        column: unit.label(f"{view.task.score_name} on {column[1]}")
        if column in numbers
        else column[1]
        for column in rows[0]
    }
    exports.show_rows(
        table.set_axis(list(named.values()), axis=1),
        "compare",
        decimals={named[c]: unit.decimals for c in numbers if unit.decimals is not None},
    )
    st.caption(
        f"Scores: {plain(unit.label(view.task.score_name))}; {UNKNOWN} = not evaluated, bold "
        "= best in the column. The shaded column was used for choosing and is optimistic; compare "
        "on the held-out columns. Forward passes = inference cost per example. "
        + (
            "The greedy ensemble adds members while its own score on "
            f"{plain(view.task.select)} does not drop."
            if view.task.why_no_kept_outputs is None
            else f"No greedy ensemble: {plain(view.task.why_no_kept_outputs)}"
        )
    )


def _bold_best(column: "pd.Series[float]", sign: int) -> list[str]:
    best = sign * (sign * column).max()  # NaN is never the best
    return ["font-weight: bold" if value == best else "" for value in column]


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
        on_click=sweeps.use_statistics,
        args=(view, best),
    )


def _scaled(view: View, found: Evaluation | None) -> float | None:
    return None if found is None else found.score * view.task.score_unit.factor
