"""All ingredients: compatibility, scores and selection."""

import math
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import (
    comparison,
    display,
    jobs,
    ranking,
    scores,
    snippets,
    state,
    sweeps,
    tasks,
)
from pages.components.display import listed, plain
from pages.components.state import View
from soupcore import Evaluation, Ingredient, figures
from soupcore.calls import IngredientScores
from soupcore.figures.tables import logged_table, scores_table
from soupcore.sweeps.hyperparameters import run_columns
from soupcore.tasks import PLAIN

_KEY = "ingredients-table"
_LAST = ["hash", "status"]
_INTERVAL = "95% CI ±"


def main(view: View) -> None:
    names = list(view.sweep.ingredients)
    known: scores.Known = {}
    _header(view, names)
    if view.has_task:
        base = {view.sweep.base.name: view.sweep.base.mixture} if view.sweep.base else {}
        known = scores.evaluations(view, scores.ingredients(view) | base)
        call = IngredientScores(tuple(known), tuple(view.task.reported))
        _evaluate(view, known, call)
    sweeps.show_fit(view.sweep.fit)
    sweeps.choose_snapshots(view.sweep.fit)
    sweeps.choose_weights(view)
    metric = _table(view, known)
    if view.has_task:
        _figures(view, names, known)
        snippets.show(snippets.evaluate(view, call))
    else:
        if metric is not None:
            _logged_figure(view, metric)
        tasks.show_needed("Evaluating ingredients")
        snippets.show(snippets.ingredients(view))


def _header(view: View, names: list[str]) -> None:
    st.header("Ingredients")
    base = f"base: **{plain(view.sweep.base.name)}**" if view.sweep.base else "no base checkpoint"
    st.caption(
        f"**{len(names)} ingredients** of **{plain(state.sweep_label())}** · {base} · "
        f"{_judged(view)}. Tick rows or click points to select ingredients; the selection applies "
        "to every page."
    )


def _judged(view: View) -> str:
    """Return the task and the sizes of its splits, as Markdown."""
    if not view.has_task:
        return "no task"
    sizes = ", ".join(
        f"{plain(split)} {len(view.task.split(split)):,}" for split in view.task.reported[:2]
    )
    examples = f" · examples: {sizes}" if view.task.has_examples else ""
    return f"task **{plain(view.task.name)}**{examples}{scores.judging(view.task)}"


def _evaluate(view: View, known: scores.Known, call: IngredientScores) -> None:
    missing = {
        split: [name for name in known if known[name][split] is None]
        for split in view.task.reported
    }
    count = sum(len(names) for names in missing.values())
    if count and st.button(
        f"Evaluate all ingredients ({jobs.evaluations_text(count)})",
        type="primary",
        icon=":material/play_arrow:",
        disabled=jobs.cannot_start(view, call),
        help=f"Evaluates {len(known)} checkpoints on {listed(missing)}. Stored results are reused.",
    ):
        jobs.start(view, call, f"Evaluate {len(known)} checkpoints")
        st.rerun()


def _figures(view: View, names: list[str], known: scores.Known) -> None:
    found = {name: each for name in names if (each := known[name][view.task.select]) is not None}
    if not found:
        st.info(
            "No ingredients have been evaluated yet. Click **Evaluate all ingredients**; the table "
            "and figures update as results arrive.",
            icon=":material/insights:",
        )
        return
    selected = st.session_state["selection"]
    left, right = st.columns(2)
    with left:
        st.subheader(f"Validation {plain(view.task.score_name)} ({plain(view.task.select)})")
        table = scores_table(found)
        figure = figures.accuracy_overview(
            table,
            view.colours,
            score_name=view.task.score_name,
            score_unit=view.task.score_unit,
            selected=selected,
        )
        code = snippets.overview(view, list(found), selected)
        display.show_figure(figure, "overview", table, code, on_pick=_toggle, boxes=True)
    with right:
        comparison.show_scatter(view, known, "scatter", selected=selected, on_pick=_toggle)


def _logged_figure(view: View, metric: str) -> None:
    st.subheader(plain(ranking.logged(metric)))
    known = ranking.values(view.sweep, metric)
    names = ranking.ranked(view.sweep, [*known], metric)
    table = logged_table({name: known[name] for name in names})
    selected = st.session_state["selection"]
    figure = figures.logged_overview(table, view.colours, metric=metric, selected=selected)
    code = snippets.logged_overview(view, names, metric, selected)
    display.show_figure(figure, "overview", table, code, on_pick=_toggle, boxes=True)


def _toggle(picked: list[Any]) -> None:
    ingredients = st.session_state["view"].sweep.ingredients
    names = {custom if isinstance(custom, str) else custom[0] for custom in picked}
    toggled = set(st.session_state["selection"]) ^ (names & ingredients.keys())
    state.select([name for name in ingredients if name in toggled])


def _table(view: View, known: scores.Known) -> str | None:
    """Show all ingredients with hyperparameters and scores; ticked rows are the selection.

    Returns:
        The logged metric that ranks the rows; None for an order by name.
    """
    names = list(view.sweep.ingredients)
    selected = st.session_state["selection"]
    names, metric = _selection(view, names, selected)
    ours = [
        _row(view, name, known[name]) if view.has_task else _plain_row(view, name) for name in names
    ]
    logs = [_run_values(view.sweep[name], metric) for name in names]
    hyperparameters = run_columns(dict.fromkeys(k for row in logs for k in row), {*ours[0], *_LAST})
    rows = [
        row | {hyperparameters[key]: value for key, value in values.items()}
        for row, values in zip(ours, logs, strict=True)
    ]
    # Keeps `_LAST` last even if the first row has no hyperparameters.
    columns = dict.fromkeys(key for row in rows for key in row)
    last = [column for column in _LAST if column in ours[0]]
    table = pd.DataFrame(rows, columns=[c for c in columns if c not in last] + last)
    of_runs = {column: key for key, column in hyperparameters.items()}
    for column in of_runs:
        table[column] = pd.Series(_uniform(table[column].tolist()), dtype=None)
    shown = {*view.sweep.columns, *map(ranking.logged, view.sweep.logged_columns)}
    shown |= {ranking.logged(metric)} if metric else set()
    hidden = {column for column, key in of_runs.items() if key not in shown}
    absent = _absent(view)
    if hidden:
        st.caption(
            f"{len(hidden)} columns of hyperparameters and logged metrics are hidden (mostly "
            "constant). Use the eye icon above the table to show them."
        )
    unit = view.task.score_unit if view.has_task else PLAIN
    scored = [*_scored(view), _INTERVAL] if view.has_task else []
    numbers = [c for c in of_runs if pd.api.types.is_float_dtype(table[c])]
    ticked = [index for index, name in enumerate(names) if name in selected]
    if st.session_state.get(_KEY, {}).get("selection", {}).get("rows") != ticked:
        st.session_state[_KEY] = {"selection": {"rows": ticked, "columns": [], "cells": []}}
    st.dataframe(
        table.astype(dict.fromkeys(scored, float))
        .style.format(unit.cell, subset=pd.Index(scored))
        .format("{:.6g}", subset=pd.Index(numbers), na_rep="–")
        .map(lambda ink: f"color: {ink}; background-color: {ink}", subset=[""]),
        key=_KEY,
        on_select=lambda: _take_rows(names),
        selection_mode="multi-row",
        hide_index=True,
        height=min(38 + 35 * len(names), 560),
        placeholder="–",
        column_order=[c for c in table.columns if c not in hidden | absent],
        column_config={
            "": st.column_config.TextColumn(width=18, help="Colour used in all figures"),
            "name": st.column_config.TextColumn(pinned=True, width=_width(names)),
            _INTERVAL: st.column_config.Column(
                help="Half of the 95 % confidence interval of the validation score"
            ),
            **(
                {view.task.loss_name: st.column_config.NumberColumn(format="%.4f")}
                if view.has_task
                else {}
            ),
            **{
                column: st.column_config.Column(help=_source(view, key))
                for column, key in of_runs.items()
            },
        },
    )
    display.export_rows(
        table.drop(columns=["", *absent]),
        "ingredients",
        decimals={c: unit.decimals for c in scored if unit.decimals is not None},
    )
    if view.has_task:
        scores.show_undefined(view, known)
    return metric


def _absent(view: View) -> set[str]:
    """Return the columns of scores whose splits the task lacks."""
    if not view.has_task:
        return set()
    _, on_report, under_shift = _scored(view)
    absent = set() if view.task.splits_with_role("report") else {on_report}
    return absent if view.task.splits_with_role("shift") else absent | {under_shift}


def _run_values(ingredient: Ingredient, first: str | None) -> dict[str, Any]:
    """Return the hyperparameters and logged metrics of an ingredient by their columns.

    Args:
        ingredient: The ingredient.
        first: The logged metric that comes first; None for the order in the file.
    """
    logged = {ranking.logged(name): value for name, value in ingredient.logged_metrics.items()}
    leading = {ranking.logged(first): logged.get(ranking.logged(first))} if first else {}
    return {**leading, **logged, **ingredient.hyperparameters}


def _source(view: View, key: str) -> str:
    """Return where the values of a column come from."""
    names = (key, key.removesuffix(" (logged)"))
    origins = [
        i.origins[n] for i in view.sweep.ingredients.values() for n in names if n in i.origins
    ]
    files = [*dict.fromkeys(origin.partition(",")[0].rpartition("/")[2] for origin in origins)]
    source = f"From {plain(', '.join(files[:3]))}{', …' if len(files) > 3 else ''}."
    if key.endswith(" (logged)"):
        source += " Logged by the training tool, not measured here."
    return source


def _selection(view: View, names: list[str], selected: list[str]) -> tuple[list[str], str | None]:
    """Show how many are selected; return the names in the chosen order, and the ranking metric."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{len(selected)}** of {len(names)} ingredients selected")
        st.button(
            "Select all",
            type="tertiary",
            disabled=len(selected) == len(names),
            on_click=lambda: state.select(names),
        )
        st.button(
            "Clear", type="tertiary", disabled=not selected, on_click=lambda: state.select([])
        )
        metric = ranking.choose(view.sweep, view.folder)
    return names if metric is None else ranking.ranked(view.sweep, names, metric), metric


def _plain_row(view: View, name: str) -> dict[str, Any]:
    """Return the row of an ingredient without a task."""
    return {"": view.colours[name], "name": name, "hash": view.sweep[name].digest[:8]}


def _row(view: View, name: str, known: dict[str, Any]) -> dict[str, Any]:
    chosen = known[view.task.select]
    reports = view.task.splits_with_role("report")
    report = known[reports[0]] if reports else None
    shift = scores.shift_mean(view, known)
    done = sum(evaluation is not None for evaluation in known.values())
    ingredient = view.sweep[name]
    factor = view.task.score_unit.factor
    on_select, on_report, under_shift = _scored(view)
    return {
        "": view.colours[name],
        "name": name,
        on_select: chosen.score * factor if chosen else None,
        _INTERVAL: _half(chosen) * view.task.score_unit.scale if chosen else None,
        view.task.loss_name: chosen.loss if chosen else None,
        on_report: report.score * factor if report else None,
        under_shift: shift * factor if shift is not None else None,
        "hash": ingredient.digest[:8],
        "status": "evaluated" if done == len(known) else f"{done} of {len(known)} splits",
    }


def _uniform(values: list[Any]) -> list[Any]:
    """Return values as text if a column of a table cannot hold their types together."""
    known = [value for value in values if not pd.isna(value)]
    if all(type(value) in (int, float) for value in known):
        if all(isinstance(value, float) or abs(value) < 1 << 63 for value in known):
            return values
    elif len({type(value) for value in known}) == 1:
        return values
    return [None if pd.isna(value) else str(value) for value in values]


def _scored(view: View) -> list[str]:
    """Return the columns of scores: on select, on report and under shift."""
    unit, score = view.task.score_unit, view.task.score_name
    return [unit.label(f"{split} {score}") for split in ("validation", "test", "mean shift")]


def _half(found: Evaluation) -> float:
    """Return half the width of the score's interval; NaN if that is 0 or infinite."""
    low, high = found.score_interval
    return (high - low) / 2 if math.isfinite(high - low) and high > low else math.nan


def _width(names: list[str]) -> int:
    """Return a column width in pixels that fits all but very long names."""
    return min(max(70, 9 * max(map(len, names))), 300)


def _take_rows(names: list[str]) -> None:
    state.select([names[row] for row in st.session_state[_KEY]["selection"]["rows"]])


if __name__ == "__main__":
    main(st.session_state["view"])
