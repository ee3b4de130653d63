"""How long work tells how far it is."""

from collections.abc import Callable

#: Called with examples done and in all; it raises to stop the work.
Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Take a report of progress and do nothing with it."""


def part(on_progress: Progress, index: int, count: int, length: int = 1) -> Progress:
    """Return the progress of some of `count` equal parts, as told to the progress of the whole.

    Args:
        on_progress: The progress of the whole.
        index: The first of these parts.
        count: How many parts there are.
        length: How many of them these are.
    """
    return lambda done, total: on_progress(index * total + length * done, count * total)


def stretch(on_progress: Progress, before: int, length: int, total: int) -> Progress:
    """Return the progress of a stretch of work, whatever it counts in, as told to the whole.

    Args:
        on_progress: The progress of the whole.
        before: Examples of the whole done before.
        length: Examples of this stretch.
        total: Examples in all.
    """
    return lambda done, of: on_progress(before + length * done // of, total)
