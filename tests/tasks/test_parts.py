import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from soupcore import ClassificationTask, Evaluator, Split, Sweep, TaskError
from soupcore.store import NewEvaluation
from soupcore.tasks.parts import Part, hold_out


def split(classes: list[int]) -> Split:
    targets = torch.tensor(classes)
    return Split("select", torch.arange(len(classes)).float()[:, None], targets)


def rows(part: Split) -> list[int]:
    return [int(row) for row in part.inputs[:, 0]]


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(1, 59), st.integers(0, 3))
def test_a_part_is_stratified_by_class(classes: list[int], n: int, seed: int) -> None:
    whole = split(classes)
    part = Part(whole, min(n, len(whole) - 1), seed)
    assert len(part) == len(part.inputs) == len(part.targets)
    assert len(set(rows(part))) == len(part)
    assert part.targets.tolist() == [classes[row] for row in rows(part)]
    for label in set(classes):
        share = classes.count(label) * len(part) / len(classes)
        assert abs(part.targets.tolist().count(label) - share) < 1


def test_the_seed_determines_the_examples() -> None:
    whole = split([0, 1] * 50)
    assert rows(Part(whole, 10)) == rows(Part(whole, 10))
    assert rows(Part(whole, 10)) != rows(Part(whole, 10, seed=1))


def test_the_digest_of_a_part_covers_the_whole_the_size_and_the_seed() -> None:
    whole = split([0, 1] * 50)
    digests = [
        whole.digest,
        Part(whole, 10).digest,
        Part(whole, 11).digest,
        Part(whole, 10, seed=1).digest,
        Part(split([1, 0] * 50), 10).digest,
    ]
    assert len(set(digests)) == len(digests)
    assert Part(split([0, 1] * 50), 10).digest == digests[1]


@pytest.mark.parametrize("targets", [torch.rand(40), torch.zeros(40, 3, dtype=torch.int64)])
def test_a_part_of_other_targets_is_not_stratified(targets: torch.Tensor) -> None:
    part = Part(Split("select", torch.arange(40)[:, None], targets), 10)
    assert part.role == "select"
    assert rows(part) == sorted(set(rows(part)))
    assert rows(part) != list(range(10))
    assert torch.equal(part.targets, targets[rows(part)])


def test_a_task_knows_a_part_by_its_name_and_does_not_list_it() -> None:
    task = ClassificationTask(lambda: nn.Linear(1, 2), {"val": split([0, 1] * 10)})
    assert task.part("val", 6) == task.part("val", 6) == "val, n=6"
    assert len(task.split("val, n=6")) == 6
    assert task.part("val", 20) == "val"
    assert (task.reported, task.select) == (["val"], "val")
    with pytest.raises(TaskError, match="has no split 'test'"):
        task.part("test", 6)
    with pytest.raises(TaskError, match="has no split 'val, n=7'"):
        task.split("val, n=7")
    with pytest.raises(ValueError, match="at least one example"):
        task.part("val", 0)


def test_evaluations_of_a_part_are_stored_separately(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    point = sweep["run1"].mixture
    whole = evaluator.evaluate(point, "val")
    part = evaluator.evaluate(point, evaluator.task.part("val", 30))
    assert (whole.n, part.n, part.split) == (100, 30, "val, n=30")
    assert evaluator.evaluate(point, "val").loss == whole.loss != part.loss


@pytest.mark.parametrize("keep_outputs", [True, False])
def test_a_part_takes_no_pass_if_the_whole_was_evaluated(
    sweep: Sweep, evaluator: Evaluator, passes: list[int], keep_outputs: bool
) -> None:
    name = evaluator.task.part("val", 30)
    points = [sweep.mixture({"run1": c, "run2": 1 - c}) for c in (0.2, 0.4, 0.6)]
    evaluator.evaluate_all(points[:2], "val", keep_outputs=keep_outputs)
    alone = evaluator.evaluate(points[2], name)
    passes.clear()
    found = evaluator.evaluate_all(points, name, keep_outputs=keep_outputs)
    assert passes == []
    whole = evaluator.evaluate(points[0], "val", keep_outputs=keep_outputs)
    rows = evaluator.task.rows_of(name)
    assert found[2].loss == alone.loss
    assert found[0].losses.tolist() == whole.losses[rows].tolist()
    assert found[0].score == whole.scores[rows].mean(dtype=torch.float64).item()
    assert [each.has_outputs for each in found] == [keep_outputs, keep_outputs, True]
    if not keep_outputs:  # the whole cannot tell what it did not keep
        assert evaluator.evaluate(points[0], name).outputs.shape == (30, 3)
        assert passes == [30]


def test_part_metadata_is_computed_once(
    monkeypatch: pytest.MonkeyPatch, sweep: Sweep, evaluator: Evaluator
) -> None:
    points = [
        sweep.mixture({"run1": c, "run2": 1 - c}) for c in torch.linspace(0.1, 0.9, 20).tolist()
    ]
    evaluator.evaluate_all(points, "val", keep_outputs=False)
    looks = 0

    def nbytes(self: NewEvaluation) -> int:
        nonlocal looks
        looks += 1
        return 1

    monkeypatch.setattr(NewEvaluation, "nbytes", property(nbytes))
    evaluator.evaluate_all(points, evaluator.task.part("val", 30), keep_outputs=False)
    assert looks == len(points)


class Wide(Dataset[Any]):
    def __len__(self) -> int:
        return 512

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return torch.full((1 << 15,), float(index)), index % 3


def test_a_part_of_a_split_on_disk_takes_no_memory(workspace: Path) -> None:
    whole = Split.from_dataset("select", Wide())
    whole.load()
    before = anonymous()
    part = Part(whole, 200)
    assert part.inputs.nbytes == 200 << 17
    assert anonymous() - before < part.inputs.nbytes / 2
    assert part.inputs[:, 0].tolist() == part.inputs[:, -1].tolist() == part.rows.tolist()
    assert part.targets.tolist() == [row % 3 for row in part.rows.tolist()]
    assert [path.name for path in workspace.iterdir()] == ["decoded"]
    assert part.is_on_disk
    assert Part(part, 50).is_on_disk
    assert not Part(split([0, 1]), 1).is_on_disk


def anonymous() -> int:
    """Bytes of this process's memory that no file stands behind."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) << 10


CLASSES = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)


def data(*, on_disk: bool = False) -> dict[str, Split]:
    rows = torch.arange(100).float()[:, None]
    if on_disk:
        return {"val": Split.from_dataset("select", TensorDataset(rows, CLASSES))}
    return {"val": Split("select", rows, CLASSES, groups=[row % 2 for row in range(100)])}


@pytest.mark.parametrize("on_disk", [False, True])
def test_both_parts_are_stratified_and_together_the_whole(on_disk: bool) -> None:
    splits = hold_out(data(on_disk=on_disk), 0.3)
    assert {name: split.role for name, split in splits.items()} == {
        "val": "select", "report": "report",
    }  # fmt: skip
    parts = [splits[name] for name in ("val", "report")]
    assert [len(part) for part in parts] == [70, 30]
    rows = torch.cat([part.inputs[:, 0] for part in parts]).long()
    assert sorted(rows.tolist()) == list(range(100))
    oracle = StratifiedShuffleSplit(1, test_size=30, random_state=0)
    for part, own in zip(parts, next(oracle.split(np.zeros(100), CLASSES)), strict=True):
        assert part.targets.bincount().tolist() == np.bincount(CLASSES[own]).tolist()
        assert part.targets.tolist() == CLASSES[part.inputs[:, 0].long()].tolist()
    assert parts[1].majority == 0.5


def test_groups_go_with_their_examples() -> None:
    splits = hold_out(data(), 0.3)
    for split in splits.values():
        assert split.groups == tuple(str(int(row) % 2) for row in split.inputs[:, 0])
    few = splits["report"].groups
    assert few is not None
    assert abs(few.count("0") - 15) <= 2  # to within one in each class
    assert Part(splits["val"], 10).groups is not None


def test_seed_and_share_determine_the_held_out_examples() -> None:
    made = [hold_out(data(), *told) for told in ((0.3, 0), (0.3, 1), (0.4, 0))]
    digests = {split.digest for splits in made for split in splits.values()}
    assert len(digests) == 6
    again = hold_out(data(), 0.3)
    assert [again[name].digest for name in again] == [made[0][name].digest for name in made[0]]


@pytest.mark.parametrize(
    ("splits", "share", "words"),
    [
        (
            data() | {"test": Split("report", CLASSES, CLASSES)},
            0.3,
            "There already is a report split, 'test'",
        ),
        (data(), 0.0, "between 0 and 1"),
        (data(), 1, "between 0 and 1"),
        ({"test": Split("train", CLASSES, CLASSES)}, 0.5, "exactly one split"),
    ],
)
def test_impossible_hold_outs_are_refused(
    splits: dict[str, Split], share: float, words: str
) -> None:
    with pytest.raises(TaskError, match=words):
        hold_out(splits, share)


def test_at_least_one_example_is_on_each_side() -> None:
    assert [len(split) for split in hold_out(data(), 0.001).values()] == [99, 1]
    assert [len(split) for split in hold_out(data(), 0.999).values()] == [1, 99]
