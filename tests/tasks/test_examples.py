from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from soupcore import Split, TaskError
from soupcore.tasks.examples import Examples, Ragged, call, described, takes_by_name

N = 5
LENGTHS = [3, 1, 4, 1, 5]
ROWS = torch.arange(N * 2.0).reshape(N, 2)
WORDS = [torch.arange(length) + 10 * index for index, length in enumerate(LENGTHS)]
Pair = namedtuple("Pair", "image text")


def equal(found: Any, expected: Any) -> bool:
    if isinstance(expected, Tensor):
        return torch.equal(found, expected)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(equal(found[k], expected[k]) for k in found)
    return len(found) == len(expected) and all(map(equal, found, expected))


@pytest.mark.parametrize(
    ("inputs", "batch"),
    [
        pytest.param(ROWS, ROWS[1:3], id="a tensor"),
        pytest.param(ROWS.numpy(), ROWS[1:3], id="an array"),
        pytest.param(list(ROWS), ROWS[1:3], id="a list with a tensor for each example"),
        pytest.param((ROWS, ROWS[:, 0]), (ROWS[1:3], ROWS[1:3, 0]), id="a tuple"),
        pytest.param([ROWS, ROWS[:, 0]], (ROWS[1:3], ROWS[1:3, 0]), id="a list of two tensors"),
        pytest.param(Pair(ROWS, ROWS[:, 0]), (ROWS[1:3], ROWS[1:3, 0]), id="a named tuple"),
        pytest.param(
            {"a": ROWS, "b": {"c": (ROWS[:, 1],)}},
            {"a": ROWS[1:3], "b": {"c": (ROWS[1:3, 1],)}},
            id="nested",
        ),
        pytest.param(
            {"input_ids": [[7, 8], [9, 1], [2, 3], [4, 5], [6, 7]]},
            {"input_ids": torch.tensor([[9, 1], [2, 3]])},
            id="lists of numbers of one length",
        ),
        pytest.param(
            {"input_ids": WORDS},
            {
                "input_ids": torch.tensor([[10, 0, 0, 0], [20, 21, 22, 23]]),
                "attention_mask": torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]]),
            },
            id="words of different lengths get a mask",
        ),
        pytest.param(
            {"input_ids": WORDS, "attention_mask": [torch.ones(n) for n in LENGTHS]},
            {
                "input_ids": torch.tensor([[10, 0, 0, 0], [20, 21, 22, 23]]),
                "attention_mask": torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]]),
            },
            id="a mask of their own is padded with zeros",
        ),
        pytest.param(
            {"input_ids": WORDS, "labels": WORDS},
            {
                "input_ids": torch.tensor([[10, 0, 0, 0], [20, 21, 22, 23]]),
                "labels": torch.tensor([[10, -100, -100, -100], [20, 21, 22, 23]]),
                "attention_mask": torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1]]),
            },
            id="labels are padded with the class that is ignored",
        ),
    ],
)
def test_a_batch_is_made_of_rows(inputs: Any, batch: Any) -> None:
    split = Split("select", inputs, torch.zeros(N))
    examples, _ = split.load()
    assert len(split) == len(examples) == N
    assert equal(examples.batch(slice(1, 3)), batch)
    assert equal(examples.batch(torch.tensor([1, 2])), batch)


def test_a_collate_makes_the_batch_of_single_examples() -> None:
    seen: list[Any] = []

    def collate(examples: list[Any]) -> Any:
        seen.extend(examples)
        return {"sums": torch.stack([example["x"].sum() for example in examples])}

    examples, _ = Split("select", {"x": WORDS}, torch.zeros(N), collate=collate).load()
    assert equal(examples.batch(torch.tensor([4, 0])), {"sums": torch.tensor([210, 3])})
    assert equal(seen, [{"x": WORDS[4]}, {"x": WORDS[0]}])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        pytest.param("text", "is a str; the inputs of a split are tensors", id="a text"),
        pytest.param({"a": ROWS, "b": None}, r"`inputs\['b'\]` is a NoneType", id="none"),
        pytest.param({"a": ROWS, "b": ROWS[:3]}, "they have 3, 5 rows", id="different rows"),
        pytest.param({}, "no rows", id="nothing"),
        pytest.param(torch.tensor(1.0), "one number", id="a number"),
        pytest.param(WORDS, "differ in length.*`collate`", id="ragged without a mask"),
        pytest.param({"x": WORDS}, "differ in length.*`input_ids`", id="ragged by another name"),
        pytest.param([ROWS[:, :1], *ROWS[:4, :1]], "more than their first", id="other dimensions"),
        pytest.param(
            [torch.zeros(2), *WORDS[:4]],
            r"first dimension: float32 \[2\], int64",
            id="other dtypes",
        ),
        pytest.param([["a"]] * N, "not numeric tensors", id="words"),
    ],
)
def test_unusable_inputs_are_refused_with_a_sentence(inputs: Any, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        Split("select", inputs, torch.zeros(N))


def test_the_identity_covers_names_structure_and_where_examples_begin() -> None:
    targets = torch.zeros(2)
    inputs: list[Any] = [
        torch.zeros(2, 2),
        {"input_ids": torch.zeros(2, 2)},
        {"pixel_values": torch.zeros(2, 2)},
        {"input_ids": [torch.zeros(1), torch.zeros(3)]},
        {"input_ids": [torch.zeros(3), torch.zeros(1)]},
    ]
    assert len({Split("select", each, targets).digest for each in inputs}) == len(inputs)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.data())
def test_ragged_rows_round_trip(lengths: list[int], data: st.DataObject) -> None:
    tensors = [torch.randn(length, 2) for length in lengths]
    ragged = Ragged.of(tensors)
    rows = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1))
    assert len(ragged) == len(lengths)
    assert equal(ragged.tensors(torch.tensor(rows)), [tensors[row] for row in rows])
    assert equal(ragged.select(torch.tensor(rows)).tensors(slice(None)), [tensors[r] for r in rows])
    assert ragged.lengths.tolist() == lengths


def test_the_longest_come_first_and_equal_ones_in_their_order() -> None:
    examples = Examples.of({"input_ids": WORDS}, N)
    assert examples.by_length is not None
    assert examples.by_length.tolist() == [4, 2, 0, 1, 3]
    assert Examples.of(ROWS, N).by_length is None


# Calling the network


class ByName(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        return "by name", x, mask


class Anything(nn.Module):
    def forward(self, x: Any, **options: Any) -> Any:
        return "by name", x, options.get("mask")


class WholeDict(nn.Module):
    def forward(self, batch: Any) -> Any:
        return "as one", batch["x"], batch["mask"]


class InPlaces(nn.Module):
    def forward(self, first: Tensor, second: Tensor) -> Any:
        return "in places", first, second


@pytest.mark.parametrize(
    ("network", "batch", "way"),
    [
        (ByName(), {"x": 1, "mask": 2}, "by name"),
        (Anything(), {"x": 1, "mask": 2}, "by name"),
        (WholeDict(), {"x": 1, "mask": 2}, "as one"),
        (InPlaces(), (1, 2), "in places"),
    ],
)
def test_the_inputs_determine_how_a_network_is_called(
    network: nn.Module, batch: Any, way: str
) -> None:
    assert call(network, batch) == (way, 1, 2)


def test_an_input_that_the_network_does_not_take_is_named() -> None:
    with pytest.raises(TaskError, match=r"takes x, mask, .* inputs also have 'token_type_ids'"):
        takes_by_name(ByName(), {"x": ROWS, "token_type_ids": ROWS})


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (ROWS, "float32 [5, 2]"),
        ({"a": ROWS, "b": (ROWS[0],)}, "{a: float32 [5, 2], b: (float32 [2])}"),
        (Ragged.of(WORDS), "int64 [14] in 5 examples"),
        (np.zeros(2), "ndarray"),
    ],
)
def test_shapes_are_described(batch: Any, words: str) -> None:
    assert described(batch) == words
