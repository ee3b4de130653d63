"""Choosing a soup; the pages and the URL remember which."""

from collections.abc import Sequence

import streamlit as st

from pages.components.scores import StoredSoup


def choose(stored: Sequence[StoredSoup], label: str) -> StoredSoup:
    """Let the user choose one of the soups, the newest where none was chosen before."""
    by_id = {soup.soup.id: soup for soup in stored}
    ids = list(by_id)
    current = st.session_state["soup"]
    # The ids are the options, not the soups: a widget remembers its options, and would go on
    # giving out the soup as it was before its weights were written.
    chosen = st.selectbox(
        label,
        ids,
        index=ids.index(current) if current in by_id else len(ids) - 1,
        format_func=lambda soup_id: by_id[soup_id].label,
        width=360,
    )
    st.session_state["soup"] = chosen
    return by_id[chosen]
