"""JSON that others wrote, read in bounded memory and with one meaning only."""

import json
from itertools import chain
from typing import Any

MOST_VALUES = 3_000_000  # some ten for each tensor in a header


def parse_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object in UTF-8.

    A parsed value takes up to thirty times the memory of its text, so values are counted before.
    Loaders disagree on which of two equal keys counts and on what is no JSON but often read as such
    (NaN, UTF-16, a byte order mark), so text like that has no one meaning and is not parsed.

    Raises:
        ValueError: It is no object, or damaged, or could be read in two ways, or too much.
    """
    # Marks inside of strings count too: that errs on the safe side. Strings are counted by their
    # quotes, of which a tensor in a header has ten as well.
    values = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    if max(values, content.count(b'"')) > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values")
    try:
        parsed = json.loads(
            content.decode(),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if isinstance(parsed, dict):
        return parsed
    raise ValueError("it is not an object")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands in it twice")
    for text in chain.from_iterable(pairs):
        if isinstance(text, str):
            text.encode()  # half of a surrogate pair can be escaped in JSON, and is no text
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
