"""Parsing of untrusted JSON in bounded memory. Ambiguous text is rejected."""

import json
from itertools import chain
from typing import Any

MOST_VALUES = 3_000_000  # a header has about ten per tensor


def parse_object(content: bytes) -> dict[str, Any]:
    """Parse a JSON object in UTF-8.

    A parsed value takes up to thirty times the memory of its text, so values are counted first.
    Loaders disagree on duplicate keys and on common extensions of JSON (NaN, UTF-16, a byte order
    mark), so text with these is ambiguous and is rejected.

    Raises:
        ValueError: The text is not an object, damaged, ambiguous, or too large.
    """
    # Marks inside strings count too, which errs on the safe side. Strings are counted by their
    # quotes, of which a header also has about ten per tensor.
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
        raise ValueError("it is nested too deeply") from None
    if isinstance(parsed, dict):
        return parsed
    raise ValueError("it is not an object")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        raise ValueError("it has a duplicate key")
    for text in chain.from_iterable(pairs):
        if isinstance(text, str):
            text.encode()  # raises for lone surrogates, which JSON can escape
    return parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")
