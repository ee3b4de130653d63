"""Greedy with and without giving up early, over random tables of scores, by the real engine."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from soupcore import Evaluator, Split, Store, Sweep, Task, greedy
from tests.helpers import save_sweep

EXAMPLES = 90


class Lookup(nn.Module):
    """A network whose weights are its outputs: the table of a point is its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs = nn.Parameter(torch.zeros(EXAMPLES))

    def forward(self, rows: Tensor) -> Tensor:
        return self.outputs[rows]


class Positive(Task):
    """An example is right where its output is positive, by halves where it is nearly so."""

    score_range: tuple[float, float] | None = (0.0, 1.0)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -outputs

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs > 0).float() if self.version == "whole" else outputs.clamp(0, 1)


class Unbounded(Positive):
    score_range = None


MakeSweep = Callable[[Tensor], Sweep]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[Store]]:
    """One for what is given up early, one for what is not."""
    stores = [Store(tmp_path / "early"), Store(tmp_path / "full")]
    yield stores
    for store in stores:
        store.close()


@pytest.fixture
def sweep_of(tmp_path: Path) -> MakeSweep:
    numbers = itertools.count()

    def make(table: Tensor) -> Sweep:
        states = {letter: {"outputs": row} for letter, row in zip("abcdefg", table, strict=False)}
        return Sweep.from_folder(save_sweep(tmp_path / str(next(numbers)), states))

    return make


def evaluator_of(store: Store, kind: type[Task], version: str) -> Evaluator:
    rows = torch.arange(EXAMPLES)
    splits = {"val": Split("select", rows, rows)}
    return Evaluator(kind(Lookup, splits, name="table", version=version), store, batch_size=16)


@settings(max_examples=6)
@pytest.mark.parametrize("version", ["whole", "shares"])
@pytest.mark.parametrize("accept", [">=", ">"])
@given(seed=st.integers(0, 10_000), k=st.integers(2, 5), common=st.floats(0, 3))
def test_the_soup_and_every_decision_are_those_of_the_full_pass(
    sweep_of: MakeSweep,
    stores: list[Store],
    version: str,
    accept: Any,
    seed: int,
    k: int,
    common: float,
) -> None:
    random = torch.Generator().manual_seed(seed)
    # What ingredients have in common makes some examples hard for all, as it is in life.
    table = torch.randn(k, EXAMPLES, generator=random)
    table += common * torch.randn(EXAMPLES, generator=random) + 0.5
    sweep = sweep_of(table)
    early, full = (
        greedy(sweep, evaluator_of(store, Positive, version), accept=accept, early_stop=stop)
        for store, stop in zip(stores, (True, False), strict=True)
    )
    again = greedy(sweep, evaluator_of(stores[0], Positive, version), accept=accept)
    assert early.id == full.id
    assert again.trace == early.trace
    assert early.evaluations["val"].score == full.evaluations["val"].score
    for one, other in zip(early.trace, full.trace, strict=True):
        assert (one.candidate, one.accepted, one.soup) == (
            other.candidate,
            other.accepted,
            other.soup,
        )
        assert one == other if not one.is_bound else one.score >= other.score - 1e-12
        assert one.is_bound is (one.examples < EXAMPLES)


def test_scores_without_a_range_are_never_rejected_early(sweep_of: MakeSweep, store: Store) -> None:
    table = torch.stack([torch.full((EXAMPLES,), value) for value in (3.0, 1.0, -9.0)])
    trace = greedy(sweep_of(table), evaluator_of(store, Unbounded, "whole")).trace
    assert [step.is_bound for step in trace] == [False] * 3
    assert [step.examples for step in trace] == [EXAMPLES] * 3
