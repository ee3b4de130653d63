"""Forms for what users say of soups and ingredients; they are stored at once."""

from collections.abc import Iterable
from typing import Any

import streamlit as st

from pages.components import access, state
from pages.components.display import plain
from soupcore import StockpotError
from soupcore.store.soups import (
    LONGEST_NAME,
    LONGEST_NOTE,
    MOST_TAGS,
    Annotation,
    annotate,
    annotations,
)


def show_note_and_tags(subject: str, *, known: Iterable[str] = ()) -> None:
    """Show the tags and the note of a soup or an ingredient, to read and to change.

    Args:
        subject: Id of the soup, or digest of the ingredient.
        known: Tags that are in use, to choose from.
    """
    said = annotations(state.store(), [subject]).get(subject, Annotation())
    left, right = st.columns([1, 2])
    tags, note = f"tags-{subject}", f"note-{subject}"
    is_read_only = state.store().is_read_only
    with left:
        st.multiselect(
            "Tags",
            sorted({*known, *said.tags}),
            default=list(said.tags),
            accept_new_options=True,
            max_selections=MOST_TAGS,
            placeholder="Add a tag",
            key=tags,
            disabled=is_read_only,
            on_change=lambda: _take(subject, tags=_got(tags)),
        )
    with right:
        st.text_area(
            "Note",
            said.note,
            max_chars=LONGEST_NOTE,
            height=80,
            placeholder="Purpose, observations, … Included in the report.",
            key=note,
            disabled=is_read_only,
            on_change=lambda: _take(subject, note=_got(note)),
        )


def show_name(subject: str, label: str, default: str, *, key: str) -> None:
    """Show the name of a soup, to change.

    Args:
        subject: Id of the soup.
        label: The name that the pages show.
        default: The name that the user gave; "" for none.
        key: Distinguishes several fields for the same soup on a page.
    """
    key = f"name-{key}-{subject}-{default}"
    st.text_input(
        "Name",
        default,
        max_chars=LONGEST_NAME,
        placeholder=label,
        help="Leave it empty for the default name.",
        key=key,
        disabled=state.store().is_read_only,
        on_change=lambda: _rename(subject, label, _got(key)),
    )


def show_star(subject: str, *, starred: bool) -> None:
    """Show a button that gives a soup a star or takes it away."""
    st.button(
        "Remove the star" if starred else "Star",
        icon=":material/star:" if not starred else ":material/star_half:",
        key=f"star-{subject}",
        disabled=state.store().is_read_only,
        on_click=lambda: _take(subject, starred=not starred),
    )


def _rename(subject: str, label: str, name: str) -> None:
    handles: dict[str, str] = st.session_state.get("handles", {})
    # The label changes with the name; pairs of the session keep the soup by its handle.
    pairs = [tuple(handles[label] if end == label else end for end in pair)
             for pair in st.session_state["pairs"]] if label in handles else None  # fmt: skip
    if _store(subject, name=name) and pairs is not None:
        st.session_state["pairs"] = pairs
        access.note("renamed a soup to", name)


def _got(key: str) -> Any:
    return st.session_state[key]


def _take(subject: str, **changes: Any) -> None:
    _store(subject, **changes)


def _store(subject: str, **changes: Any) -> bool:
    """Store a change; show why where it is refused."""
    try:
        annotate(state.store(), subject, **changes)
    except StockpotError as error:
        st.toast(plain(str(error)), icon=":material/error:")
        return False
    return True
