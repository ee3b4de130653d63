"""The one way in which strict reading ends when it does not succeed."""

COPY = "Copy or download it again."  # the way out where a file is damaged

_LONGEST = 80  # characters


class Refusal(Exception):  # noqa: N818 - an outcome of reading, not a fault of the program
    """A file is not what it should be. The caller names the file.

    Attributes:
        problem: One sentence that says what is wrong.
        way_out: What to do about it, as a sentence; empty where there is nothing to say.
    """

    def __init__(self, problem: str, way_out: str = "") -> None:
        super().__init__(f"{problem} {way_out}".rstrip())
        self.problem = problem
        self.way_out = way_out


def shown(name: str | bytes) -> str:
    """Return a name that a file gives, in quotes, as it can stand in such a sentence.

    Names in hostile files go on for megabytes, and hold what a terminal or a page would obey.
    """
    text = name.decode(errors="replace") if isinstance(name, bytes) else name
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
