"""The soups that were built, and the deleted ones."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import scores, soup_links, state
from pages.components.display import plain
from pages.components.state import View
from soupcore import escaping
from soupcore.overview import Overview, members, title
from soupcore.store.soups import restore_soup
from soupcore.stored_soups import StoredSoup, StoredSoups
from soupcore.tasks.unit import UNKNOWN


def show(view: View, stored: Sequence[StoredSoup]) -> None:
    """Show the list, and the deleted soups."""
    _undo(view)
    if not stored:
        st.info("No soups yet. Build one in the **Build** tab.", icon=":material/soup_kitchen:")
    else:
        _table(view, stored)
    _deleted(view)


def _table(view: View, stored: Sequence[StoredSoup]) -> None:
    """Show the soups, the best on the select split first."""
    known = Overview(view.context, stored) if view.has_task else None
    ordered = _ordered(view, stored, known)
    st.dataframe(
        pd.DataFrame([_row(view, soup, known) for soup in ordered]),
        hide_index=True,
        height=min(38 + 35 * len(ordered), 560),
        placeholder=UNKNOWN,
        column_config={
            "★": st.column_config.TextColumn(width=30),
            "name": soup_links.names_column(
                "soup-list",
                [soup.label for soup in ordered],
                {soup.label: soup for soup in ordered},
                width=220,
            ),
            "built": st.column_config.DatetimeColumn(format="D MMM YYYY, HH:mm"),
        },
    )
    text = "Click a name to open the soup: its composition, scores, evidence and download."
    if known is not None:
        best = f", {plain(known.best)}" if known.best else ""
        text = (
            f"Best on validation first. {text} Δ is the paired difference from the best run{best}."
        )
    st.caption(text)


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
        "name": soup_links.cell_text(stored.label),
        "recipe": title(soup),
        "ingredients": len(members(soup)),
    }
    if known is not None:
        unit, by_split = view.task.score_unit, known.of_soups[soup.id]
        for name, split in (("validation", view.task.select), ("test", known.report)):
            if split is not None:
                row[unit.label(name)] = scores.with_interval(unit, by_split[split])
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
