"""The error of this package."""

COPY = "Copy or download it again."  # the way out if a file is damaged

_LONGEST = 80  # characters


class Refusal(Exception):  # noqa: N818 - an outcome of reading, not a fault of the program
    """A file cannot be read. The caller adds the file's name.

    Attributes:
        problem: One sentence that says what is wrong.
        way_out: A sentence that says what to do about it; may be empty.
    """

    def __init__(self, problem: str, way_out: str = "") -> None:
        super().__init__(f"{problem} {way_out}".rstrip())
        self.problem = problem
        self.way_out = way_out


def shown(name: str | bytes) -> str:
    """Return a name from a file in quotes, short and printable, for use in a sentence.

    Names in hostile files can be megabytes long, or hold control sequences.
    """
    text = name.decode(errors="replace") if isinstance(name, bytes) else name
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
