"""The run table's filter, order, columns and groups, which the URL stores, and a row's details."""

import math
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import pandas as pd
import streamlit as st
from pandas.io.formats.style import Styler

from pages.components import (
    comparison,
    display,
    exports,
    jobs,
    scores,
    snippets,
    soup_links,
    state,
)
from pages.components.display import choose_option, choose_word, plain
from pages.components.run_table import BASIN, INK, KIND, NAME, RunTable, number_text
from pages.components.state import View
from soupcore import Sweep, escaping
from soupcore.calls import Breakdown
from soupcore.calls.connectivity import End
from soupcore.figures.tables import groups_table
from soupcore.row_filter import FilterError, matching_rows
from soupcore.stored_soups import recipe_title
from soupcore.tasks import MetricInfo, Unit
from soupcore.tasks.unit import UNKNOWN

_ORDERS = {"ascending": "↑ ascending", "descending": "↓ descending"}
_DIRECTIONS = {"lower": "lower is better", "higher": "higher is better"}
_MOST_GROUPS = 30
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
    st.session_state.setdefault(key, setting("filter"))  # Streamlit removes it on other pages
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


def choose_ranking(sweep: Sweep, folder: str) -> str | None:
    """Let the user choose the ranking metric and its direction; return the metric."""
    known = scores.logged_metrics(sweep)
    if not known:
        return None
    current = scores.ranking_metric(sweep) or ""
    metric = choose_option(
        "Rank by",
        known,
        current,
        text=lambda name: f"Rank by {scores.logged_title(name)}" if name else "Order by name",
        width=280,
        key=f"order-{folder}",
    )
    if metric != current:
        st.session_state.update(rank=metric, better="")
    if not metric:
        return None
    current = "lower" if scores.lower_is_better(metric) else "higher"
    better = choose_word("Direction", _DIRECTIONS, current, f"better-{folder}-{metric}")
    if better != current:
        st.session_state["better"] = better
    return metric


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


def choose_groups(table: RunTable, folder: str) -> str:
    """Let the user choose the column to group by; return it, "" for none."""
    titles = _group_columns(table)
    if not titles:
        return ""
    chosen = choose_option(
        "Group by",
        titles,
        setting("group"),
        text=lambda title: f"Group by {title}" if title else "No groups",
        width=160,
        key=f"group-{folder}",
    )
    st.session_state["group"] = chosen
    return chosen


def show_groups(table: RunTable, rows: Sequence[int], column: str, score: str) -> None:
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
    labels = [_group_text(values[row]) for row in rows]
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
    about = f": best, mean, standard deviation and worst of {plain(score)}" if score else ""
    st.caption(
        f"Ingredients that match the filter, by {plain(column)}{about}. Tick a group to select its "
        "ingredients."
    )
    exports.show_rows(shown, "groups", decimals=dict.fromkeys(numbers, digits))


def show_row(view: View, table: RunTable) -> None:
    """Let the user choose a row, and show its details."""
    names = table.names
    selected = [name for name in st.session_state["selection"] if name in names]
    default = selected[-1] if selected else table.headline or table.baseline or names[0]
    clicked = st.session_state.get("detail")
    default = clicked if clicked in names else default
    details = st.expander(
        "Details of a row", icon=":material/info:", key="row-detail", on_change="rerun"
    )
    if not details.open:
        return
    with details:
        name = st.selectbox(
            "Row", names, index=names.index(default), width=360, key=f"detail-{default}"
        )
        st.markdown("  \n".join(_facts(view, table, name)))
        if view.has_task:
            baseline = table.baseline if table.baseline != name else None
            origin = table.evaluations[baseline] if baseline else None
            comparison.show_differences(view, table.evaluations[name], baseline, origin)
            _breakdown(view, table, name)
        soup = table.soups.get(name)
        subject = soup.soup.id if soup else view.sweep[name].digest
        soup_links.show_note_and_tags(subject, known=table.tags)


def _filter_key(folder: str) -> str:
    return f"filter-{folder}"


def _group_columns(table: RunTable) -> list[str]:
    """Return the columns of ingredients that have few distinct values."""
    ingredients = table.frame[table.frame[KIND] == "ingredient"]
    return [
        title
        for title, column in table.columns.items()
        if (column.is_of_runs or title in (BASIN, "tags"))
        and column.better == 0
        and 1 < ingredients[title].nunique() <= min(_MOST_GROUPS, len(ingredients) - 1)
    ]


def _group_text(value: object) -> str:
    if value is None:
        return UNKNOWN
    return value if isinstance(value, str) else number_text(value)


def _facts(view: View, table: RunTable, name: str) -> list[str]:
    if name in table.soups:
        stored = table.soups[name]
        primary = stored.soup.primary
        return [
            f"**{plain(stored.label)}**, soup {escaping.code(stored.soup.id)}, recipe "
            f"{plain(recipe_title(stored.soup.recipe))}",
            f"Composition: {plain(scores.describe(stored.soup))}",
            *([] if primary is None else [f"Chosen by {plain(primary)}"]),
        ]
    ingredient = view.sweep[name]
    kind = "ingredient" if name in view.sweep.ingredients else "base"
    return [
        f"**{plain(name)}**, {kind}",
        f"File: {escaping.code(str(ingredient.checkpoint.path))}",
        f"Digest: {escaping.code(ingredient.digest)}",
    ]


def _breakdown(view: View, table: RunTable, name: str) -> None:
    """Show the score of each class and of each group of examples, if there are any."""
    evaluated = [split for split, found in table.evaluations[name].items() if found is not None]
    kinds = {"class": view.task.is_classification, "group": view.task.has_groups}
    which = " and ".join(kind for kind, is_there in kinds.items() if is_there)
    if not which or not evaluated or not st.toggle(f"Scores by {which}", key="detail-breakdown"):
        return
    reports = [split for split in view.task.splits_with_role("report") if split in evaluated]
    first = (reports or evaluated)[0]
    split = st.selectbox(
        "Split",
        evaluated,
        index=evaluated.index(first),
        format_func=view.task.split_title,
        width=200,
        key=f"detail-split-{name}",
    )
    model: End = {"soup": table.soups[name].soup.id} if name in table.soups else name
    call = Breakdown(model, split)
    found = jobs.derived(view, call, f"Scores of {name} by {which}", key="breakdown")
    if found is None:
        return
    score = MetricInfo.from_json(found["score"])
    with st.container(horizontal=True, vertical_alignment="top"):
        for kind, rows in (("class", found["classes"]), ("group", found["groups"])):
            if rows:
                shown = _of_parts(kind, rows, score.name, score.written)
                st.dataframe(shown, hide_index=True, width=420, key=f"detail-{kind}")
    st.caption(
        f"Mean {plain(score.name)} of the examples of each {which} on {plain(split)}, with its "
        "95 % interval. Intervals of small classes and groups are wide."
    )
    snippets.show(call.script(view))


def _of_parts(kind: str, rows: list[list[Any]], score: str, unit: Unit) -> Styler:
    """Return a table of classes or groups with their scores."""
    title = unit.label(score)
    table = pd.DataFrame(
        [
            {
                kind: name,
                "n": n,
                title: None if mean is None else mean * unit.factor,
                "95% CI": UNKNOWN if low is None else f"{unit.number(low)} to {unit.number(high)}",
            }
            for name, n, mean, low, high in rows
        ]
    )
    return table.astype({title: float}).style.format({title: unit.cell})
