"""Ingredients, base and soups in one table: scores, differences, hyperparameters, selection."""

import math
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import (
    column_figures,
    comparison,
    display,
    exports,
    fit_report,
    jobs,
    run_table,
    scores,
    snippets,
    soup_links,
    state,
    sweeps,
    tasks,
)
from pages.components import table_controls as controls
from pages.components.display import listed, plain
from pages.components.run_table import INK, NAME, RunTable
from pages.components.state import View
from soupcore import figures
from soupcore.calls import IngredientScores
from soupcore.display import counted
from soupcore.figures.tables import logged_table, scores_table
from soupcore.overview import best_on_select, ranked
from soupcore.plan import seconds
from soupcore.tasks.unit import UNKNOWN


def main(view: View) -> None:
    names = list(view.sweep.ingredients)
    known: scores.Known = {}
    _header(view, names)
    if view.has_task:
        known = scores.of_all(view)
        call = IngredientScores(tuple(known), tuple(view.task.reported))
        _evaluate(view, known, call)
    fit_report.show(view.sweep.fit)
    sweeps.show_remote_files(view)
    fit_report.choose_snapshots(view.sweep.fit)
    fit_report.choose_weights(view)
    table, rows, columns, metric = _table(view, known)
    score = table.ranked_by or (scores.logged_title(metric) if metric else "")
    score = score if score in table.columns else ""
    column_figures.show_parallel(view, table, rows, columns, score, _toggle)
    if view.has_task:
        _figures(view, names, known)
        column_figures.show_scatter(view, table, rows, _toggle)
        snippets.show(snippets.evaluate(view, call))
    else:
        if metric is not None:
            _logged_figure(view, metric)
        column_figures.show_scatter(view, table, rows, _toggle)
        tasks.show_needed("Evaluating ingredients")
        snippets.show(snippets.ingredients(view))


def _header(view: View, names: list[str]) -> None:
    st.header("Ingredients")
    base = f"base: **{plain(view.sweep.base.name)}**" if view.sweep.base else "no base checkpoint"
    st.caption(
        f"**{counted(len(names), 'ingredient')}** of **{plain(state.sweep_label())}** · {base} · "
        f"{_about_task(view)}. Tick rows or click points to select ingredients; the selection "
        "applies to every page."
    )


def _about_task(view: View) -> str:
    """Return the task and the sizes of its splits, as Markdown."""
    if not view.has_task:
        return "no task"
    sizes = ", ".join(
        f"{plain(view.task.split_title(split))} {len(view.task.split(split)):,}"
        for split in view.task.reported[:2]
    )
    examples = f" · examples: {sizes}" if view.task.has_examples else ""
    return f"task **{plain(view.task.name)}**{examples}{scores.task_notes(view.task)}"


def _evaluate(view: View, known: scores.Known, call: IngredientScores) -> None:
    missing = {
        split: [name for name in known if known[name][split] is None]
        for split in view.task.reported
    }
    count = sum(len(names) for names in missing.values())
    if count:
        checkpoints = counted(len(known), "checkpoint")
        left = sum(len(names) * len(view.task.split(split)) for split, names in missing.items())
        jobs.call_button(
            view,
            f"Evaluate all ingredients ({jobs.evaluations_text(count)})",
            call,
            f"Evaluate {checkpoints}",
            key="evaluate",
            help=f"Evaluates {checkpoints} on {listed(missing)}. Stored results are reused.",
            price=seconds(view.overview, left),
            starts=True,
        )


def _figures(view: View, names: list[str], known: scores.Known) -> None:
    on_select = {
        name: each for name in names if (each := known[name][view.task.select]) is not None
    }
    best = ranked(known, view.task.select, names)
    on_select = {name: on_select[name] for name in dict.fromkeys([*best, *on_select])}
    if not on_select:
        st.info(
            "No ingredients have been evaluated yet. Click **Evaluate all ingredients**; the table "
            "and figures update as results arrive.",
            icon=":material/insights:",
        )
        return
    selected = st.session_state["selection"]
    with st.container(key="two-figures"):
        left, right = st.columns(2)
    with left:
        st.subheader(f"Validation {plain(view.task.score_name)} ({plain(view.task.select)})")
        table = scores_table(on_select)
        figure = figures.accuracy_overview(
            table,
            view.colours,
            score_name=view.task.score_name,
            score_unit=view.task.score_unit,
            selected=selected,
        )
        code = snippets.overview(view, list(on_select), selected)
        display.show_figure(
            figure,
            "overview",
            table,
            code,
            on_pick=_toggle,
            boxes=True,
            title=f"Validation {view.task.score_name}",
            about=exports.sizes(view.task, view.task.select),
        )
    with right:
        comparison.show_scatter(view, known, "scatter", selected=selected, on_pick=_toggle)


def _logged_figure(view: View, metric: str) -> None:
    title = scores.logged_title(metric)
    st.subheader(plain(title))
    known = scores.logged_values(view.sweep, metric)
    names = scores.ranked_by_logged(view.sweep, [*known], metric)
    table = logged_table({name: known[name] for name in names})
    selected = st.session_state["selection"]
    better = -1 if scores.lower_is_better(metric) else 1
    figure = figures.logged_overview(
        table, view.colours, metric=metric, selected=selected, better=better
    )
    code = snippets.logged_overview(view, names, metric, selected, better)
    display.show_figure(figure, "overview", table, code, on_pick=_toggle, boxes=True, title=title)


def _toggle(picked: list[Any]) -> None:
    view: View = st.session_state["view"]
    soup_links.pick(view, scores.soups(view))(picked)


def _table(view: View, known: scores.Known) -> tuple[RunTable, list[int], list[str], str | None]:
    """Show ingredients, base and soups; ticked rows of ingredients are the selection.

    Returns:
        The table, the rows that match the filter in their order, the visible columns, and the
        logged metric that ranks a sweep without a task; None if rows are ordered by name.
    """
    stored = view.overview.soups if view.has_task else scores.soups(view)
    soups = {soup.label: soup for soup in stored}
    with st.container(horizontal=True, vertical_alignment="center"):
        text = controls.choose_filter(view.folder)
        metric, pinned = None, ""
        if view.has_task:
            best = best_on_select(known, view.task.select, view.sweep.ingredients)
            pinned = controls.choose_baseline([*known, *soups], best, view.folder)
        else:
            metric = controls.choose_ranking(view.sweep, view.folder)
        table = run_table.build(view, known, soups, pinned=pinned, ranking_metric=metric)
        order = (
            controls.choose_order(table, view.folder, _default_order(view, table))
            if view.has_task
            else _logged_order(view, table, metric)
        )
        group = controls.choose_groups(table, view.folder)
        columns = controls.choose_columns(table, view.folder)
    matching = controls.matching(table, text)
    rows = [row for row in order if row in matching]
    _selection(view, table, rows)
    if group:
        title = table.ranked_by or (scores.logged_title(metric) if metric else "")
        controls.show_groups(table, rows, group, title if title in table.columns else "")
    if rows:
        _rows(view, table, rows, columns)
    else:
        st.info("No row matches the filter.", icon=":material/filter_alt_off:")
    controls.show_row(view, table)
    if view.has_task:
        scores.show_undefined(view, table.evaluations)
    return table, rows, columns, metric


def _default_order(view: View, table: RunTable) -> tuple[str, bool] | None:
    """Return the column that sorts the rows by default, and whether it is descending.

    Returns:
        The score on the select split, or the logged metric of the URL; None for the order of the
        sweep.
    """
    if table.ranked_by:
        return table.ranked_by, not table.columns[table.ranked_by].is_lower_first
    metric = scores.ranking_metric(view.sweep)
    if metric is None or (title := scores.logged_title(metric)) not in table.columns:
        return None
    return title, not scores.lower_is_better(metric)


def _logged_order(view: View, table: RunTable, metric: str | None) -> list[int]:
    if metric is None:
        return list(range(len(table.frame)))
    ranked = scores.ranked_by_logged(view.sweep, list(view.sweep.ingredients), metric)
    places = {name: place for place, name in enumerate(table.names)}
    return [places.pop(name) for name in ranked] + list(places.values())


def _rows(view: View, table: RunTable, rows: list[int], columns: list[str]) -> None:
    """Show rows of the table, and offer them as files."""
    frame = table.frame.iloc[rows].reset_index(drop=True)
    names = list(frame[NAME])
    key = display.tick_rows("ingredients-table", names, st.session_state["selection"])
    st.dataframe(
        run_table.styled(table, frame, rows),
        key=key,
        on_select=lambda: _take_rows(key, names),
        selection_mode="multi-row",
        hide_index=True,
        height=min(38 + 35 * len(names), 560),
        placeholder=UNKNOWN,
        column_order=columns,
        column_config={
            INK: st.column_config.TextColumn(width=18, help=table.columns[INK].help),
            NAME: soup_links.names_column(key, names, table.soups, width=_width(names)),
            **{
                title: st.column_config.Column(help=column.help)
                for title, column in table.columns.items()
                if column.help and title not in (INK, NAME)
            },
        },
    )
    exported = [title for title in columns if title != INK]
    exports.show_rows(
        _with_spreads(table, frame[exported], rows),
        "ingredients",
        decimals={t: d for t in exported if (d := table.columns[t].decimals) is not None},
    )


def _with_spreads(table: RunTable, frame: pd.DataFrame, rows: list[int]) -> pd.DataFrame:
    """Return a table to export, with half the width of each score's interval after the score."""
    wide = frame.copy()
    for title, spreads in table.spreads.items():
        if title in wide and not all(math.isnan(spread) for spread in spreads):
            place = list(wide.columns).index(title) + 1
            wide.insert(place, f"{title}, 95% CI ±", [spreads[row] for row in rows])
    return wide


def _selection(view: View, table: RunTable, rows: list[int]) -> None:
    """Show how many ingredients are selected, and what the filter leaves."""
    names = list(view.sweep.ingredients)
    selected = st.session_state["selection"]
    every = table.names
    shown = [name for row in rows if (name := every[row]) in view.sweep.ingredients]
    is_filtered = len(rows) < len(table.frame)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{len(selected)}** of {len(names)} ingredients selected")
        st.button(
            "Select all shown" if is_filtered else "Select all",
            type="tertiary",
            disabled=set(shown) <= set(selected),
            on_click=lambda: _select({*selected, *shown}),
        )
        st.button(
            "Clear", type="tertiary", disabled=not selected, on_click=lambda: state.select([])
        )
        if is_filtered:
            st.caption(f"{len(rows)} of {len(table.frame)} rows match the filter")
        if table.baseline:
            kind = "pinned" if controls.setting("baseline") else "best ingredient on validation"
            st.caption(f"Baseline for Δ: **{plain(table.baseline)}** ({kind}), in the first row")


def _select(names: set[str]) -> None:
    """Select ingredients in the order of the sweep."""
    state.select([n for n in st.session_state["view"].sweep.ingredients if n in names])


def _width(names: list[str]) -> int:
    """Return a column width in pixels that fits all but very long names."""
    return min(max(70, 9 * max(map(len, names))), 300)


def _take_rows(key: str, names: list[str]) -> None:
    """Select the ticked ingredients; rows that the filter hides stay as they are."""
    ticked = {names[row] for row in st.session_state[key]["selection"]["rows"]}
    if not ticked <= st.session_state["view"].sweep.ingredients.keys():
        st.toast("Only ingredients can be selected here, not soups or the base.")
    _select(ticked | (set(st.session_state["selection"]) - set(names)))


if __name__ == "__main__":
    main(st.session_state["view"])
