"""The rows of the run table as parallel coordinates; brushes are conditions of the filter."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from zlib import crc32

import pandas as pd
import streamlit as st

from pages.components import display, exports, snippets, state
from pages.components import table_controls as controls
from pages.components.column_scatter import plain_numbers
from pages.components.display import plain
from pages.components.run_cells import number_text
from pages.components.run_table import BASIN, KIND, NAME, RunTable
from pages.components.state import View
from soupcore import figures
from soupcore.figures.parallel import MOST_CATEGORIES, Axis, axes_of, brushes
from soupcore.row_filter import FilterError, Limits, limits, matching_rows, with_limits

_KEY = "parallel"
_MOST = 12  # axes that have room for their ticks

Brushes = Mapping[str, Limits | Sequence[str] | None]


def show(
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
    titles, left = _titles(table, runs, columns, score)
    if len(titles) < 2:
        return
    drawn = table.frame.set_index(NAME)
    drawn = pd.DataFrame({t: plain_numbers(drawn[t]) for t in titles}, index=drawn.index)
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

    def apply(changes: Brushes) -> None:
        _apply(table, view.folder, changes)

    st.subheader("Parallel coordinates")
    display.show_figure(
        figure,
        _KEY,
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
            f"{left}"
        )


def _titles(
    table: RunTable, drawn: pd.DataFrame, columns: Sequence[str], score: str
) -> tuple[list[str], str]:
    """Return the columns with an axis, the score last, and a sentence on those without one."""
    titles = [
        title
        for title in columns
        if (table.columns[title].is_of_runs or title == BASIN)
        and title != score
        and drawn[title].nunique() > 1
        and (table.columns[title].form != "text" or drawn[title].nunique() <= MOST_CATEGORIES)
    ]
    room = _MOST - bool(score)
    left = len(titles) - room
    told = f"{left} more columns have no room; hide others to see them." if left > 0 else ""
    return [*titles[:room], *([score] if score else [])], told


def _brushed(table: RunTable, titles: Sequence[str]) -> dict[str, Limits | tuple[str, ...]]:
    try:
        found = limits(controls.setting("filter"), controls.filtered(table))
    except FilterError:  # shown above the table
        return {}
    return {title: limit for title, limit in found.items() if title in titles}


def _apply(table: RunTable, folder: str, changes: Brushes) -> None:
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
    display.renew_clicks(_KEY)
    kinds, names = table.values(KIND), table.names
    matching = matching_rows(text, columns)
    is_brushed = any(limit is not None for limit in changes.values()) or limits(text, columns)
    state.select(names[row] for row in matching if is_brushed and kinds[row] == "ingredient")


def _range(
    axes: Sequence[Axis],
    brushed: Mapping[str, Limits | Sequence[str]],
    apply: Callable[[Brushes], None],
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
