"""What a page shows when something goes wrong: words, never a traceback."""

import logging

import streamlit as st

from pages.components.text import plain
from soupcore import StockpotError

logger = logging.getLogger(__name__)


def show(error: Exception) -> bool:
    """Show an error that a page did not expect, and log where it came from."""
    if isinstance(error, StockpotError):
        st.error(plain(str(error)), icon=":material/error:")
    else:
        logger.exception("A page failed", exc_info=error)
        st.error(
            f"This page stumbled over {plain(f'{type(error).__name__}: {error}')}. Nothing "
            "computed is lost. "
            "Reload the page; if it happens again, the server's log says where.",
            icon=":material/error:",
        )
    return True
