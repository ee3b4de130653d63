from typing import Any

import pytest
import torch
from torch import nn

from soupcore import ClassificationTask, Split, Task, TaskError


def split(role: Any = "select", n: int = 2) -> Split:
    return Split(role, torch.arange(2.0 * n).reshape(n, 2), torch.zeros(n, dtype=torch.int64))


def task(**splits: Split) -> ClassificationTask:
    return ClassificationTask(lambda: nn.Linear(2, 2), splits, name="toy")


def test_a_task_needs_exactly_one_select_split() -> None:
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
