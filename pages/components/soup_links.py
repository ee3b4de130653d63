"""Ways to the page of a soup, and from there to others: buttons, names in tables, and points.

Callbacks cannot switch pages, so `main.py` does at the start of the next run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st
from streamlit.navigation.page import StreamlitPage

from pages.components import display, state
from pages.components.display import plain
from pages.components.state import View
from soupcore.stored_soups import StoredSoup

#: The sections of the page of a soup, by their names in the URL.
SECTIONS = {"": "Summary", "evidence": "Evidence", "download": "Download"}

#: The tabs of the Soups page, in the same way.
BUILD, ALL = "", "all"
TABS = {BUILD: "Build", ALL: "All soups"}

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
    """Say that there are no soups, with a button to the form that builds one."""
    st.info("No soups yet.", icon=":material/soup_kitchen:")
    st.button(
        "Build a soup", type="primary", icon=":material/blender:", on_click=open_soups,
        args=(BUILD,),
    )  # fmt: skip


def open_page(file: str) -> None:
    """Show another page, in the run that follows. For callbacks."""
    st.session_state[_NEXT] = file


def earlier_addresses() -> list[StreamlitPage]:
    """Return the pages at the addresses of sections that were pages once; see `follow`."""
    return [
        st.Page(_nothing, title=title, url_path=name, visibility="hidden")
        for name, title in SECTIONS.items()
        if name
    ]


def _nothing() -> None:
    """Draw no page: `follow` has switched to another one."""


def follow(page: StreamlitPage) -> None:
    """Switch to the page that a callback asked for. Call it after the navigation.

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
        st.session_state.update(soup=soup.soup.id, compare=[soup.handle, *rows][:6])
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


def _open(name: str, soups: Mapping[str, StoredSoup]) -> None:
    if name in soups:
        open_soup(soups[name].soup.id)
        return
    st.session_state.update({"row-detail": True, "detail": name})
    open_page("ingredients.py")
