import json
from collections.abc import Callable

import pytest
import torch
from torch import nn

from soupcore import ClassificationTask, Split, Task, TaskError
from soupcore.tasks import TaskDescription, TaskInfo
from tests.toy import build_model


def split(role: str, n: int = 40) -> Split:
    generator = torch.Generator().manual_seed(n)
    return Split(role, torch.randn(n, 4, generator=generator), torch.arange(n) % 3)  # type: ignore[arg-type]


SPLITS = {"a": split("train"), "b": split("select", 30), "c": split("report"), "d": split("shift")}


class Negative(Task):
    score_name = "negative MAE"
    loss_name = "MAE"
    score_range = (-1, 0)
    output_kind = "probabilities"
    undefined = "exclude"

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs - targets).abs().mean(-1)

    def score(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return -self.loss(outputs, targets)


def plain() -> nn.Module:
    return nn.Linear(4, 3)


def broken() -> nn.Module:
    raise ValueError("no network")


def facts(task: TaskInfo[Split] | TaskDescription) -> dict[str, object]:
    """All that a reader of results asks of a task."""
    part = task.part("b", 10)
    return {
        "key": task.key,
        "reported": task.reported,
        "select": task.select,
        "unit": task.score_unit,
        "names": (task.name, task.score_name, task.loss_name),
        "range": task.score_range,
        "outputs": (task.output_kind, task.why_no_ensemble, task.is_classification),
        "undefined": task.undefined,
        "splits": {name: (s.role, s.digest, len(s)) for name, s in task.splits.items()},
        "part": (part, task.whole_of(part), task.split(part).digest, len(task.split(part))),
        "whole": task.part("b", 30),
        "BatchNorm": task.can_re_estimate,
        "precision": task.precision,
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: ClassificationTask(build_model, SPLITS, name="toy"),
        lambda: ClassificationTask(plain, SPLITS, name="🍲 \udc80", version="2"),
        lambda: Negative(plain, {name: SPLITS[name] for name in "bc"}),
    ],
    ids=["classification", "odd name", "own metric"],
)
def test_a_description_says_the_same_as_the_task_after_a_round_trip(
    make: Callable[[], Task],
) -> None:
    task = make()
    body = json.loads(json.dumps(task.describe().to_json()))
    assert facts(TaskDescription.from_json(body)) == facts(task)
    assert TaskDescription.from_json(body).to_json() == body


def test_a_task_whose_network_cannot_be_built_can_be_described() -> None:
    task = ClassificationTask(broken, SPLITS)
    task.source_digest = "0" * 64
    assert not task.describe().has_batchnorm
    with pytest.raises(TaskError, match="no network"):
        assert task.has_batchnorm


def test_a_description_has_the_splits_of_a_task() -> None:
    body = ClassificationTask(plain, SPLITS).describe().to_json()
    del body["splits"]["b"]
    with pytest.raises(TaskError, match="exactly one split with the role 'select'"):
        TaskDescription.from_json(body)
