"""Scores that are undefined for some examples, as the Dice of an image without the class."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from soupcore import (
    ClassificationTask,
    Evaluator,
    Parts,
    RecipeError,
    Split,
    Store,
    Sweep,
    Task,
    TaskError,
    curve,
    greedy,
    greedy_ensemble,
    greedy_orders,
    uniform,
    weighted,
)
from soupcore.analysis import cross_fit_greedy, leave_one_out, shapley_values
from tests.toy import build_model

NAMES = ["run1", "run2", "run10"]


class Dice(ClassificationTask):
    """Undefined where the class is 0: by the target, or by what the network says."""

    score_name = "dice"
    by_prediction = False

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        absent = (self.predict(outputs) if self.by_prediction else targets) == 0
        return super().score(outputs, targets).masked_fill(absent, math.nan)


class Excluded(Dice):
    undefined = "exclude"


class ExcludedByPrediction(Excluded):
    by_prediction = True


class UndefinedLoss(ClassificationTask):
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().loss(outputs, targets).masked_fill(targets == 0, math.nan)


@pytest.fixture
def make(splits: dict[str, Split], store: Store) -> Callable[[type[ClassificationTask]], Evaluator]:
    return lambda kind: Evaluator(kind(build_model, splits), store, device="cpu", batch_size=256)


Make = Callable[[type[ClassificationTask]], Evaluator]

CHOICES: dict[str, Callable[[Sweep, Evaluator], Any]] = {
    "greedy": greedy,
    "greedy to the end": lambda sweep, evaluator: greedy(sweep, evaluator, early_stop=False),
    "greedy in a random order": lambda sweep, evaluator: greedy(sweep, evaluator, order="random"),
    "greedy backward": lambda sweep, evaluator: greedy(sweep, evaluator, backward=True),
    "orders": lambda sweep, evaluator: greedy_orders(sweep, evaluator, seeds=[0]),
    "weighted": weighted,
    "curve": lambda sweep, evaluator: curve("ema", "decay", sweep, evaluator, values=[0, 0.5]),
    "optimism": lambda sweep, evaluator: cross_fit_greedy(
        evaluator, {name: sweep[name].mixture for name in NAMES}, repeats=1
    ),
    "leave one out": lambda sweep, evaluator: leave_one_out(
        evaluator, Parts(sweep, uniform(sweep, NAMES)), "val"
    ),
    "shapley": lambda sweep, evaluator: shapley_values(
        evaluator, Parts(sweep, uniform(sweep, NAMES)), "val"
    ),
    "greedy ensemble": lambda sweep, evaluator: (
        evaluator.evaluate_all([sweep[name].mixture for name in NAMES], "val"),
        greedy_ensemble(evaluator, {name: sweep[name].mixture for name in NAMES}),
    ),
}


@pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)
def test_choosing_by_an_undefined_score_is_refused(
    sweep: Sweep, make: Make, choose: Callable[[Sweep, Evaluator], Any]
) -> None:
    evaluator = make(Dice)
    targets = evaluator.task.split("val").targets
    count = int((targets == 0).sum())
    assert 0 < count < len(targets)
    words = rf"The score of .* undefined \(NaN\) for {count} of {len(targets)} examples of 'val'"
    with pytest.raises(TaskError, match=rf'{words}.*undefined = "exclude"'):
        choose(sweep, evaluator)


@pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)
def test_undefined_examples_are_left_out_where_the_task_says_so(
    sweep: Sweep, make: Make, choose: Callable[[Sweep, Evaluator], Any]
) -> None:
    choose(sweep, make(Excluded))
    choose(sweep, make(ExcludedByPrediction))


def test_choosing_by_the_loss_ignores_undefined_scores_but_not_undefined_losses(
    sweep: Sweep, make: Make
) -> None:
    by_loss = greedy(sweep, make(Dice), metric="loss")
    plain = greedy(sweep, make(ClassificationTask), metric="loss")
    assert by_loss.coefficients == plain.coefficients
    assert all(step.interval is None for step in by_loss.trace)
    assert greedy(sweep, make(UndefinedLoss)).trace
    for choose in (partial(greedy, metric="loss"), partial(weighted, metric="loss")):
        with pytest.raises(TaskError, match=r"The loss of .* undefined \(NaN\) for \d+ of"):
            choose(sweep, make(UndefinedLoss))


@pytest.mark.parametrize("kind", [Excluded, ExcludedByPrediction])
def test_each_mean_is_over_the_examples_where_the_score_of_that_point_is_defined(
    sweep: Sweep, make: Make, kind: type[Dice]
) -> None:
    evaluator = make(kind)
    for name in NAMES:
        for found in (
            evaluator.evaluate(sweep[name].mixture, "val"),
            *evaluator.stored([sweep[name].mixture], "val"),
        ):
            assert found is not None
            absent = (
                found.predictions if kind.by_prediction else evaluator.task.split("val").targets
            )
            assert found.undefined == int((absent == 0).sum())
            assert torch.equal(found.scores.isnan(), absent == 0)
            assert found.score == pytest.approx(float(np.nanmean(found.scores.double())))
            assert found.score_interval[0] < found.score < found.score_interval[1]


@pytest.mark.parametrize("kind", [Excluded, ExcludedByPrediction])
def test_greedy_chooses_by_the_mean_of_the_defined_scores(
    sweep: Sweep, make: Make, kind: type[Dice]
) -> None:
    evaluator, slow = make(kind), make(kind)
    slow.task.score_range = None
    made, expected = greedy(sweep, evaluator), greedy(sweep, slow, early_stop=False)
    assert made.coefficients == expected.coefficients

    def score(*names: str) -> float:
        found = slow.evaluate(sweep.mixture(dict.fromkeys(names, 1 / len(names))), "val")
        return float(np.nanmean(found.scores.double()))

    soup: tuple[str, ...] = ()
    for step in expected.trace:
        trial = (*soup, step.candidate)
        assert step.score == pytest.approx(score(*trial))
        assert step.accepted is (not soup or score(*trial) >= score(*soup))
        soup = step.soup


def test_excluding_examples_is_another_task(make: Make, splits: dict[str, Split]) -> None:
    refused, excluded = (ClassificationTask(build_model, splits) for _ in range(2))
    excluded.undefined = "exclude"
    assert refused.key != excluded.key


class Distance(Task):
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(1)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -self.loss(outputs, targets)


def test_targets_that_are_nan_are_refused_before_any_point_is_scored() -> None:
    inputs = torch.randn(50, 3)
    targets = inputs[:, :2].clone()
    targets[[7, 9], 0] = math.nan
    task = Distance(lambda: torch.nn.Linear(3, 2), {"val": Split("select", inputs, targets)})
    with pytest.raises(TaskError, match=r"2 of 50 targets contain NaN, first at example 7"):
        task.check(torch.zeros(4, 2), targets)
    task.undefined = "exclude"
    task.check(torch.zeros(4, 2), targets)


def test_greedy_refuses_if_every_network_fails(
    sweep: Sweep, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = make(ClassificationTask)
    monkeypatch.setattr(
        evaluator.task, "loss", lambda outputs, targets: torch.full((len(targets),), math.inf)
    )
    with pytest.raises(RecipeError, match="No ingredient has a finite loss on 'val'"):
        greedy(sweep, evaluator, metric="loss")
    with pytest.raises(RecipeError, match="no ingredient has a non-zero loss"):
        weighted(sweep, evaluator, metric="loss")
