"""The columns of the run table as figures: one against another, importance, parallel coordinates.

Brushes of the parallel coordinates are conditions of the table's filter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from zlib import crc32

import pandas as pd
import streamlit as st

from pages.components import display, exports, snippets, state
from pages.components import table_controls as controls
from pages.components.display import plain
from pages.components.run_table import BASIN, INK, KIND, NAME, RunTable, number_text
from pages.components.state import View
from soupcore import figures
from soupcore.analysis import marginal_importance
from soupcore.figures.parallel import MOST_CATEGORIES, Axis, axes_of, brushes
from soupcore.overview import is_learning_rate
from soupcore.row_filter import FilterError, Limits, limits, matching_rows, with_limits

_SKIPPED = (INK, NAME, "hash", "status")  # columns that are no axis
_PARALLEL = "parallel"
_MOST_AXES = 12  # axes that have room for their ticks

_Brushes = Mapping[str, Limits | Sequence[str] | None]


def show_scatter(view: View, table: RunTable, rows: Sequence[int], on_pick: display.Pick) -> None:
    """Let the user choose columns, and draw rows of the table.

    Args:
        view: The view.
        table: The table.
        rows: The rows to draw.
        on_pick: Called with the points that the user clicks.
    """
    titles = [t for t in table.columns if t not in _SKIPPED and table.frame[t].nunique() > 0]
    varying = [t for t in titles if table.columns[t].is_of_runs and table.frame[t].nunique() > 1]
    numbers = [t for t in titles if table.columns[t].form != "text"]
    if not varying or not numbers:
        return
    st.subheader("Columns")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        rate = next(filter(is_learning_rate, varying), varying[0])
        x = _choose("Horizontal", "x", titles, rate)
        ranked = [t for t in numbers if t == table.ranked_by]  # absent if all are undefined
        y = _choose(
            "Vertical", "y", titles, [*ranked, *(t for t in numbers if t != x), *numbers][0]
        )
        colour = _choose("Colour", "colour", ["", *titles], "")
    drawn = table.frame.iloc[list(rows)].set_index(NAME)
    drawn = drawn[[title for title in dict.fromkeys([KIND, x, y, colour]) if title]]
    drawn = pd.DataFrame({t: _plain_numbers(drawn[t]) for t in drawn.columns}, index=drawn.index)
    selected = st.session_state["selection"]
    better = {title: table.columns[title].better for title in dict.fromkeys([x, y])}
    figure = figures.column_scatter(
        drawn, view.colours, x=x, y=y, colour=colour, selected=selected, better=better
    )
    code = snippets.column_scatter(view, drawn, x, y, colour, selected, better)
    display.show_figure(
        figure,
        "columns",
        drawn,
        code,
        on_pick=on_pick,
        boxes=True,
        title=f"{y} by {x}",
        about=exports.measured_on(view),
    )
    st.caption(
        "● ingredients, ■ base, ★ soups; ▲ at an edge: beyond the axis, hover for the value. Rows "
        "that lack one of the values are not drawn."
    )
    hyperparameters = [title for title in varying if not title.endswith("(logged)")]
    if y in numbers and y not in hyperparameters:
        _importance(view, table, rows, hyperparameters, y)


def show_parallel(
    view: View,
    table: RunTable,
    rows: Sequence[int],
    columns: Sequence[str],
    score: str,
    on_pick: display.Pick,
) -> None:
    """Draw the ingredients of the table, and let the user brush their columns.

    Args:
        view: The view.
        table: The table.
        rows: The rows that match the filter.
        columns: The visible columns of the table.
        score: The column that colours the lines; "" for none.
        on_pick: Called with the points that the user clicks.
    """
    kinds = dict(zip(table.names, table.values(KIND), strict=True))
    is_run = [kind == "ingredient" for kind in kinds.values()]
    runs = table.frame[is_run].set_index(NAME)
    score = score if score and runs[score].notna().any() else ""  # all may be undefined
    titles, remark = _titles(table, runs, columns, score)
    if len(titles) < 2:
        return
    drawn = table.frame.set_index(NAME)
    drawn = pd.DataFrame({t: _plain_numbers(drawn[t]) for t in titles}, index=drawn.index)
    better = table.columns[score].better if score else 0
    axes = axes_of(drawn, titles, {score: better})
    matching = {*rows}
    active = [name for row, name in enumerate(table.names) if row in matching]
    selected = st.session_state["selection"]
    brushed = _brushed(table, titles)
    options: dict[str, Any] = {
        "score": score, "better": better, "active": active, "selected": selected,
        "brushed": brushed,
        "kinds": {name: kind for name, kind in kinds.items() if kind != "ingredient"},
    }  # fmt: skip
    figure = figures.parallel_coordinates(drawn, titles, **options)
    code = snippets.parallel(view, drawn, titles, options)

    def apply(changes: _Brushes) -> None:
        _apply(table, view.folder, changes)

    st.subheader("Parallel coordinates")
    display.show_figure(
        figure,
        _PARALLEL,
        drawn,
        code,
        on_pick=on_pick,
        title="Parallel coordinates",
        about=exports.measured_on(view),
        on_box=lambda box: apply(brushes(axes, box["x"], box["y"])),
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Clear brushes",
            icon=":material/filter_alt_off:",
            disabled=not brushed,
            on_click=lambda: apply(dict.fromkeys(brushed)),
        )
        with st.popover("Set a range", icon=":material/tune:"):
            _range(axes, brushed, apply)
        st.caption(
            "Drag across an axis to filter and select; the range becomes part of the filter. "
            "Click a point to select its ingredient. The base (■) and soups (★) only have a score. "
            f"{remark}"
        )


def _choose(label: str, name: str, titles: Sequence[str], default: str) -> str:
    """Let the user choose a column; the URL holds it under the name if it is not the default."""
    session = st.session_state
    current = session.get(name) if session.get(name) in titles else default
    chosen: str = st.selectbox(
        label,
        titles,
        index=titles.index(current),
        format_func=lambda title: title or "as in the other figures",
        width=240,
        key=f"columns-{name}-{current}",
    )
    session[name] = chosen if chosen != default else ""
    return chosen


def _importance(
    view: View, table: RunTable, rows: Sequence[int], hyperparameters: Sequence[str], y: str
) -> None:
    """Show how much of a column each hyperparameter explains by itself."""
    kinds = table.values(KIND)
    runs = [row for row in rows if kinds[row] == "ingredient"]
    columns = {
        title: [values[row] for row in runs]
        for title in hyperparameters
        for values in [table.values(title)]
    }
    of_rows = table.values(y)
    scores = [of_rows[row] for row in runs]
    found = marginal_importance(columns, scores)
    if not found:
        return
    st.markdown("**Marginal importance of hyperparameters**")
    numbers = pd.DataFrame.from_dict(
        {name: asdict(each) for name, each in found.items()}, orient="index"
    ).rename_axis("hyperparameter")
    code = snippets.importance(view, columns, scores, y)
    display.show_figure(
        figures.importance_bars(found, score_name=y),
        "importance",
        numbers,
        code,
        title=f"Marginal importance for {y}",
        about=exports.measured_on(view),
    )
    st.caption(
        f"Share of the variance of the ranks of {plain(y)} that each hyperparameter explains by "
        "itself, adjusted for the number of runs, with Spearman's ρ for numbers. "
        "Marginal: it misses interactions and an optimum in the middle of a range."
    )


def _titles(
    table: RunTable, drawn: pd.DataFrame, columns: Sequence[str], score: str
) -> tuple[list[str], str]:
    """Return the columns with an axis, the score last, and a sentence on those without room."""
    titles = [
        title
        for title in columns
        if (table.columns[title].is_of_runs or title == BASIN)
        and title != score
        and drawn[title].nunique() > 1
        and (table.columns[title].form != "text" or drawn[title].nunique() <= MOST_CATEGORIES)
    ]
    room = _MOST_AXES - bool(score)
    left = len(titles) - room
    remark = f"{left} more columns have no room; hide others to see them." if left > 0 else ""
    return [*titles[:room], *([score] if score else [])], remark


def _brushed(table: RunTable, titles: Sequence[str]) -> dict[str, Limits | tuple[str, ...]]:
    try:
        found = limits(controls.setting("filter"), controls.filtered(table))
    except FilterError:  # shown above the table
        return {}
    return {title: limit for title, limit in found.items() if title in titles}


def _apply(table: RunTable, folder: str, changes: _Brushes) -> None:
    """Change the filter, and select the ingredients that match it."""
    columns = controls.filtered(table)
    try:
        try:
            text = with_limits(controls.setting("filter"), changes, columns)
        except FilterError:  # it is not applied, so brushes replace it
            text = with_limits("", changes, columns)
    except FilterError as error:
        st.toast(plain(str(error)), icon=":material/error:")
        return
    controls.set_filter(folder, text)
    display.renew_clicks(_PARALLEL)
    kinds, names = table.values(KIND), table.names
    matching = matching_rows(text, columns)
    is_brushed = any(limit is not None for limit in changes.values()) or limits(text, columns)
    state.select(names[row] for row in matching if is_brushed and kinds[row] == "ingredient")


def _range(
    axes: Sequence[Axis],
    brushed: Mapping[str, Limits | Sequence[str]],
    apply: Callable[[_Brushes], None],
) -> None:
    """Let the user set the range of an axis by keyboard."""
    by_title = {axis.title: axis for axis in axes}
    axis = by_title[st.selectbox("Axis", list(by_title), key="parallel-axis")]
    now = brushed.get(axis.title)
    key = f"range-{crc32(repr((axis, now)).encode(errors='backslashreplace'))}"
    if axis.categories:
        given = {text.casefold() for text in now or ()} if not isinstance(now, Limits) else set()
        chosen = [text for text in axis.categories if not given or text.casefold() in given]

        def take_texts() -> None:
            texts = st.session_state[key]
            everything = not texts or len(texts) == len(axis.categories)
            apply({axis.title: None if everything else texts})

        st.multiselect("Values", axis.categories, chosen, key=key, on_change=take_texts)
        return
    low, high = now if isinstance(now, Limits) else Limits()
    inside = [number for number in axis.numbers if low <= number <= high] or axis.numbers

    def take_range() -> None:
        start, end = st.session_state[key]
        apply(
            {
                axis.title: None
                if (start, end) == (axis.numbers[0], axis.numbers[-1])
                else Limits(
                    start if start > axis.numbers[0] else Limits().low,
                    end if end < axis.numbers[-1] else Limits().high,
                )
            }
        )

    st.select_slider(
        "Range", list(axis.numbers), (inside[0], inside[-1]), format_func=number_text, key=key,
        on_change=take_range,
    )  # fmt: skip


def _plain_numbers(column: "pd.Series[float]") -> "pd.Series[float]":
    """Return numbers as floats, so that a missing one is NaN."""
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return column.astype(float) if is_number else column
