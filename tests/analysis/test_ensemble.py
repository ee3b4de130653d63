import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor

from soupcore import (
    ClassificationTask,
    Evaluator,
    Sweep,
    Task,
    TaskError,
    ensemble,
    greedy_ensemble,
    interpolate,
)
from soupcore.intervals import score_interval
from tests.helpers import CLASSES, State, logits


@pytest.mark.parametrize("names", [["run1"], ["run1", "run10"], ["run10", "run2", "run1"]])
@pytest.mark.parametrize("split", ["val", "shift/noise"])
def test_an_ensemble_is_the_mean_of_the_logits(
    sweep: Sweep,
    states: dict[str, State],
    task: ClassificationTask,
    evaluator: Evaluator,
    passes: list[int],
    names: list[str],
    split: str,
) -> None:
    members = [sweep[name].mixture for name in names]
    for member in members:
        evaluator.evaluate(member, split)
    passes.clear()
    found = ensemble(evaluator, members, split)
    assert found is not None
    assert passes == []
    data = task.split(split)
    mean = torch.stack([logits(states[name], data.inputs).double() for name in names]).mean(0)
    right = mean.argmax(1) == data.targets
    assert (found.members, found.n) == (len(names), len(data))
    assert found.score == pytest.approx(accuracy_score(data.targets, mean.argmax(1)))
    assert found.score_interval == pytest.approx(score_interval(right.float()))
    assert found.loss == pytest.approx(
        log_loss(data.targets, mean.softmax(1), labels=range(CLASSES)), rel=1e-5
    )


def test_an_ensemble_of_one_is_that_one(sweep: Sweep, evaluator: Evaluator) -> None:
    alone = evaluator.evaluate(sweep["run1"].mixture, "val")
    found = ensemble(evaluator, [sweep["run1"].mixture], "val")
    assert found is not None
    assert (found.loss, found.score) == pytest.approx((alone.loss, alone.score))
    assert found.score_interval == alone.score_interval


def test_a_member_named_twice_counts_twice(sweep: Sweep, evaluator: Evaluator) -> None:
    a, b = sweep["run1"].mixture, sweep["run2"].mixture
    for member in (a, b):
        evaluator.evaluate(member, "val")
    once, twice = ensemble(evaluator, [a, b], "val"), ensemble(evaluator, [a, b, a], "val")
    assert once is not None
    assert twice is not None
    assert twice.members == 3
    assert twice.loss != once.loss


def test_without_the_outputs_of_every_member_there_is_no_ensemble(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    members = [
        sweep["run1"].mixture,
        interpolate(sweep["run1"].mixture, sweep["run2"].mixture, 0.5),
    ]
    assert ensemble(evaluator, [], "val") is None
    assert ensemble(evaluator, members, "val") is None
    evaluator.evaluate(members[0], "val")
    assert ensemble(evaluator, members, "val") is None
    evaluator.evaluate(members[1], "val", keep_outputs=False)
    assert ensemble(evaluator, members, "val") is None
    evaluator.evaluate(members[1], "val")
    assert ensemble(evaluator, members, "val") is not None
    assert ensemble(evaluator, members, "test") is None
    assert len(passes) == 3


def test_an_unknown_split_is_refused(sweep: Sweep, evaluator: Evaluator) -> None:
    with pytest.raises(TaskError, match="has no split 'dev'"):
        ensemble(evaluator, [sweep["run1"].mixture], "dev")


class Losses(Task):
    """A language model whose network puts out the loss of each example."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs[:, 0]

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -outputs[:, 0]


class Probabilities(Losses):
    output_kind = "probabilities"


def test_outputs_are_averaged_only_where_the_task_says_that_they_may_be(
    sweep: Sweep, task: ClassificationTask
) -> None:
    refused = Losses(task.build_model, task.splits, name="Text")
    assert refused.why_no_ensemble is not None
    evaluator = Evaluator(refused)
    points = {name: sweep[name].mixture for name in ("run1", "run2")}
    evaluator.evaluate_all(list(points.values()), "val")
    with pytest.raises(TaskError, match=r"not possible.*'Text'.*output_kind"):
        ensemble(evaluator, list(points.values()), "val")
    with pytest.raises(TaskError, match=r"not possible.*'Text'.*output_kind"):
        greedy_ensemble(evaluator, points)

    allowed = Probabilities(task.build_model, task.splits)
    assert allowed.why_no_ensemble is None
    evaluator = Evaluator(allowed)
    both = evaluator.evaluate_all(list(points.values()), "val")
    found = ensemble(evaluator, list(points.values()), "val")
    assert found is not None
    assert found.score == pytest.approx(sum(each.score for each in both) / 2)
