"""Filter, order, baseline and columns of the run table, which the URL stores."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import streamlit as st

from pages.components.choices import choose_option, choose_word
from pages.components.display import plain
from pages.components.run_table import INK, NAME, RunTable
from soupcore.row_filter import FilterError, matching_rows

_ORDERS = {"ascending": "↑ ascending", "descending": "↓ descending"}
_HELP = (
    "Examples: `lr < 0.02`, `kind = soup`, `optimizer = adamw and test > 80`, or a part of a "
    "name. Operators: `=`, `!=`, `<`, `<=`, `>`, `>=` and `~` (contains), joined by `and` and "
    "`or`. `|` separates alternatives: `optimizer = sgd | adamw`. Column names can be abbreviated; "
    "quote names that contain operators."
)


def setting(name: str, default: Any = "") -> Any:
    """Return a setting of the table from the session."""
    return st.session_state.get(name, default)


def choose_filter(folder: str) -> str:
    """Let the user write a filter; return it."""
    key = _filter_key(folder)
    st.session_state.setdefault(key, setting("filter"))  # it is forgotten on other pages
    text = st.text_input(
        "Filter",
        placeholder="Filter: lr < 0.02 and kind = ingredient",
        help=_HELP,
        label_visibility="collapsed",
        width=260,
        key=key,
    )
    st.session_state["filter"] = (text or "").strip()
    return str(st.session_state["filter"])


def set_filter(folder: str, text: str) -> None:
    """Replace the filter; call it from a callback."""
    st.session_state.update({"filter": text, _filter_key(folder): text})


def _filter_key(folder: str) -> str:
    return f"filter-{folder}"


def choose_baseline(names: Sequence[str], best: str | None, folder: str) -> str:
    """Let the user pin the row that differences are relative to; return its name, "" for the best.

    Args:
        names: The names of all rows.
        best: The best ingredient on the select split; None if none is evaluated.
        folder: The folder of the sweep.
    """
    chosen = choose_option(
        "Baseline",
        names,
        setting("baseline"),
        text=lambda name: f"Baseline: {name or (f'best, {best}' if best else 'best ingredient')}",
        width=225,
        key=f"baseline-{folder}",
    )
    st.session_state["baseline"] = chosen
    return chosen


def choose_order(table: RunTable, folder: str, fallback: tuple[str, bool] | None) -> list[int]:
    """Let the user choose the column that sorts the rows; return all rows in that order.

    Args:
        table: The table.
        folder: The folder of the sweep.
        fallback: The default order, as a column and whether it is descending; None for the order
            of the sweep.
    """
    titles = [title for title in table.columns if title != INK]
    current = setting("sort")
    current = current if current in titles else ""
    first = "Best first" if table.ranked_by else "Order of the sweep"
    default_name = f"Sort by {fallback[0]}" if fallback and not table.ranked_by else first
    chosen = choose_option(
        "Sort by",
        titles,
        current,
        text=lambda title: f"Sort by {title}" if title else default_name,
        width=190,
        key=f"sort-{folder}",
    )
    if chosen != current:
        st.session_state.update(sort=chosen, order="")
    rows = range(len(table.frame))
    if not chosen:
        if fallback is None:
            return table.order(rows, NAME, descending=False)
        return table.order(rows, fallback[0], descending=fallback[1])
    default = "ascending" if table.columns[chosen].is_lower_first else "descending"
    order = setting("order")
    order = order if order in _ORDERS else default
    picked = choose_word("Order", _ORDERS, order, f"order-{folder}-{chosen}")
    if picked != order:
        st.session_state["order"] = picked
    return table.order(rows, chosen, descending=picked == "descending")


def choose_columns(table: RunTable, folder: str) -> list[str]:
    """Let the user hide, show and order columns; return the titles of the visible ones in order."""
    titles = [title for title in table.columns if title not in (INK, NAME)]
    default = [title for title in titles if table.columns[title].is_shown]
    hidden, shown = set(setting("hide", [])), set(setting("show", []))
    current = [t for t in titles if (t in default or t in shown) and t not in hidden]
    with st.popover("Columns", icon=":material/view_column:"):
        chosen = st.multiselect(
            "Columns",
            titles,
            default=current,
            key=f"columns-{folder}-{crc32(repr((titles, default)).encode())}",
        )
        first = st.multiselect(
            "First columns",
            titles,
            default=[title for title in setting("first", []) if title in titles],
            help="These columns come first, in the order in which you choose them.",
            key=f"first-{folder}-{crc32(repr(titles).encode())}",
        )
        st.caption(
            "Constant hyperparameters and individual shifted splits are hidden by default. The URL "
            "stores your choice."
        )
    st.session_state["first"] = first
    if set(chosen) != set(current):
        unknown = [title for title in setting("hide", []) if title not in titles]
        st.session_state["hide"] = [*unknown, *(t for t in default if t not in chosen)]
        st.session_state["show"] = [t for t in titles if t in chosen and t not in default]
    ordered = dict.fromkeys([*first, *titles])
    return [INK, NAME, *(title for title in ordered if title in chosen)]


def filtered(table: RunTable) -> dict[str, list[Any]]:
    """Return the columns that filters can name."""
    return {title: table.values(title) for title in table.columns if title != INK}


def matching(table: RunTable, text: str) -> set[int]:
    """Return the rows that satisfy a filter; all rows, with a warning, if the filter is invalid."""
    try:
        return set(matching_rows(text, filtered(table)))
    except FilterError as error:
        st.warning(f"The filter is not applied. {plain(str(error))}", icon=":material/filter_alt:")
        return set(range(len(table.frame)))
