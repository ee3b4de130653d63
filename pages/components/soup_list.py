"""The soups that were built: a list, and one of them in full."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import (
    annotating,
    builder,
    differences,
    display,
    scores,
    snippets,
    state,
)
from pages.components.display import plain
from pages.components.state import View
from soupcore import RECIPES, Soup, escaping, figures
from soupcore.annotations import delete_soup, restore_soup
from soupcore.figures.tables import coefficients_table
from soupcore.overview import Overview, members, title
from soupcore.stored_soups import StoredSoup, StoredSoups
from soupcore.tasks.unit import UNKNOWN


def show(view: View, stored: Sequence[StoredSoup]) -> None:
    """Show the list, the chosen soup, and the deleted ones."""
    _undo(view)
    if not stored:
        st.info("No soups yet. Build one in the **Build** tab.", icon=":material/soup_kitchen:")
    else:
        known = Overview(view.context, stored) if view.has_task else None
        chosen = _table(view, stored, known)
        if chosen is not None:
            _show_soup(view, stored, chosen, known)
    _deleted(view)


def _table(view: View, stored: Sequence[StoredSoup], known: Overview | None) -> StoredSoup | None:
    """Show the soups, the best on the select split first; return the chosen one."""
    ordered = _ordered(view, stored, known)
    rows = [_row(view, soup, known) for soup in ordered]
    ids = [soup.soup.id for soup in ordered]
    current = st.session_state["soup"] if st.session_state["soup"] in ids else ids[0]
    key = display.tick_rows("soup-list", ids, [current])
    st.dataframe(
        pd.DataFrame(rows),
        key=key,
        on_select=lambda: _choose(key, ids),
        selection_mode="single-row",
        hide_index=True,
        height=min(38 + 35 * len(rows), 400),
        placeholder=UNKNOWN,
        column_config={
            "★": st.column_config.TextColumn(width=30),
            "name": st.column_config.TextColumn(pinned=True, width=220),
            "built": st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm"),
        },
    )
    if known is not None:
        st.caption(
            "Best on validation first. Tick a row to see the soup below. Δ is the paired "
            f"difference from the best run{f', {plain(known.best)}' if known.best else ''}."
        )
    return next(soup for soup in stored if soup.soup.id == current)


def _choose(key: str, ids: Sequence[str]) -> None:
    if rows := st.session_state[key]["selection"]["rows"]:
        st.session_state["soup"] = ids[rows[0]]


def _ordered(view: View, stored: Sequence[StoredSoup], known: Overview | None) -> list[StoredSoup]:
    if known is None:
        return sorted(stored, key=lambda soup: -soup.created)
    found = {i: by_split[view.task.select] for i, by_split in known.of_soups.items()}
    scored = {i: each.score for i, each in found.items() if each and each.score == each.score}
    return sorted(stored, key=lambda soup: -scored.get(soup.soup.id, -float("inf")))


def _row(view: View, stored: StoredSoup, known: Overview | None) -> dict[str, Any]:
    soup = stored.soup
    row: dict[str, Any] = {
        "★": "★" if stored.annotation.starred else "",
        "name": stored.label,
        "recipe": title(soup),
        "ingredients": len(members(soup)),
    }
    if known is not None:
        unit, by_split = view.task.score_unit, known.of_soups[soup.id]
        for name, split in (("validation", view.task.select), ("test", known.report)):
            if split is not None:
                found = by_split[split]
                row[unit.label(name)] = unit.number(found.score if found else None)
        split = known.report or view.task.select
        gain = known.gain(soup.id, split)
        where = "test" if known.report else "validation"
        row[unit.difference_label(f"Δ {where}")] = unit.difference(
            gain.difference if gain else None
        )
        row["95% CI"] = unit.difference_interval(gain.interval if gain else None)
    row["tags"] = ", ".join(stored.annotation.tags)
    row["built"] = datetime.fromtimestamp(stored.created).astimezone()
    return row


def _show_soup(
    view: View, stored: Sequence[StoredSoup], chosen: StoredSoup, known: Overview | None
) -> None:
    """Show a soup: its name and note, its coefficients, its evidence, and the ways on."""
    soup, said = chosen.soup, chosen.annotation
    with st.container(border=True, key="soup-panel"):
        st.subheader(plain(chosen.label))
        st.caption(f"{_made(soup)} · soup {escaping.code(soup.id)}")
        show_ways_on(view, chosen, key="panel", again=True)
        with st.container(width=480):
            annotating.show_name(soup.id, chosen.label, said.name, key="panel")
        tags = {tag for each in stored for tag in each.annotation.tags}
        annotating.show_note_and_tags(soup.id, known=tags)
        for note in soup.notes:
            st.caption(plain(note))
        scores.show_shortfall(view, [chosen])
        left, right = st.columns([2, 3])
        with left:
            _coefficients(view, chosen)
        with right:
            _evidence(view, chosen, known)


def _made(soup: Soup) -> str:
    """Return the recipe and its parameters that are not the default, as Markdown."""
    recipe = RECIPES.get(soup.recipe)
    if recipe is None:
        return title(soup)
    changed = [
        f"{each.label} {soup.parameters[each.name]}"
        for each in recipe.parameters
        if each.name in soup.parameters and soup.parameters[each.name] != each.default
    ]
    return f"{title(soup)} · {plain(', '.join(changed) or 'default parameters')}"


def _coefficients(view: View, chosen: StoredSoup) -> None:
    st.markdown("##### Coefficients")
    table = coefficients_table(chosen.soup)
    if table.empty:
        st.caption(f"{plain(scores.describe(chosen.soup))}: no single coefficient per ingredient.")
        return
    # Soups among the ingredients have no colour of their own.
    figure = figures.coefficient_bars(table, view.colours)
    code = snippets.coefficients(view, chosen)
    display.show_figure(
        figure, "coefficients", table, code, title=f"Coefficients of {chosen.label}"
    )


def _evidence(view: View, chosen: StoredSoup, known: Overview | None) -> None:
    st.markdown("##### Evidence")
    if known is None:
        st.caption("Without a task, nothing is evaluated.")
        return
    origin = known.runs[known.best] if known.best else None
    differences.show(view, known.of_soups[chosen.soup.id], known.best, origin)
    scores.offer_evaluation(view, chosen, key="panel")


def show_ways_on(view: View, chosen: StoredSoup, *, key: str, again: bool = False) -> None:
    """Show the buttons that lead on from a soup.

    Args:
        view: The view.
        chosen: The soup.
        key: Distinguishes several rows of buttons for the same soup on a page.
        again: Whether to offer a star, building again and deletion.
    """
    soup = chosen.soup
    with st.container(horizontal=True):
        if view.has_task and st.button(
            "Compare", icon=":material/compare_arrows:", key=f"{key}-compare"
        ):
            st.session_state["soup"] = soup.id
            rows = [name for name in st.session_state["compare"] if name != chosen.handle]
            st.session_state["compare"] = [chosen.handle, *rows][:6]
            st.switch_page("compare.py")
        if view.has_task and st.button("Evidence", icon=":material/balance:", key=f"{key}-proof"):
            st.session_state["soup"] = soup.id
            st.switch_page("evidence.py")
        if st.button("Download", icon=":material/download:", key=f"{key}-download"):
            st.session_state["soup"] = soup.id
            st.switch_page("download.py")
        if again:
            annotating.show_star(soup.id, starred=chosen.annotation.starred)
            st.button(
                "Build again with…",
                icon=":material/replay:",
                help="Fills the form of the Build tab with this soup's recipe and candidates.",
                on_click=_again,
                args=(view, chosen),
            )
            st.button(
                "Delete",
                icon=":material/delete:",
                disabled=state.store().is_read_only,
                on_click=_delete,
                args=(chosen,),
            )


def _again(view: View, chosen: StoredSoup) -> None:
    soup = chosen.soup
    ids = {name: stored.soup.id for name, stored in chosen.soups.items()}
    names: list[str] = soup.ingredients
    if soup.trace:
        tried = scores.candidates(view, chosen)
        names = tried["names"]
        ids |= tried.get("soups", {})
    files = [name for name in names if name not in ids]
    builder.fill(soup.recipe, soup.parameters, files, [ids[n] for n in names if n in ids])
    st.session_state["soups-tab"] = "Build"


def _delete(chosen: StoredSoup) -> None:
    delete_soup(state.store(), chosen.soup.id)
    st.session_state.update({"soup": "", "deleted": (chosen.soup.id, chosen.label)})


def _restore(soup_id: str) -> None:
    restore_soup(state.store(), soup_id)
    st.session_state["soup"] = soup_id
    st.session_state.pop("deleted", None)


def _undo(view: View) -> None:
    """Offer to undo the last deletion of this session."""
    soup_id, label = st.session_state.get("deleted", ("", ""))
    if soup_id not in StoredSoups(state.store(), view.sweep).deleted(view.folder):
        return
    with st.container(horizontal=True, vertical_alignment="center", key="undo-deletion"):
        st.markdown(f":material/delete: **{plain(label)}** was deleted.")
        st.button(
            "Undo", icon=":material/undo:", key="undo", on_click=_restore, args=(soup_id,),
            disabled=state.store().is_read_only,
        )  # fmt: skip


def _deleted(view: View) -> None:
    gone = StoredSoups(state.store(), view.sweep).deleted(view.folder)
    if not gone:
        return
    with st.expander(f"Deleted soups ({len(gone)})", icon=":material/delete:"):
        st.caption("Their evaluations are kept.")
        for soup_id, name in gone.items():
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"{plain(name)} · {escaping.code(soup_id)}")
                st.button(
                    "Restore", key=f"restore-{soup_id}", on_click=_restore, args=(soup_id,),
                    type="tertiary", disabled=state.store().is_read_only,
                )  # fmt: skip
