"""Locate failures in a task's code."""

import site
import traceback
from functools import cache
from pathlib import Path


def place_of(error: BaseException) -> str:
    """Return the failing line of the user's code, as a sentence; "" if unknown.

    It is the innermost line outside of Stockpot and installed packages.
    """
    found = None
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        found = error.filename, error.lineno, error.text or ""
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if frame.lineno and _is_the_users(frame.filename):
                found = frame.filename, frame.lineno, frame.line or ""
    if found is None:
        return ""
    file, line, text = found
    return f"It failed at {file}:{line}" + (f": {text.strip()}" if text.strip() else ".")


def _is_the_users(file: str) -> bool:
    path = Path(file)
    return path.is_file() and not any(path.is_relative_to(folder) for folder in _installed())


@cache
def _installed() -> list[Path]:
    """Return the folders of Stockpot, of installed packages, and of Python's own modules."""
    folders = [Path(__file__).parents[1], Path(site.__file__).parent]
    folders += [Path(folder) for folder in site.getsitepackages()]
    return [*folders, *(folder.resolve() for folder in folders)]
