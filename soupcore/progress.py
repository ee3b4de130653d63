"""Progress of long calls: callbacks, and the bar that a person sees.

A long call takes `on_progress`, a callback. Without one it shows a bar in a terminal and in a
notebook, unless `progress=False`. Calls inside a call show no bar of their own.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import Parameter, signature
from typing import ParamSpec, TypeVar

#: Called with examples done and in all; it raises to stop the work.
Progress = Callable[[int, int], None]

P = ParamSpec("P")
R = TypeVar("R")

_DELAY = 0.5  # seconds before a bar appears: results from the store need none
_FORMAT = "{desc}: {percentage:3.0f} % |{bar}| {elapsed}<{remaining}"

_within_a_call = ContextVar("_within_a_call", default=False)
_silenced = False


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


def with_bar(title: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function show a bar while it runs; see the module for when.

    Args:
        title: Text before the bar.

    Returns:
        A decorator. The function must take `on_progress` and `progress` as keywords. The decorator
        uses `progress`, so that the function itself ignores it.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = signature(function).parameters
        for name in ("on_progress", "progress"):
            if parameters[name].kind is not Parameter.KEYWORD_ONLY:
                raise TypeError(f"{function.__qualname__} must take {name!r} as a keyword.")

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            wanted = kwargs.get("progress", True) and "on_progress" not in kwargs
            shown = wanted and not _within_a_call.get() and is_watched()
            token = _within_a_call.set(True)
            try:
                if not shown:
                    return function(*args, **kwargs)
                with bar(title) as kwargs["on_progress"]:
                    return function(*args, **kwargs)
            finally:
                _within_a_call.reset(token)

        return call

    return decorate


@contextmanager
def bar(title: str) -> Iterator[Progress]:
    """Show a bar on standard error, or as a widget in a notebook.

    Args:
        title: Text before the bar.

    Yields:
        The progress that moves the bar. It does nothing if tqdm is not installed.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        yield no_progress
        return
    with tqdm(total=1.0, desc=title, delay=_DELAY, bar_format=_FORMAT) as shown:
        # Totals may change during a call, so the bar has the fraction.
        yield lambda done, total: shown.update(done / total - shown.n if total else 0) and None
        shown.update(1.0 - shown.n)


def is_watched() -> bool:
    """Whether a person sees what this process prints: in a terminal or a notebook."""
    if _silenced:
        return False
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    is_notebook = shell is not None and "IPKernelApp" in shell.config
    return is_notebook or (sys.stderr is not None and sys.stderr.isatty())


def silence() -> None:
    """Show no bars in this process from now on: a server or a worker, which has its own display."""
    global _silenced
    _silenced = True
