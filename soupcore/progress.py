"""Progress of long calls: callbacks and progress bars.

Long calls take a callback `on_progress`. Without one, they show a progress bar in terminals and
notebooks, unless `progress=False`. Nested calls show no bar of their own.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import Parameter, signature
from typing import ParamSpec, TypeVar

#: Called with the number of examples done and in total. It may raise to stop the work.
Progress = Callable[[int, int], None]

P = ParamSpec("P")
R = TypeVar("R")

_DELAY = 0.5  # seconds before a bar appears, so that stored results show none
_FORMAT = "{desc}: {percentage:3.0f} % |{bar}| {elapsed}<{remaining}"

_within_a_call = ContextVar("_within_a_call", default=False)
_silenced = False


def no_progress(done: int, total: int) -> None:
    """Ignore progress."""


def part(on_progress: Progress, index: int, count: int, length: int = 1) -> Progress:
    """Return a callback for consecutive parts of work that has `count` equal parts.

    Args:
        on_progress: Callback of the whole work.
        index: Index of the first of these parts.
        count: Number of parts of the whole work.
        length: Number of these parts.
    """
    return lambda done, total: on_progress(index * total + length * done, count * total)


def stretch(on_progress: Progress, before: int, length: int, total: int) -> Progress:
    """Return a callback for a stretch of the whole work, which may count in other units.

    Args:
        on_progress: Callback of the whole work.
        before: Number of examples done before this stretch.
        length: Number of examples in this stretch.
        total: Number of examples of the whole work.
    """
    return lambda done, of: on_progress(before + length * done // of, total)


def with_bar(title: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function to show a progress bar while it runs (see the module's docstring).

    Args:
        title: Text before the bar.

    Returns:
        A decorator for functions with the keyword-only parameters `on_progress` and `progress`. The
        decorator evaluates `progress`; the function itself ignores it.
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
    """Show a progress bar on standard error, or as a widget in a notebook.

    Args:
        title: Text before the bar.

    Yields:
        The callback that updates the bar. It does nothing if tqdm is not installed.
    """
    try:
        from tqdm.auto import tqdm
    except ImportError:
        yield no_progress
        return
    with tqdm(total=1.0, desc=title, delay=_DELAY, bar_format=_FORMAT) as shown:
        # Totals may change during a call, so the bar shows the fraction.
        yield lambda done, total: shown.update(done / total - shown.n if total else 0) and None
        shown.update(1.0 - shown.n)


def is_watched() -> bool:
    """Return whether this process runs in a terminal or a notebook and bars are not silenced."""
    if _silenced:
        return False
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    is_notebook = shell is not None and "IPKernelApp" in shell.config
    return is_notebook or (sys.stderr is not None and sys.stderr.isatty())


def silence() -> None:
    """Disable progress bars in this process, for servers and workers."""
    global _silenced
    _silenced = True
