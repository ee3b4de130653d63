"""Boxes and buttons without labels that let the user choose one of several words."""

from collections.abc import Callable, Mapping, Sequence

import streamlit as st


def choose_option(
    label: str,
    options: Sequence[str],
    current: str,
    *,
    text: Callable[[str], str],
    width: int,
    key: str,
) -> str:
    """Let the user choose one of many options, or none; return it, "" for none.

    Args:
        label: What is chosen, for screen readers.
        options: The options.
        current: The option that is chosen now; "" or an unknown one for none.
        text: Returns what is shown of an option, or of "" for none.
        width: Width of the box in pixels.
        key: Key of the widget, which is drawn anew when the option is changed from elsewhere.
    """
    everything = ["", *options]
    now = current if current in everything else ""
    chosen = st.selectbox(
        label,
        everything,
        index=everything.index(now),
        format_func=text,
        label_visibility="collapsed",
        width=width,
        key=f"{key}-{now}",
    )
    return chosen or ""


def choose_word(label: str, words: Mapping[str, str], current: str, key: str) -> str:
    """Let the user choose one of a few words; return it.

    Args:
        label: What is chosen, for screen readers.
        words: `{word: what is shown}`.
        current: The word that is chosen now.
        key: Key of the widget, which is drawn anew when the word is changed from elsewhere.
    """
    word: str = st.segmented_control(
        label,
        [*words],
        default=current,
        format_func=lambda word: words[word],
        required=True,
        label_visibility="collapsed",
        key=f"{key}-{current}",
    )
    return word
