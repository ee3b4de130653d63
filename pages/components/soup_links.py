"""Links to the pages of soups, and forms for the names, tags and notes of soups and ingredients.

Changes are stored at once. Callbacks cannot switch pages: they request a page by `open_page`, and
`main.py` switches to it with `follow` at the start of the next run.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from pages.components import access, display, state
from pages.components.display import plain
from pages.components.state import View
from soupcore import StockpotError
from soupcore.store.soups import (
    LONGEST_NAME,
    LONGEST_NOTE,
    MOST_TAGS,
    Annotation,
    annotate,
    annotations,
)
from soupcore.stored_soups import StoredSoup

#: The sections of the page of a soup, by their names in the URL.
SECTIONS = {"": "Summary", "evidence": "Evidence", "download": "Download"}

#: The tabs of the Soups page, by their names in the URL.
BUILD, ALL = "", "all"
TABS = {BUILD: "Build", ALL: "All soups"}

MOST_COMPARED = 6  # rows side by side on the Compare page

_NEXT = "next-page"


def open_soup(soup_id: str, section: str = "") -> None:
    """Show the page of a soup, "" for the soup of the verdict; see `SECTIONS`. For callbacks."""
    st.session_state.update(soup=soup_id, section=section)
    open_page("soup.py")


def open_soups(tab: str) -> None:
    """Show a tab of the Soups page; see `TABS`. For callbacks."""
    st.session_state["tab"] = tab
    open_page("soups.py")


def offer_build() -> None:
    """Show that there are no soups, with a button that opens the form to build one."""
    st.info("No soups yet.", icon=":material/soup_kitchen:")
    st.button(
        "Build a soup", type="primary", icon=":material/blender:", on_click=open_soups,
        args=(BUILD,),
    )  # fmt: skip


def open_page(file: str) -> None:
    """Show another page, in the run that follows. For callbacks."""
    st.session_state[_NEXT] = file


def earlier_addresses() -> list[StreamlitPage]:
    """Return pages at the addresses that sections had in earlier versions; see `follow`."""
    return [
        st.Page(_nothing, title=title, url_path=name, visibility="hidden")
        for name, title in SECTIONS.items()
        if name
    ]


def follow(page: StreamlitPage) -> None:
    """Switch to the page that a callback requested. Call it after the navigation.

    Args:
        page: The page of the navigation. The address of an earlier version leads to its section.
    """
    if page.url_path in SECTIONS and page.url_path:
        st.session_state["section"] = page.url_path
        open_page("soup.py")
    if (file := st.session_state.pop(_NEXT, None)) is not None:
        st.switch_page(file)


def show_name(soup: StoredSoup, *, key: str) -> None:
    """Show the name of a soup as a button that opens its page."""
    st.button(
        plain(soup.label),
        icon=":material/soup_kitchen:",
        key=f"name-{key}-{soup.soup.id}",
        on_click=open_soup,
        args=(soup.soup.id,),
        help="Opens the page of this soup: its composition, scores, evidence and download.",
    )


def show_compare(soup: StoredSoup, *, key: str) -> None:
    """Show a button that puts a soup first among the rows that are compared."""

    def compare() -> None:
        rows = [name for name in st.session_state["compare"] if name != soup.handle]
        st.session_state.update(soup=soup.soup.id, compare=[soup.handle, *rows][:MOST_COMPARED])
        open_page("compare.py")

    st.button("Compare", icon=":material/compare_arrows:", key=f"{key}-compare", on_click=compare)


def show_section(soup_id: str, section: str, *, key: str) -> None:
    """Show a button that opens a section of the page of a soup; see `SECTIONS`."""
    icon = {"evidence": ":material/balance:", "download": ":material/download:"}[section]
    st.button(
        SECTIONS[section], icon=icon, key=f"{key}-{section}",
        on_click=open_soup, args=(soup_id, section),
    )  # fmt: skip


def names_column(
    table: str, names: Sequence[str], soups: Mapping[str, StoredSoup], **options: Any
) -> Any:
    """Return a column of names that open the page of a soup, or the details of an ingredient.

    Args:
        table: Key of the table.
        names: Names of its rows, in order. The cells hold `cell_text` of them.
        soups: Those that are soups, by name.
        options: More options of the column.
    """
    key = f"{table}-names"
    return st.column_config.ButtonColumn(
        type="tertiary",
        alignment="left",
        pinned=True,
        key=key,
        on_click=lambda: _open(names[st.session_state[key]["row"]], soups),
        **options,
    )


def cell_text(name: str) -> str:
    """Return a name for a cell of `names_column`, which takes some texts for icons or lists."""
    return f"\u2060{name}" if name.strip()[:1] in (":", "[") else name  # an invisible character


def pick(view: View, soups: Sequence[StoredSoup]) -> display.Pick:
    """Return a function for clicks on points: soups are opened, ingredients are selected."""
    ids = {soup.label: soup.soup.id for soup in soups}

    def take(picked: list[Any]) -> None:
        names = [custom if isinstance(custom, str) else custom[0] for custom in picked]
        if len(names) == 1 and names[0] in ids:
            open_soup(ids[names[0]])
        else:
            state.toggle(view, names)

    return take


def show_name_field(subject: str, label: str, default: str, *, key: str) -> None:
    """Show a field to change the name of a soup.

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
        on_change=lambda: _rename(subject, label, st.session_state[key]),
    )


def show_star(subject: str, *, starred: bool) -> None:
    """Show a button that gives a soup a star or takes it away."""
    st.button(
        "Remove the star" if starred else "Star",
        icon=":material/star:" if not starred else ":material/star_half:",
        key=f"star-{subject}",
        disabled=state.store().is_read_only,
        on_click=lambda: _change(subject, starred=not starred),
    )


def show_note_and_tags(subject: str, *, known: Iterable[str] = ()) -> None:
    """Show fields to read and change the tags and the note of a soup or an ingredient.

    Args:
        subject: Id of the soup, or digest of the ingredient.
        known: Tags that are in use, to choose from.
    """
    current = annotations(state.store(), [subject]).get(subject, Annotation())
    left, right = st.columns([1, 2])
    tags, note = f"tags-{subject}", f"note-{subject}"
    is_read_only = state.store().is_read_only
    with left:
        st.multiselect(
            "Tags",
            sorted({*known, *current.tags}),
            default=list(current.tags),
            accept_new_options=True,
            max_selections=MOST_TAGS,
            placeholder="Add a tag",
            key=tags,
            disabled=is_read_only,
            on_change=lambda: _change(subject, tags=st.session_state[tags]),
        )
    with right:
        st.text_area(
            "Note",
            current.note,
            max_chars=LONGEST_NOTE,
            height=80,
            placeholder="Purpose, observations, … Included in the report.",
            key=note,
            disabled=is_read_only,
            on_change=lambda: _change(subject, note=st.session_state[note]),
        )


def _nothing() -> None:
    """Draw no page: `follow` has switched to another one."""


def _open(name: str, soups: Mapping[str, StoredSoup]) -> None:
    if name in soups:
        open_soup(soups[name].soup.id)
        return
    st.session_state.update({"row-detail": True, "detail": name})
    open_page("ingredients.py")


def _rename(subject: str, label: str, name: str) -> None:
    handles: dict[str, str] = st.session_state.get("handles", {})
    # The label changes with the name, so the pairs of the session name the soup by its handle.
    pairs = [tuple(handles[label] if end == label else end for end in pair)
             for pair in st.session_state["pairs"]] if label in handles else None  # fmt: skip
    if _store(subject, name=name) and pairs is not None:
        st.session_state["pairs"] = pairs
        access.note("renamed a soup to", name)


def _change(subject: str, **changes: Any) -> None:
    _store(subject, **changes)


def _store(subject: str, **changes: Any) -> bool:
    """Store a change, and return whether it is valid; if not, show the reason."""
    try:
        annotate(state.store(), subject, **changes)
    except StockpotError as error:
        st.toast(plain(str(error)), icon=":material/error:")
        return False
    return True
