"""Buttons that ask for long work."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from pages.components import jobs


def button(
    label: str,
    kind: str,
    title: str,
    request: Mapping[str, Any],
    *,
    key: str,
    help: str | None = None,
    primary: bool = True,
) -> None:
    """Show a button that adds a job, disabled while that very job is under way.

    Args:
        label: What the button says.
        kind: Kind of the job.
        title: What the tray calls it.
        request: What the job is told.
        key: Identity of the button on its page.
        help: What more there is to say.
        primary: Whether it is the thing to do.
    """
    if st.button(
        label,
        type="primary" if primary else "secondary",
        icon=":material/play_arrow:",
        key=key,
        help=help,
        disabled=jobs.unfinished(kind, **request) is not None,
    ):
        jobs.submit(kind, title, request)
        st.rerun()


def points(count: int, *, about: bool = False) -> str:
    """Return how many evaluations a button asks for, in words."""
    return f"{'about ' if about else ''}{count} point{'s' if count != 1 else ''}"


def splits(names: Sequence[str]) -> str:
    """Return names of splits in words, however many they are."""
    return " and ".join(names) if len(names) < 3 else f"{len(names)} splits"
