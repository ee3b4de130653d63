from statistics import mean

import pytest
import torch

from soupcore.analysis.optimism import cross_fit
from soupcore.errors import TaskError


def coins(candidates: int, n: int, seed: int = 0) -> list[torch.Tensor]:
    """Candidates that are all right half of the time: none is better than another."""
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randint(0, 2, (candidates, n), generator=generator).float())


def test_the_best_of_equals_promises_more_than_it_gives() -> None:
    found = [cross_fit(coins(50, 1000, seed), repeats=5) for seed in range(40)]
    assert all(each.optimism > 0.02 for each in found)
    assert mean(each.delivered for each in found) == pytest.approx(0.5, abs=0.005)
    assert sum(found[0].chosen) == pytest.approx(1)


def test_what_one_candidate_promises_it_gives() -> None:
    scores = coins(1, 1000)
    found = cross_fit(scores)
    assert found.optimism == pytest.approx(0)
    assert found.delivered == pytest.approx(float(scores[0].mean()))
    assert found.chosen == (1,)


def test_a_candidate_that_is_better_by_far_is_always_chosen() -> None:
    found = cross_fit([*coins(9, 1000), torch.ones(1000)])
    assert found.chosen[-1] == 1
    assert (found.promised, found.delivered) == (1, 1)


def test_the_seed_decides_the_halves() -> None:
    scores = coins(10, 101)
    assert cross_fit(scores, seed=3) == cross_fit(scores, seed=3)
    assert cross_fit(scores, seed=3) != cross_fit(scores, seed=4)


@pytest.mark.parametrize("scores", [[], [torch.ones(1)], [torch.ones(4), torch.ones(5)]])
def test_scores_that_are_not_of_the_same_examples_are_refused(scores: list[torch.Tensor]) -> None:
    with pytest.raises(TaskError, match="Cross-fitting needs scores"):
        cross_fit(scores)
