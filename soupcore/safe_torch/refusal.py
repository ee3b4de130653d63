"""The exception of this package."""

COPY = "Copy or download it again."  # the solution for damaged files
WAIT = "If it is still being written, wait until it is complete."
INCOMPLETE = f"{COPY} {WAIT}"  # the solution for files that end too early

_LONGEST = 80  # characters


class Refusal(Exception):  # noqa: N818 - an outcome of reading, not an error of the program
    """A file cannot be read. The caller adds the file's name.

    Attributes:
        problem: The problem, as a sentence.
        way_out: The solution, as a sentence; may be empty.
    """

    def __init__(self, problem: str, way_out: str = "") -> None:
        super().__init__(f"{problem} {way_out}".rstrip())
        self.problem = problem
        self.way_out = way_out


def shown(name: str | bytes) -> str:
    """Return a name from a file in quotes, shortened and printable, for use in a sentence.

    Names in malicious files can be megabytes long, or contain control sequences.
    """
    text = name.decode(errors="replace") if isinstance(name, bytes) else name
    return repr(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
