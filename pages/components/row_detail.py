"""The details of a row of the run table: its file, composition, and paired differences."""

from typing import Any

import pandas as pd
import streamlit as st
from pandas.io.formats.style import Styler

from pages.components import annotating, differences, results, scores, snippets
from pages.components.display import plain
from pages.components.run_table import RunTable
from pages.components.state import View
from soupcore import escaping
from soupcore.calls import Breakdown
from soupcore.calls.connectivity import End
from soupcore.stored_soups import recipe_title
from soupcore.tasks import MetricInfo, Unit
from soupcore.tasks.unit import UNKNOWN


def show(view: View, table: RunTable) -> None:
    """Let the user choose a row, and show its details."""
    names = table.names
    selected = [name for name in st.session_state["selection"] if name in names]
    default = selected[-1] if selected else table.headline or table.baseline or names[0]
    clicked = st.session_state.get("detail")
    default = clicked if clicked in names else default
    details = st.expander(
        "Details of a row", icon=":material/info:", key="row-detail", on_change="rerun"
    )
    if not details.open:
        return
    with details:
        name = st.selectbox(
            "Row", names, index=names.index(default), width=360, key=f"detail-{default}"
        )
        st.markdown("  \n".join(_facts(view, table, name)))
        if view.has_task:
            baseline = table.baseline if table.baseline != name else None
            origin = table.evaluations[baseline] if baseline else None
            differences.show(view, table.evaluations[name], baseline, origin)
            _breakdown(view, table, name)
        soup = table.soups.get(name)
        subject = soup.soup.id if soup else view.sweep[name].digest
        annotating.show_note_and_tags(subject, known=table.tags)


def _facts(view: View, table: RunTable, name: str) -> list[str]:
    if name in table.soups:
        stored = table.soups[name]
        primary = stored.soup.primary
        return [
            f"**{plain(stored.label)}**, soup {escaping.code(stored.soup.id)}, recipe "
            f"{plain(recipe_title(stored.soup.recipe))}",
            f"Composition: {plain(scores.describe(stored.soup))}",
            *([] if primary is None else [f"Chosen by {plain(primary)}"]),
        ]
    ingredient = view.sweep[name]
    kind = "ingredient" if name in view.sweep.ingredients else "base"
    return [
        f"**{plain(name)}**, {kind}",
        f"File: {escaping.code(str(ingredient.checkpoint.path))}",
        f"Digest: {escaping.code(ingredient.digest)}",
    ]


def _breakdown(view: View, table: RunTable, name: str) -> None:
    """Show the score of each class and of each group of examples, where there are any."""
    evaluated = [split for split, found in table.evaluations[name].items() if found is not None]
    kinds = {"class": view.task.is_classification, "group": view.task.has_groups}
    which = " and ".join(kind for kind, is_there in kinds.items() if is_there)
    if not which or not evaluated or not st.toggle(f"Scores by {which}", key="detail-breakdown"):
        return
    reports = [split for split in view.task.splits_with_role("report") if split in evaluated]
    first = (reports or evaluated)[0]
    split = st.selectbox(
        "Split",
        evaluated,
        index=evaluated.index(first),
        format_func=view.task.split_title,
        width=200,
        key=f"detail-split-{name}",
    )
    model: End = {"soup": table.soups[name].soup.id} if name in table.soups else name
    call = Breakdown(model, split)
    found = results.derived(view, call, f"Scores of {name} by {which}", key="breakdown")
    if found is None:
        return
    score = MetricInfo.from_json(found["score"])
    with st.container(horizontal=True, vertical_alignment="top"):
        for kind, rows in (("class", found["classes"]), ("group", found["groups"])):
            if rows:
                shown = _of_parts(kind, rows, score.name, score.written)
                st.dataframe(shown, hide_index=True, width=420, key=f"detail-{kind}")
    st.caption(
        f"Mean {plain(score.name)} of the examples of each {which} on {plain(split)}, with its "
        "95 % interval. Intervals of small classes and groups are wide."
    )
    snippets.show(call.script(view.context))


def _of_parts(kind: str, rows: list[list[Any]], score: str, unit: Unit) -> Styler:
    """Return a table of classes or groups with their scores."""
    title = unit.label(score)
    table = pd.DataFrame(
        [
            {
                kind: name,
                "n": n,
                title: None if mean is None else mean * unit.factor,
                "95% CI": UNKNOWN if low is None else f"{unit.number(low)} to {unit.number(high)}",
            }
            for name, n, mean, low, high in rows
        ]
    )
    return table.astype({title: float}).style.format({title: unit.cell})
