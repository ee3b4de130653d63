import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from soupcore import TaskError
from soupcore.evaluation.race import Race


def race(incumbent: Tensor, *, strictly: bool = False, difficulty: Tensor | None = None) -> Race:
    return Race(
        incumbent,
        strictly=strictly,
        lowest=0,
        highest=1,
        difficulty=torch.zeros(len(incumbent)) if difficulty is None else difficulty,
    )


def run(contest: Race, candidate: Tensor, batch: int) -> Tensor:
    """Go through the candidate's scores as a pass does; return those that were seen."""
    seen = 0
    while seen < len(candidate):
        size = contest.size(seen, batch)
        assert 1 <= size <= batch
        seen += size
        if contest.is_lost(candidate[contest.order[:seen]]):
            break
    return candidate[contest.order[:seen]]


def full_decision(incumbent: Tensor, candidate: Tensor, *, strictly: bool) -> bool:
    """What a recipe says that has seen all examples."""
    before, after = float(incumbent.double().mean()), float(candidate.double().mean())
    return after > before if strictly else after >= before


whole = st.integers(0, 1).map(float)
shares = st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.7, 1 / 3, 2 / 3, 1.0]) | st.floats(
    0, 1, width=32, allow_subnormal=False
)


@pytest.mark.parametrize("strictly", [False, True])
@pytest.mark.parametrize("score", [whole, shares], ids=["right or wrong", "shares"])
@given(data=st.data())
def test_what_is_given_up_is_what_the_full_pass_would_reject(
    data: st.DataObject, score: st.SearchStrategy[float], strictly: bool
) -> None:
    n = data.draw(st.integers(1, 60))
    table = st.lists(score, min_size=n, max_size=n).map(torch.tensor)
    incumbent, candidate = data.draw(table), data.draw(table)
    difficulty = data.draw(table)
    contest = race(incumbent, strictly=strictly, difficulty=difficulty)
    seen = run(contest, candidate, batch=data.draw(st.integers(1, 20)))
    if len(seen) < n:
        assert not full_decision(incumbent, candidate, strictly=strictly)
        assert contest.reach(seen) / n >= float(candidate.double().mean()) - 1e-12


@pytest.mark.parametrize("strictly", [False, True])
def test_a_candidate_that_does_as_well_is_seen_to_the_end(strictly: bool) -> None:
    incumbent = torch.tensor([1.0, 0.0] * 50)
    seen = run(race(incumbent), incumbent.flip(0), batch=7)
    assert len(seen) == 100
    better = incumbent.clone()
    better[1] = 1
    assert len(run(race(incumbent, strictly=strictly), better, batch=7)) == 100


def test_a_tie_is_given_up_only_where_better_is_asked_for() -> None:
    incumbent = torch.tensor([0.0] * 10 + [1.0] * 90)
    assert len(run(race(incumbent, strictly=False), incumbent, batch=100)) == 100
    # After the ten that both get wrong, the most that it can reach is the incumbent's score.
    assert len(run(race(incumbent, strictly=True), incumbent, batch=100)) == 11


def test_the_hardest_examples_are_seen_first() -> None:
    difficulty = torch.tensor([0.1, 3.0, math.nan, 2.0])
    assert race(torch.ones(4), difficulty=difficulty).order.tolist() == [2, 1, 3, 0]


def test_a_candidate_that_is_wrong_where_the_incumbent_is_and_once_more_is_known_at_once() -> None:
    n = 1000
    incumbent = (torch.arange(n) >= 100).float()
    candidate = (torch.arange(n) >= 101).float()
    seen = run(race(incumbent, difficulty=-torch.arange(n).float()), candidate, batch=256)
    assert len(seen) == 101


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("whose", ["incumbent", "candidate"])
def test_a_broken_point_is_seen_to_the_end(bad: float, whose: str) -> None:
    scores = {"incumbent": torch.ones(50), "candidate": torch.zeros(50)}
    scores[whose][3] = bad
    contest = Race(
        scores["incumbent"], strictly=False, lowest=0, highest=math.inf, difficulty=torch.zeros(50)
    )
    assert len(run(contest, scores["candidate"], batch=10)) == 50


@pytest.mark.parametrize("outside", [-0.5, 1.5])
def test_a_score_outside_the_range_is_refused(outside: float) -> None:
    with pytest.raises(TaskError, match=r"`score_range` says .* between 0 and 1"):
        race(torch.ones(3)).is_lost(torch.tensor([outside]))


def test_a_batch_is_never_larger_than_was_asked_for_and_no_crumbs_are_left() -> None:
    sizes: Callable[[int], int] = lambda seen: race(torch.ones(100)).size(seen, 64)  # noqa: E731
    assert [sizes(seen) for seen in (0, 1, 33, 53, 99)] == [1, 32, 32, 47, 1]
