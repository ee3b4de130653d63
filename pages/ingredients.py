"""The run table: every ingredient, what it scored, and which of them are selected."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.components import fit_report, jobs, picking, scores, snippets, state, weight_sets
from pages.components.state import View
from pages.components.text import plain
from soupcore import figures

TABLE = "ingredients-table"


def main(view: View) -> None:
    names = list(view.sweep.ingredients)
    points = scores.ingredients(view)
    base = {view.sweep.base.name: view.sweep.base.mixture} if view.sweep.base else {}
    known = scores.evaluations(view, points | base)
    _header(view, names)
    _evaluate(view, known)
    fit_report.show(view.sweep.fit)
    weight_sets.show(view)
    _table(view, names, known)
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


def _table(view: View, names: list[str], known: scores.Known) -> None:
    selected = st.session_state["selection"]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{len(selected)}** of {len(names)} selected")
        st.button(
            "Select all",
            type="tertiary",
            disabled=len(selected) == len(names),
            on_click=lambda: _select(names),
        )
        st.button("Clear", type="tertiary", disabled=not selected, on_click=lambda: _select([]))
    rows = [_row(view, name, known[name]) for name in names]
    # A first row without hyperparameters must not push them behind the last columns.
    last = ["digest", "status"]
    columns = dict.fromkeys(key for row in rows for key in row)
    table = pd.DataFrame(rows, columns=[c for c in columns if c not in last] + last)
    hidden = {key for n in names for key in view.sweep[n].hyperparameters} - {*view.sweep.columns}
    if hidden:
        st.caption(
            f"{len(hidden)} more columns of what the checkpoints say of their runs are hidden, "
            "most being the same in all; the eye above the table shows them."
        )
    ticked = [index for index, name in enumerate(names) if name in selected]
    if st.session_state.get(TABLE, {}).get("selection", {}).get("rows") != ticked:
        st.session_state[TABLE] = {"selection": {"rows": ticked, "columns": [], "cells": []}}
    st.dataframe(
        table.style.map(lambda ink: f"color: {ink}; background-color: {ink}", subset=[""]),
        key=TABLE,
        on_select=lambda: _take_rows(names),
        selection_mode="multi-row",
        hide_index=True,
        height=min(38 + 35 * len(names), 560),
        placeholder="–",
        column_order=[c for c in table.columns if c not in hidden],
        column_config={
            "": st.column_config.TextColumn(width=18, help="Its colour in every figure"),
            "name": st.column_config.TextColumn(pinned=True, width=_width(names)),
            **{
                column: st.column_config.NumberColumn(format="%.2f")
                for column in ("select %", "±", "report %", "mean shift %")
            },
            view.task.loss_name: st.column_config.NumberColumn(format="%.4f"),
            **{
                column: st.column_config.NumberColumn(format="%g")
                for column in {key for name in names for key in view.sweep[name].hyperparameters}
                if pd.api.types.is_float_dtype(table[column])
            },
        },
    )


def _width(names: list[str]) -> int:
    """Return a column's width in pixels that shows all but very long names."""
    return min(max(70, 9 * max(map(len, names))), 300)


def _row(view: View, name: str, known: dict[str, Any]) -> dict[str, Any]:
    chosen = known[view.task.select]
    reports = view.task.splits_with_role("report")
    report = known[reports[0]] if reports else None
    shift = scores.shift_mean(view, known)
    done = sum(evaluation is not None for evaluation in known.values())
    ingredient = view.sweep[name]
    half = (chosen.score_interval[1] - chosen.score_interval[0]) / 2 if chosen else None
    return {
        "": view.colours[name],
        "name": name,
        "select %": chosen.score * 100 if chosen else None,
        "±": half * 100 if half is not None else None,
        view.task.loss_name: chosen.loss if chosen else None,
        "report %": report.score * 100 if report else None,
        "mean shift %": shift * 100 if shift is not None else None,
        **ingredient.hyperparameters,
        "digest": ingredient.digest[:8],
        "status": "evaluated" if done == len(known) else f"{done} of {len(known)} splits",
    }


def _figures(view: View, names: list[str], known: scores.Known) -> None:
    selected = st.session_state["selection"]
    if not any(known[name][view.task.select] for name in names):
        st.info(
            "Nothing is evaluated yet. Press “Evaluate what is missing”; the table and the "
            "figures fill as results come.",
            icon=":material/insights:",
        )
        return
    left, right = st.columns(2)
    overview = pd.DataFrame(
        {
            "score": evaluation.score if evaluation else None,
            "low": evaluation.score_interval[0] if evaluation else None,
            "high": evaluation.score_interval[1] if evaluation else None,
        }
        for evaluation in (known[name][view.task.select] for name in names)
    ).set_axis(names)
    kinds = dict.fromkeys(names, "ingredient")
    if view.sweep.base is not None:
        kinds[view.sweep.base.name] = "base"
    scatter = scores.scatter_table(view, known, kinds)
    options = {"score_name": view.task.score_name, "selected": selected}
    with left:
        st.subheader("On select")
        figure = figures.accuracy_overview(overview, view.colours, **options)
        picking.show(figure, "overview", _toggle, boxes=True)
    with right:
        st.subheader("Under distribution shift")
        if scatter.dropna().empty:
            st.caption("Shows once the report split and every shift split are evaluated.")
        else:
            figure = figures.shift_scatter(scatter, view.colours, **options)
            picking.show(figure, "scatter", _toggle, boxes=True)


def _take_rows(names: list[str]) -> None:
    _select([names[row] for row in st.session_state[TABLE]["selection"]["rows"]])


def _toggle(picked: list[Any]) -> None:
    ingredients = st.session_state["view"].sweep.ingredients
    names = {custom if isinstance(custom, str) else custom[0] for custom in picked}
    toggled = set(st.session_state["selection"]) ^ (names & ingredients.keys())
    _select([name for name in ingredients if name in toggled])


def _select(names: list[str]) -> None:
    st.session_state["selection"] = list(names)


main(st.session_state["view"])
