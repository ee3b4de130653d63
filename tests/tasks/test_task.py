from typing import Any

import pytest
import torch
from torch import Tensor, nn

from soupcore import ClassificationTask, Split, Task, TaskError


def split(role: Any = "select", n: int = 2) -> Split:
    return Split(role, torch.arange(2.0 * n).reshape(n, 2), torch.zeros(n, dtype=torch.int64))


def task(**splits: Split) -> ClassificationTask:
    return ClassificationTask(lambda: nn.Linear(2, 2), splits, name="toy")


@pytest.mark.parametrize("role", ["train", "select", "report", "shift"])
def test_a_split_has_one_of_four_roles(role: str) -> None:
    assert split(role).role == role
    assert len(split(role, 3)) == 3


@pytest.mark.parametrize("role", ["test", "val", "", None])
def test_another_role_is_refused(role: Any) -> None:
    with pytest.raises(TaskError, match="must be one of train, select, report, shift, not"):
        split(role)


@pytest.mark.parametrize(("inputs", "targets"), [(0, 0), (3, 2), (2, 3), (0, 1)])
def test_a_split_needs_as_many_targets_as_inputs(inputs: int, targets: int) -> None:
    with pytest.raises(TaskError, match=f"got {inputs} inputs and {targets} targets"):
        Split("select", torch.zeros(inputs, 2), torch.zeros(targets))


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [
        pytest.param(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]), id="an input"),
        pytest.param(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0]), id="a target"),
        pytest.param(torch.tensor([1.0, 2.0]), torch.tensor([0, 1]), id="shape"),
        pytest.param(
            torch.tensor([[1.0], [2.0]]).view(torch.int32), torch.tensor([0, 1]), id="dtype"
        ),
        pytest.param(torch.tensor([[2.0], [1.0]]), torch.tensor([1, 0]), id="order"),
    ],
)
def test_the_digest_of_a_split_is_that_of_its_data(inputs: Tensor, targets: Tensor) -> None:
    data = torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])
    digest = Split("select", *data).digest
    assert digest == Split("report", *data).digest
    assert digest == Split("select", data[0].T.clone().T, data[1]).digest  # another layout
    assert digest != Split("select", inputs, targets).digest


def test_a_task_needs_exactly_one_split_to_choose_on() -> None:
    assert task(a=split("report"), b=split("select")).select == "b"
    with pytest.raises(TaskError, match=r"exactly one split .*; its splits are a, b"):
        task(a=split(), b=split())
    with pytest.raises(TaskError, match=r"its splits are a\.$"):
        task(a=split("report"))
    with pytest.raises(TaskError, match="its splits are none"):
        task()


def test_splits_are_shown_by_role_and_then_in_the_order_of_the_task() -> None:
    shown = task(
        c=split("shift"), t=split("train"), r=split("report"), a=split("shift"), s=split("select")
    )
    assert shown.reported == ["s", "r", "c", "a"]
    assert shown.splits_with_role("shift") == ["c", "a"]
    assert shown.splits_with_role("train") == ["t"]


def test_an_unknown_split_is_refused_with_those_there_are() -> None:
    with pytest.raises(TaskError, match="'toy' has no split 'test'; it has val, train"):
        task(val=split(), train=split("train")).split("test")


def test_a_task_without_loss_and_score_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Task(nn.Identity, {"val": split()}, name="toy")  # type: ignore[abstract]


class Other(ClassificationTask):
    pass


def test_the_key_covers_network_class_and_version_and_neither_name_nor_data() -> None:
    def key(
        kind: type[ClassificationTask] = ClassificationTask,
        name: str = "toy",
        out: int = 2,
        n: int = 2,
        **more: Any,
    ) -> str:
        return kind(lambda: nn.Linear(2, out), {"val": split(n=n)}, name=name, **more).key

    assert key() == key(name="another") == key(n=5)
    different = [key(), key(Other), key(out=3), key(version="2"), key(version="3")]
    different.append(key(precision="bfloat16"))
    assert len(set(different)) == len(different)
