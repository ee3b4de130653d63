import math
from statistics import mean
from typing import Literal

import numpy as np
import pytest
import torch

from soupcore import Cancelled, ClassificationTask, Evaluator, Store, Sweep, greedy
from soupcore.analysis import cross_fit, cross_fit_greedy
from soupcore.errors import TaskError
from soupcore.tasks import Split
from tests.toy import build_model


def coins(candidates: int, n: int, seed: int = 0) -> list[torch.Tensor]:
    """Candidates that are all right half of the time: none is better than another."""
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randint(0, 2, (candidates, n), generator=generator).float())


def test_the_best_of_equal_candidates_is_too_optimistic() -> None:
    found = [cross_fit(coins(50, 1000, seed), repeats=5) for seed in range(40)]
    assert all(each.optimism > 0.02 for each in found)
    assert mean(each.delivered for each in found) == pytest.approx(0.5, abs=0.005)
    assert sum(found[0].chosen) == pytest.approx(1)


def test_one_candidate_alone_is_not_optimistic() -> None:
    scores = coins(1, 1000)
    found = cross_fit(scores)
    assert found.optimism == pytest.approx(0)
    assert found.delivered == pytest.approx(float(scores[0].mean()))
    assert found.chosen == (1,)


def test_a_candidate_that_is_better_by_far_is_always_chosen() -> None:
    found = cross_fit([*coins(9, 1000), torch.ones(1000)])
    assert found.chosen[-1] == 1
    assert (found.promised, found.delivered) == (1, 1)


def test_a_candidate_whose_network_failed_is_never_chosen() -> None:
    found = cross_fit([torch.full((100,), -math.inf), *coins(2, 100)])
    assert found.chosen[0] == 0
    assert found.promised > found.delivered


def test_a_candidate_that_failed_on_one_example_is_chosen_on_neither_half() -> None:
    best = torch.ones(100)
    best[7] = -math.inf
    assert cross_fit([best, *coins(2, 100)]) == cross_fit(
        [torch.full((100,), -math.inf), *coins(2, 100)]
    )


def test_undefined_scores_are_refused_or_left_out() -> None:
    scores = coins(3, 100)
    scores[1][:7] = math.nan
    with pytest.raises(TaskError, match=r"candidate 2 is undefined \(NaN\) for 7 of 100"):
        cross_fit(scores)
    found = cross_fit(scores, undefined="exclude")
    assert found.chosen[1] > 0
    generator, promised = torch.Generator().manual_seed(0), []
    for _ in range(100):
        order = torch.randperm(100, generator=generator)
        for half in (order[:50], order[50:]):
            promised.append(max(np.nanmean(each[half].double().numpy()) for each in scores))
    assert found.promised == pytest.approx(np.mean(promised))


def test_the_candidate_with_the_lower_loss_is_chosen_among_equal_scores() -> None:
    (worse, scores), n = coins(2, 100), 100
    losses = [torch.full((n,), loss) for loss in (0.0, 3.0, math.nan, 1.0, 1.0)]
    found = cross_fit([worse * 0, scores, scores, scores, scores], losses)
    assert found.chosen == (0, 0, 0, 1, 0)
    assert cross_fit([worse * 0, scores, scores]).chosen == (0, 1, 0)


def test_the_seed_decides_the_halves() -> None:
    scores = coins(10, 101)
    assert cross_fit(scores, seed=3) == cross_fit(scores, seed=3)
    assert cross_fit(scores, seed=3) != cross_fit(scores, seed=4)


@pytest.mark.parametrize("scores", [[], [torch.ones(1)], [torch.ones(4), torch.ones(5)]])
def test_scores_that_are_not_of_the_same_examples_are_refused(scores: list[torch.Tensor]) -> None:
    with pytest.raises(TaskError, match="Cross-fitting needs scores"):
        cross_fit(scores)


@pytest.mark.parametrize("accept", [">=", ">"])
@pytest.mark.parametrize("metric", ["score", "loss"])
def test_greedy_on_a_half_is_the_recipe_on_a_task_of_that_half(
    sweep: Sweep, evaluator: Evaluator, store: Store, splits: dict[str, Split],
    accept: Literal[">=", ">"], metric: Literal["score", "loss"],
) -> None:  # fmt: skip
    points = {name: sweep[name].mixture for name in sweep.names()}
    found = cross_fit_greedy(evaluator, points, accept=accept, metric=metric, repeats=2, seed=5)
    whole, generator = splits["val"], torch.Generator().manual_seed(5)
    promised, delivered, taken = [], [], []
    for _ in range(2):
        order = torch.randperm(100, generator=generator)
        for here, there in ((order[:50], order[50:]), (order[50:], order[:50])):
            halves = {
                "here": Split("select", whole.inputs[here], whole.targets[here]),
                "there": Split("report", whole.inputs[there], whole.targets[there]),
            }
            judge = Evaluator(ClassificationTask(build_model, halves), store, device="cpu")
            soup = greedy(sweep, judge, accept=accept, metric=metric)
            promised.append(judge.evaluate(soup.mixture, "here").score)
            delivered.append(judge.evaluate(soup.mixture, "there").score)
            taken += soup.ingredients
    assert found.promised == pytest.approx(mean(promised))
    assert found.delivered == pytest.approx(mean(delivered))
    assert found.optimism == pytest.approx(mean(promised) - mean(delivered))
    assert found.taken == {name: taken.count(name) / 4 for name in points}


def test_each_soup_of_a_cross_fit_is_evaluated_once(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    points = {name: sweep[name].mixture for name in sweep.names()}
    told: list[tuple[int, int]] = []
    first = cross_fit_greedy(evaluator, points, on_progress=lambda *now: told.append(now))
    assert len(passes) <= 7  # of three ingredients there are seven soups
    assert told == sorted(told)
    assert told[-1][0] <= told[-1][1]
    passes.clear()
    assert cross_fit_greedy(evaluator, points) == first
    assert passes == []
    assert cross_fit_greedy(evaluator, points, seed=1) != first


def test_a_cross_fit_of_one_ingredient_has_no_gain_and_can_be_stopped(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    found = cross_fit_greedy(evaluator, {"run1": sweep["run1"].mixture})
    assert (found.gain_promised, found.gain_delivered, found.taken) == (0, 0, {"run1": 1})

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        cross_fit_greedy(evaluator, {"run1": sweep["run1"].mixture}, on_progress=stop)
    with pytest.raises(TaskError, match="at least one ingredient"):
        cross_fit_greedy(evaluator, {})
