from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from soupcore import Evaluator, Mixture, Store, interpolate
from soupcore.evaluation import several
from soupcore.evaluation.several import AT_ONCE
from tests.evaluation.nets import CLASSES, NETS, SIDE, Kitchen, kitchen


@pytest.fixture
def stacked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the points of each call at several points."""
    seen: list[int] = []
    call = several._Stack.__call__

    def counted(self: several._Stack, *arguments: Tensor) -> Tensor:
        outputs = call(self, *arguments)
        seen.append(len(outputs))
        return outputs

    monkeypatch.setattr(several._Stack, "__call__", counted)
    return seen


def evaluator_of(made: Kitchen, store: Store) -> Evaluator:
    """Return an evaluator that tries several points at once, as on a GPU."""
    evaluator = Evaluator(made.task, store, device="cpu", batch_size=32)
    evaluator._several._may_stack = True
    return evaluator


def many_points(made: Kitchen, count: int = 3 * AT_ONCE + 3) -> list[Mixture]:
    one, other = (made.sweep[name].mixture for name in made.sweep.names()[:2])
    return [interpolate(one, other, index / count) for index in range(1, count + 1)]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let several at once always be quick enough."""
    monkeypatch.setattr(several, "_CLEAR", float("inf"))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("net", NETS)
def test_each_of_several_points_is_what_the_plain_loop_finds(
    tmp_path: Path, store: Store, stacked: list[int], net: str
) -> None:
    made = kitchen(tmp_path / "sweep", NETS[net], splits=("val", "test"))
    evaluator = evaluator_of(made, store)
    for split in ("val", "test"):
        points = many_points(made)
        for point, found in zip(points, evaluator.evaluate_all(points, split), strict=True):
            assert made.agrees(found, point, split)
            assert found.has_outputs
    # One alone first, and what is left over; three batches each.
    assert stacked == [AT_ONCE] * 3 * 3 * 2
    assert evaluator.notes == []


@pytest.mark.usefixtures("quick")
def test_progress_counts_the_examples_of_all_points(
    tmp_path: Path, store: Store, stacked: list[int]
) -> None:
    made = kitchen(tmp_path / "sweep", NETS["mlp"])
    evaluator = evaluator_of(made, store)
    points = many_points(made, 2 + AT_ONCE)
    evaluator.evaluate(points[0], "val")
    told: list[tuple[int, int]] = []
    evaluator.evaluate_all(points, "val", on_progress=lambda *counts: told.append(counts))
    assert stacked
    examples = len(made.task.split("val"))
    assert told[0] == (examples, len(points) * examples)
    assert told == sorted(told)
    assert told[-1] == (len(points) * examples, len(points) * examples)


@pytest.mark.usefixtures("quick")
def test_what_was_finished_before_a_cancel_is_kept(
    tmp_path: Path, store: Store, stacked: list[int]
) -> None:
    made = kitchen(tmp_path / "sweep", NETS["mlp"])
    evaluator = evaluator_of(made, store)
    points = many_points(made, 1 + 2 * AT_ONCE)
    examples = len(made.task.split("val"))

    def cancel(done: int, total: int) -> None:
        if done > (2 + AT_ONCE) * examples:
            raise RuntimeError("cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        evaluator.evaluate_all(points, "val", on_progress=cancel)
    assert stacked
    assert evaluator.missing(points, "val") == points[1 + AT_ONCE :]
    assert evaluator.notes == []


class Stateful(nn.Module):
    """Does what cannot be done at several points at once."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer = nn.Linear(SIDE * SIDE, CLASSES)
        self._forward = forward

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        return self._forward(self.layer(inputs.flatten(1)))


def waits(outputs: Tensor) -> Tensor:
    return outputs * (1.0 if outputs.sum().item() < 1e9 else 2.0)


def differs(outputs: Tensor) -> Tensor:
    return outputs + torch._C._functorch.is_batchedtensor(outputs) * 1e-3 * functional.one_hot(
        torch.zeros(len(outputs), dtype=torch.long), CLASSES
    )


@pytest.mark.usefixtures("quick")
def test_where_several_do_not_fit_in_memory_each_is_alone(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(self: several._Stack, index: int) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(several._Stack, "put", scarce)
    made = kitchen(tmp_path / "sweep", NETS["mlp"])
    evaluator = evaluator_of(made, store)
    points = many_points(made)
    for point, found in zip(points, evaluator.evaluate_all(points, "val"), strict=True):
        assert made.agrees(found, point)
    assert evaluator.notes == ["Points are computed one by one: several do not fit in memory."]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("forward", "reason"),
    [(waits, "item"), (differs, "several at once give other numbers")],
    ids=["waits", "differs"],
)
def test_where_several_cannot_be_computed_at_once_each_is_alone(
    tmp_path: Path,
    store: Store,
    stacked: list[int],
    forward: Callable[[Tensor], Tensor],
    reason: str,
) -> None:
    made = kitchen(tmp_path / "sweep", lambda: Stateful(forward))
    evaluator = evaluator_of(made, store)
    points = many_points(made)
    for point, found in zip(points, evaluator.evaluate_all(points, "val"), strict=True):
        assert made.agrees(found, point)
    assert len(stacked) <= 3
    (note,) = evaluator.notes
    assert note.startswith("Points are computed one by one: ")
    assert reason in note


def test_where_several_take_longer_each_is_alone(
    tmp_path: Path, store: Store, stacked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(several, "_CLEAR", 0.0)
    made = kitchen(tmp_path / "sweep", NETS["mlp"])
    evaluator = evaluator_of(made, store)
    points = many_points(made)
    for point, found in zip(points, evaluator.evaluate_all(points, "val"), strict=True):
        assert made.agrees(found, point)
    # In the first of two groups libraries choose their ways: what it took says nothing yet.
    assert stacked == [AT_ONCE] * 3 * 2
    assert evaluator.notes == []


def test_on_the_cpu_each_is_alone(tmp_path: Path, store: Store, stacked: list[int]) -> None:
    made = kitchen(tmp_path / "sweep", NETS["mlp"])
    Evaluator(made.task, store, device="cpu").evaluate_all(many_points(made), "val")
    assert stacked == []
