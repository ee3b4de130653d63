"""Text from files of others, as Streamlit's Markdown should show it."""

import re
from string import punctuation

_MARK = re.compile(f"([{re.escape(punctuation)}])")


def escaped(text: str) -> str:
    """Return text as Markdown that shows just this: no links, images or formulas."""
    return _MARK.sub(r"\\\1", " ".join(text.split()))
