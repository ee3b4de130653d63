import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedShuffleSplit
from torch.utils.data import TensorDataset

from soupcore import Split, TaskError
from soupcore.tasks.hold_out import hold_out
from soupcore.tasks.task import Part

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


def test_the_seed_and_the_share_say_which() -> None:
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
def test_what_cannot_be_held_out_is_refused(
    splits: dict[str, Split], share: float, words: str
) -> None:
    with pytest.raises(TaskError, match=words):
        hold_out(splits, share)


def test_at_least_one_example_is_on_each_side() -> None:
    assert [len(split) for split in hold_out(data(), 0.001).values()] == [99, 1]
    assert [len(split) for split in hold_out(data(), 0.999).values()] == [1, 99]
