"""The run table: every ingredient, how it was trained, what it scored, whether it is selected."""

from typing import Any

import pandas as pd
import streamlit as st

from pages.components import scores, state
from pages.components.state import View

_KEY = "ingredients-table"
_LAST = ["digest", "status"]


def show(view: View, known: scores.Known) -> None:
    """Show the table; ticked rows are the selection."""
    names = list(view.sweep.ingredients)
    selected = st.session_state["selection"]
    _selection(names, selected)
    rows = [_row(view, name, known[name]) for name in names]
    # A first row without hyperparameters must not push them behind the last columns.
    columns = dict.fromkeys(key for row in rows for key in row)
    table = pd.DataFrame(rows, columns=[c for c in columns if c not in _LAST] + _LAST)
    of_runs = {_column(view, key): key for n in names for key in view.sweep[n].hyperparameters}
    hidden = {column for column, key in of_runs.items() if key not in view.sweep.columns}
    if hidden:
        st.caption(
            f"{len(hidden)} more columns of what the checkpoints say of their runs are hidden, "
            "most being the same in all; the eye above the table shows them."
        )
    ticked = [index for index, name in enumerate(names) if name in selected]
    if st.session_state.get(_KEY, {}).get("selection", {}).get("rows") != ticked:
        st.session_state[_KEY] = {"selection": {"rows": ticked, "columns": [], "cells": []}}
    st.dataframe(
        table.style.map(lambda ink: f"color: {ink}; background-color: {ink}", subset=[""]),
        key=_KEY,
        on_select=lambda: _take_rows(names),
        selection_mode="multi-row",
        hide_index=True,
        height=min(38 + 35 * len(names), 560),
        placeholder="–",
        column_order=[column for column in table.columns if column not in hidden],
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
                for column in of_runs
                if pd.api.types.is_float_dtype(table[column])
            },
        },
    )


def _selection(names: list[str], selected: list[str]) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{len(selected)}** of {len(names)} selected")
        st.button(
            "Select all",
            type="tertiary",
            disabled=len(selected) == len(names),
            on_click=lambda: state.select(names),
        )
        st.button(
            "Clear", type="tertiary", disabled=not selected, on_click=lambda: state.select([])
        )


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
        **{_column(view, key): value for key, value in ingredient.hyperparameters.items()},
        "digest": ingredient.digest[:8],
        "status": "evaluated" if done == len(known) else f"{done} of {len(known)} splits",
    }


def _column(view: View, key: str) -> str:
    """Return the column of a hyperparameter; some are called like columns of ours."""
    return f"{key} (run)" if key in ("", "name", view.task.loss_name, *_LAST) else key


def _width(names: list[str]) -> int:
    """Return a column's width in pixels that shows all but very long names."""
    return min(max(70, 9 * max(map(len, names))), 300)


def _take_rows(names: list[str]) -> None:
    state.select([names[row] for row in st.session_state[_KEY]["selection"]["rows"]])
