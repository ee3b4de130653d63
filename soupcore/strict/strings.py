"""Texts in what was unpickled that matter to whom the file is given."""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from soupcore.strict.metadata import plain_value
from soupcore.strict.values import Inert

MOST_PATHS = 50
LONGEST_PATH = 500

_Trail = tuple["_Trail", Any] | None  # the keys that lead to a value, the last one first


def local_paths_of(tree: Any) -> list[tuple[str, str]]:
    """Return what looks like a path of the machine where the file was made, and where it stands.

    Returns:
        `[(place, path)]`, such as `("train_args.data", "/home/anna/data.yaml")`; not more than
        `MOST_PATHS`.
    """
    found = []
    for trail, text in _texts(tree):
        if _is_local_path(text):
            found.append((_place(trail), text[:LONGEST_PATH]))
            if len(found) == MOST_PATHS:
                break
    return found


def _texts(tree: Any) -> Iterator[tuple[_Trail, str]]:
    """Give each text once, and by which keys it is reached."""
    seen: set[int] = set()
    stack: list[tuple[_Trail, Any]] = [(None, tree)]
    while stack:
        trail, value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        below: list[tuple[_Trail, Any]] = []
        for key, part in _inner(value):
            if type(part) is Inert and part.path.startswith("pathlib."):
                part = plain_value(part)
            if type(part) is str:
                yield (trail, key), part
            elif isinstance(part, dict | list | tuple | Inert):
                below.append(((trail, key), part))
        stack.extend(reversed(below))


def _inner(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, list | tuple):
        return enumerate(value)
    if type(value) is Inert:
        state = ((None, value.state),)
        return chain(enumerate(value.args), state, enumerate(value.items), value.entries.items())
    return ()


def _place(trail: _Trail) -> str:
    keys = []
    while trail:
        trail, key = trail
        if key is not None:
            keys.append(str(key)[:60])
    return ".".join(reversed(keys[:8]))


def _is_local_path(text: str) -> bool:
    if len(text) > LONGEST_PATH or not text.isprintable():
        return False
    if text.startswith("/"):
        return text.count("/") >= 2 and text[1:2].isalnum()
    drive = text[:1].isalpha() and text[1:3] in (":\\", ":/")
    return drive or text.startswith(("~/", "\\\\", "file://"))
