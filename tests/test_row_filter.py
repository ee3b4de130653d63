"""Filters of the run table."""

import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcore.row_filter import FilterError, Limits, limits, matching_rows, with_limits

TABLE: dict[str, list[Any]] = {
    "name": ["base", "run-01", "run-02", "Greedy AND more"],
    "kind": ["base", "ingredient", "ingredient", "soup"],
    "lr": [None, 0.1, 1e-4, math.nan],
    "lr decay": [None, True, False, None],
    "optimizer": [None, "AdamW", "sgd", None],
    "steps": [None, 1000, 2000, None],
    "weight_decay": [None, 0.1, 0.2, None],
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
        ("wd > 0.1", [2]),
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
        ("optimizer = adamw | sgd", [1, 2]),
        ("optimizer != adamw | sgd", [0, 3]),
        ("steps = 1e3 | 3000", [1]),
        ("optimizer ~ d|w", [1, 2]),
        ("base | greedy", [0, 3]),
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
        ("kind = soup |", "Write a value on both sides of “|”"),
        ("lr < 1 | 2", "Write one value after <, not 1 | 2."),
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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("lr < 0.02 and lr >= 1e-4 and kind = ingredient",
         {"lr": Limits(1e-4, 0.02), "kind": ("ingredient",)}),
        ("steps = 2000", {"steps": Limits(2000, 2000)}),
        ("optimizer = sgd | AdamW", {"optimizer": ("sgd", "AdamW")}),
        ("run and optimizer != sgd and kind ~ i", {}),
        ("lr < 1 and kind = soup or kind = base and lr < 1", {"lr": Limits(high=1)}),
        ("steps = 1000 | 2000", {}),
    ],
)  # fmt: skip
def test_limits_are_those_that_all_alternatives_share(text: str, found: dict[str, Any]) -> None:
    assert limits(text, TABLE) == found


@pytest.mark.parametrize(
    ("text", "changes", "made"),
    [
        ("", {"lr": Limits(low=1e-4)}, "lr >= 0.0001"),
        ("", {"validation accuracy, %": Limits(84.4999, 86)},
         "validation accuracy, % >= 84.5 and validation accuracy, % <= 86"),
        ("", {"a <= b": ["x", "x y"]}, '"a <= b" = x | x y'),
        ("", {"a <= b": ["and"]}, '"a <= b" = "and"'),
        ("lr<0.02 and 'run'", {"lr": None}, "'run'"),
        ("LR > 0 and opt = sgd", {"optimizer": ["AdamW"]}, "LR > 0 and optimizer = AdamW"),
        ("lr < 1 or kind = soup", {"steps": Limits(high=1500)},
         "lr < 1 and steps <= 1500 or kind = soup and steps <= 1500"),
        ("lr < 1 or kind = soup", {"lr": None}, ""),
        ("lr < 1 or kind = soup", {"lr": Limits(0, 2)}, "lr >= 0 and lr <= 2"),
        ("steps = 1000 | 2000", {"steps": Limits(high=1500)},
         "steps = 1000 | 2000 and steps <= 1500"),
    ],
)  # fmt: skip
def test_limits_are_conditions_of_the_filter(text: str, changes: dict[str, Any], made: str) -> None:
    assert with_limits(text, changes, TABLE) == made
    matching_rows(made, TABLE)


@given(
    st.sampled_from(["", "lr < 0.5", "kind = soup or run", "steps > 0 and lr < 1"]),
    st.sampled_from(["lr", "steps", "validation accuracy, %"]),
    st.floats(-1e4, 1e4),
    st.floats(0, 1e4),
)
def test_limits_select_the_same_rows_as_their_numbers(
    text: str, column: str, low: float, width: float
) -> None:
    before = with_limits(text, {column: None}, TABLE)
    made = with_limits(text, {column: Limits(low, low + width)}, TABLE)
    values = TABLE[column]
    assert matching_rows(made, TABLE) == [
        row
        for row in matching_rows(before, TABLE)
        if values[row] is not None and low <= values[row] <= low + width
    ]
    assert column in limits(made, TABLE)
    assert with_limits(made, {column: None}, TABLE) == before or "or" in text


def test_a_name_with_both_kinds_of_quotes_cannot_be_written() -> None:
    with pytest.raises(FilterError, match="both kinds of quotes"):
        with_limits("", {'it\'s "lr" < 1': Limits(low=0)}, {'it\'s "lr" < 1': [1.0], "name": ["a"]})
