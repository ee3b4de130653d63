import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss

from soupcore import ClassificationTask, Evaluator, Sweep, TaskError, ensemble, interpolate
from soupcore.evaluation import score_interval
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
