"""The ingredients of the run table by the values of one column: counts, best and mean scores."""

import math
from collections.abc import Sequence

import streamlit as st

from pages.components import display, exports, state
from pages.components import table_controls as controls
from pages.components.choices import choose_option
from pages.components.display import plain
from pages.components.run_cells import number_text
from pages.components.run_table import BASIN, KIND, RunTable
from soupcore.figures.tables import groups_table
from soupcore.tasks.unit import UNKNOWN

_MOST = 30  # groups


def choose(table: RunTable, folder: str) -> str:
    """Let the user choose the column to group by; return it, "" for none."""
    titles = _columns(table)
    if not titles:
        return ""
    chosen = choose_option(
        "Group by",
        titles,
        controls.setting("group"),
        text=lambda title: f"Group by {title}" if title else "No groups",
        width=160,
        key=f"group-{folder}",
    )
    st.session_state["group"] = chosen
    return chosen


def show(table: RunTable, rows: Sequence[int], column: str, score: str) -> None:
    """Show one row per group; ticking a group selects its ingredients.

    Args:
        table: The run table.
        rows: The rows that match the filter.
        column: The column to group by.
        score: The column of the scores; "" for none.
    """
    kinds, values = table.values(KIND), table.values(column)
    rows = [row for row in sorted(rows) if kinds[row] == "ingredient"]
    if not rows:
        return
    labels = [_text(values[row]) for row in rows]
    names = [table.names[row] for row in rows]
    known = table.values(score) if score else []
    scores = [math.nan if known[row] is None else float(known[row]) for row in rows if score]
    better = table.columns[score].better if score else 0
    groups = groups_table(dict(zip(names, labels, strict=True)), scores, better)
    members = {
        label: [name for name, own in zip(names, labels, strict=True) if own == label]
        for label in groups.index
    }
    selected = set(st.session_state["selection"])
    whole = [label for label, own in members.items() if selected.issuperset(own)]
    key = display.tick_rows("groups-table", list(members), whole)

    def take() -> None:
        ticked = {list(members)[row] for row in st.session_state[key]["selection"]["rows"]}
        chosen = set(st.session_state["selection"])
        for label, own in members.items():
            if label in ticked:
                chosen.update(own)
            elif label in whole:
                chosen.difference_update(own)
        state.select([n for n in st.session_state["view"].sweep.ingredients if n in chosen])

    decimals = table.columns[score].decimals if score else None
    digits = 4 if decimals is None else decimals
    shown = groups.rename_axis(column).reset_index()
    numbers = [title for title in ("best", "mean", "SD", "worst") if title in shown]
    st.dataframe(
        shown.style.format(dict.fromkeys(numbers, f"{{:.{digits}f}}"), na_rep=UNKNOWN),
        key=key,
        on_select=take,
        selection_mode="multi-row",
        hide_index=True,
        height=min(38 + 35 * len(shown), 320),
    )
    told = f": best, mean, standard deviation and worst of {plain(score)}" if score else ""
    st.caption(
        f"Ingredients that match the filter, by {plain(column)}{told}. Tick a group to select its "
        "ingredients."
    )
    exports.show_rows(shown, "groups", decimals=dict.fromkeys(numbers, digits))


def _columns(table: RunTable) -> list[str]:
    """Return the columns with a few values each of which several ingredients may have."""
    ingredients = table.frame[table.frame[KIND] == "ingredient"]
    return [
        title
        for title, column in table.columns.items()
        if (column.is_of_runs or title in (BASIN, "tags"))
        and column.better == 0
        and 1 < ingredients[title].nunique() <= min(_MOST, len(ingredients) - 1)
    ]


def _text(value: object) -> str:
    if value is None:
        return UNKNOWN
    return value if isinstance(value, str) else number_text(value)
