"""Text of others on our pages."""

import re


def plain(text: str) -> str:
    """Return text that Markdown shows as it is.

    Names of files and tensors are anyone's: one that reads like an image would make the browser of
    whoever looks at it call there.
    """
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))
