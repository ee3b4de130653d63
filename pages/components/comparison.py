"""Soups, ingredients and the ensemble side by side, on every split."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import batchnorm, scores, shift_scatter, soup_picker
from pages.components.state import View
from soupcore import Evaluation, Mixture, ensemble, greedy_ensemble

_CHOSEN = "chosen"
_REPORTED = "only reported"
_UNKNOWN = "–"


def show(view: View) -> None:
    """Show the comparison table and where soups lie among the ingredients."""
    stored = scores.soups(view)
    if not stored:
        st.info("No soup of this sweep yet. Build one under **Build**.", icon=":material/blender:")
        return
    points = scores.ingredients(view)
    base = {view.sweep.base.name: view.sweep.base.mixture} if view.sweep.base else {}
    labels = {soup.label: soup.soup.mixture for soup in stored}
    known = scores.evaluations(view, {**points, **base, **labels})
    picked = soup_picker.choose(stored, "Soup to compare with the ensemble of its ingredients")
    scores.offer_evaluation(view, picked, key="compare")
    rows = [_row(view, soup.label, "soup", known[soup.label]) for soup in stored]
    members = [picked.sweep[name].mixture for name in picked.soup.ingredients]
    rows += [_ensemble_row(view, "ensemble of its", members)]
    if (chosen := greedy_ensemble(view.evaluator, points)) is not None:
        members = [points[name] for name in chosen.members]
        rows += [_ensemble_row(view, "greedy ensemble of", members)]
    best = scores.best_on_select(view, known, list(points))
    if best is not None:
        rows.append(_row(view, f"{best}", "best alone", known[best]))
    rows += [_row(view, name, "base", known[name]) for name in base]
    rows += [_row(view, name, "ingredient", known[name]) for name in points if name != best]
    _table(view, rows)
    batchnorm.both(view, picked, key="compare")
    shift_scatter.show(view, known, "comparison-scatter", stored)


def _row(
    view: View, name: str, kind: str, known: Mapping[str, Evaluation | None]
) -> dict[tuple[str, str], Any]:
    by_split = {split: found.score if found else None for split, found in known.items()}
    return _scores_row(view, name, kind, by_split, cost=1)


def _ensemble_row(view: View, name: str, members: Sequence[Mixture]) -> dict[tuple[str, str], Any]:
    by_split = {}
    for split in view.task.reported:
        found = ensemble(view.evaluator, members, split)
        by_split[split] = found.score if found else None
    return _scores_row(view, f"{name} {len(members)}", "ensemble", by_split, cost=len(members))


def _scores_row(
    view: View, name: str, kind: str, by_split: Mapping[str, float | None], *, cost: int
) -> dict[tuple[str, str], Any]:
    shifts = [by_split[split] for split in view.task.splits_with_role("shift")]
    known = [score for score in shifts if score is not None]
    complete = bool(known) and len(known) == len(shifts)
    row: dict[tuple[str, str], Any] = {
        ("", "name"): name,
        ("", "kind"): kind,
        ("", "passes"): cost,
    }
    for split in view.task.reported:
        group = _CHOSEN if split == view.task.select else _REPORTED
        score = by_split[split]
        row[(group, split)] = None if score is None else score * 100
    if shifts:
        row[(_REPORTED, "mean shift")] = sum(known) / len(known) * 100 if complete else None
    return row


def _table(view: View, rows: list[dict[tuple[str, str], Any]]) -> None:
    table = pd.DataFrame(
        [list(row.values()) for row in rows], columns=pd.MultiIndex.from_tuples(rows[0])
    )
    numbers = [column for column in rows[0] if column[0] in (_CHOSEN, _REPORTED)]
    table = table.astype(dict.fromkeys(numbers, float))
    chosen = [column for column in numbers if column[0] == _CHOSEN]
    styled = (
        table.style.format("{:.2f}", subset=pd.Index(numbers), na_rep=_UNKNOWN)
        .set_properties(subset=pd.Index(chosen), **{"background-color": "rgba(224, 161, 0, 0.14)"})
        .apply(_bold_best, subset=pd.Index(numbers))
    )
    st.dataframe(
        styled, hide_index=True, height=min(74 + 35 * len(rows), 620), placeholder=_UNKNOWN
    )
    st.caption(
        f"{view.task.score_name}, %; {_UNKNOWN}: not evaluated. The tinted column was chosen on, "
        "so it flatters whatever was chosen; compare by the others. *passes*: forward passes an "
        "example. The greedy ensemble takes the members that do not lower its own score on select."
    )


def _bold_best(column: "pd.Series[float]") -> list[str]:
    best = column.max()
    return ["font-weight: bold" if value == best else "" for value in column]
