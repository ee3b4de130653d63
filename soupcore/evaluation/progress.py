"""How long work tells how far it is."""

from collections.abc import Callable

#: Called with examples done and in all; it raises to stop the work.
Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Take a report of progress and do nothing with it."""
