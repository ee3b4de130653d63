"""The one way in which strict reading ends when it does not succeed."""


class Refusal(Exception):  # noqa: N818 - an outcome of reading, not a fault of the program
    """A file is not what it should be: one sentence that says why. The caller names the file."""
