"""Every ingredient: whether it fits, what it scored, and whether it is selected."""

from typing import Any

import streamlit as st

from pages.components import (
    export,
    fit_report,
    jobs,
    run_table,
    score_snippets,
    scores,
    shift_scatter,
    snippets,
    state,
    weight_sets,
)
from pages.components.state import View
from pages.components.text import plain
from soupcore import figures
from soupcore.figures.tables import scores_table


def main(view: View) -> None:
    names = list(view.sweep.ingredients)
    points = scores.ingredients(view)
    base = {view.sweep.base.name: view.sweep.base.mixture} if view.sweep.base else {}
    known = scores.evaluations(view, points | base)
    _header(view, names)
    _evaluate(view, known)
    fit_report.show(view.sweep.fit)
    weight_sets.show(view)
    run_table.show(view, known)
    _figures(view, names, known)
    snippets.show(snippets.evaluate(view))


def _header(view: View, names: list[str]) -> None:
    st.header("Ingredients")
    base = f"base **{plain(view.sweep.base.name)}**" if view.sweep.base else "no base"
    sizes = ", ".join(f"{split} {len(view.task.split(split))}" for split in view.task.reported[:2])
    st.caption(
        f"**{len(names)}** checkpoints of **{plain(state.sweep_label())}**, {base} · task "
        f"**{view.task.name}** · examples: {sizes} · pick rows, or points in a figure, to select"
    )


def _evaluate(view: View, known: scores.Known) -> None:
    missing = {
        split: [name for name in known if known[name][split] is None]
        for split in view.task.reported
    }
    count = sum(len(names) for names in missing.values())
    running = jobs.unfinished("evaluate", **view.request)
    if count and st.button(
        f"Evaluate what is missing ({count})",
        type="primary",
        icon=":material/play_arrow:",
        disabled=running is not None,
        help=f"{len(known)} checkpoints on {', '.join(missing)}, less what is known.",
    ):
        request = view.request | {"names": list(known), "splits": view.task.reported}
        jobs.submit("evaluate", f"Evaluate {len(known)} checkpoints", request)
        st.rerun()


def _figures(view: View, names: list[str], known: scores.Known) -> None:
    found = {name: each for name in names if (each := known[name][view.task.select]) is not None}
    if not found:
        st.info(
            "Nothing is evaluated yet. Press “Evaluate what is missing”; the table and the "
            "figures fill as results come.",
            icon=":material/insights:",
        )
        return
    selected = st.session_state["selection"]
    left, right = st.columns(2)
    with left:
        st.subheader("On select")
        table = scores_table(found)
        figure = figures.accuracy_overview(
            table, view.colours, score_name=view.task.score_name, selected=selected
        )
        code = score_snippets.overview(view, list(found), selected)
        export.show(figure, "overview", table, code, on_pick=_toggle, boxes=True)
    with right:
        shift_scatter.show(view, known, "scatter", selected=selected, on_pick=_toggle)


def _toggle(picked: list[Any]) -> None:
    ingredients = st.session_state["view"].sweep.ingredients
    names = {custom if isinstance(custom, str) else custom[0] for custom in picked}
    toggled = set(st.session_state["selection"]) ^ (names & ingredients.keys())
    state.select([name for name in ingredients if name in toggled])


main(st.session_state["view"])
