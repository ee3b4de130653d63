"""The one way in which strict reading ends when it does not succeed."""

_LONGEST = 80  # characters


class Refusal(Exception):  # noqa: N818 - an outcome of reading, not a fault of the program
    """A file is not what it should be: one sentence that says why. The caller names the file."""


def shown(name: str | bytes) -> str:
    """Return a name that a file gives, in quotes, as it can stand in such a sentence.

    Names in hostile files go on for megabytes, and hold what a terminal or a page would obey.
    """
    text = name.decode(errors="replace") if isinstance(name, bytes) else name
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
