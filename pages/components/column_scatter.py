"""Any column of the run table against any other, coloured by a third."""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd
import streamlit as st

from pages.components import display, exports, results, snippets
from pages.components.display import plain
from pages.components.run_table import INK, KIND, NAME, RunTable
from pages.components.state import View
from soupcore import figures
from soupcore.analysis import marginal_importance

_SKIPPED = (INK, NAME, "hash", "status")


def show(view: View, table: RunTable, rows: Sequence[int], on_pick: display.Pick) -> None:
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
        rates = results.learning_rates(varying)
        x = _choose("Horizontal", "x", titles, (rates or varying)[0])
        ranked = [t for t in numbers if t == table.ranked_by]  # absent if all are undefined
        y = _choose(
            "Vertical", "y", titles, [*ranked, *(t for t in numbers if t != x), *numbers][0]
        )
        colour = _choose("Colour", "colour", ["", *titles], "")
    drawn = table.frame.iloc[list(rows)].set_index(NAME)
    drawn = drawn[[title for title in dict.fromkeys([KIND, x, y, colour]) if title]]
    drawn = pd.DataFrame({t: plain_numbers(drawn[t]) for t in drawn.columns}, index=drawn.index)
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


def _choose(label: str, name: str, titles: Sequence[str], default: str) -> str:
    """Let the user choose a column; the URL holds it under the name if it is not the default."""
    state = st.session_state
    current = state.get(name) if state.get(name) in titles else default
    chosen: str = st.selectbox(
        label,
        titles,
        index=titles.index(current),
        format_func=lambda title: title or "as in the other figures",
        width=240,
        key=f"columns-{name}-{current}",
    )
    state[name] = chosen if chosen != default else ""
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


def plain_numbers(column: "pd.Series[float]") -> "pd.Series[float]":
    """Return numbers as floats, so that a missing one is NaN."""
    is_number = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return column.astype(float) if is_number else column
