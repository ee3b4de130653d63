"""Filters of the run table."""

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcore.row_filter import FilterError, matching_rows

TABLE: dict[str, list[Any]] = {
    "name": ["base", "run-01", "run-02", "Greedy AND more"],
    "kind": ["base", "ingredient", "ingredient", "soup"],
    "lr": [None, 0.1, 1e-4, math.nan],
    "lr decay": [None, True, False, None],
    "optimizer": [None, "AdamW", "sgd", None],
    "steps": [None, 1000, 2000, None],
    "validation accuracy, %": [11.0, 85.0, 84.5, 87.25],
    "test accuracy, %": [10.0, 80.0, None, 83.0],
    "a <= b": ["x", "y", "x y", "and"],
}
ALL = [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", ALL),
        ("   ", ALL),
        ("lr = 0.1", [1]),
        ("lr < 0.02", [2]),
        ("lr<0.02", [2]),
        ("lr <= 1e-4", [2]),
        ("lr ≥ 0.0001", [1, 2]),
        ("lr != 0.1", [0, 2, 3]),
        ("lr > -inf", [1, 2]),
        ("LR == .1", [1]),
        ("lr decay = true", [1]),
        ("optimizer = adamw", [1]),
        ("optimizer != adamw", [0, 2, 3]),
        ("optimizer ~ a", [1]),
        ("opt = SGD", [2]),
        ("steps = 2e3", [2]),
        ("kind = soup", [3]),
        ("kind = soup or kind = base", [0, 3]),
        ("kind = base or kind = ingredient and lr < 0.02", [0, 2]),
        ("run", [1, 2]),
        ("RUN-01", [1]),
        ("run and validation > 84.7", [1]),
        ('"and more"', [3]),
        ("greedy 'and' more", [3]),
        ("test acc > 0", [0, 1, 3]),
        ("validation accuracy, % >= 85", [1, 3]),
        ("'a <= b' = 'and'", [3]),
        ("'a <= b' = x y", [2]),
        ("nothing like it", []),
        ("lr = nan", []),
        ("__import__('os').system('true')", []),
    ],
)
def test_a_filter_gives_rows(text: str, rows: list[int]) -> None:
    assert matching_rows(text, TABLE) == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lx < 1", "There is no column “lx”. Columns: “name”, “kind”, “lr”"),
        ("l = 1", "“l” may mean “lr”, “lr decay”. Write more of the name."),
        ("lr < fast", "“lr” holds numbers, and “fast” is not one."),
        ("optimizer < 3", "“optimizer” holds text. Use =, != or ~ (contains)."),
        ("lr <", "Write a value after < in “lr <”."),
        ("< 3", "Write a column before < in “< 3”."),
        ("0.1 < lr < 1", "has several operators. Join conditions with “and”"),
        ("lr < 1 and", "Write a condition on both sides of “and” and “or”"),
        ("or", "Write a condition on both sides of “and” and “or”"),
        ("kind = 'soup", "A quotation mark is not closed."),
    ],
)
def test_a_filter_that_cannot_be_understood_says_why(text: str, message: str) -> None:
    with pytest.raises(FilterError) as raised:
        matching_rows(text, TABLE)
    assert message in str(raised.value)


@given(st.text(max_size=30))
def test_any_text_gives_rows_or_a_filter_error(text: str) -> None:
    rows: list[int] = []
    with suppress(FilterError):
        rows = matching_rows(text, TABLE)
    assert rows == sorted({*rows} & {*ALL})


@given(st.floats(allow_nan=False), st.lists(st.none() | st.floats(), min_size=1, max_size=6))
def test_comparisons_are_those_of_floats(limit: float, values: list[float | None]) -> None:
    table: dict[str, list[Any]] = {"name": ["x"] * len(values), "v": values}
    if all(value is None or math.isnan(value) for value in values):
        return
    below = matching_rows(f"v < {limit!r}", table)
    assert below == [i for i, value in enumerate(values) if value is not None and value < limit]
