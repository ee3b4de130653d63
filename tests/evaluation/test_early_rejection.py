import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from soupcore import (
    ClassificationTask,
    Evaluation,
    Evaluator,
    Mixture,
    Store,
    Sweep,
    TaskError,
    mean,
)
from soupcore.evaluation import UpperBound
from soupcore.evaluation.early_rejection import EarlyRejection


def rejection_of(
    incumbent: Tensor, *, strictly: bool = False, difficulty: Tensor | None = None
) -> EarlyRejection:
    return EarlyRejection(
        incumbent,
        strictly=strictly,
        lowest=0,
        highest=1,
        difficulty=torch.zeros(len(incumbent)) if difficulty is None else difficulty,
    )


def run(rejection: EarlyRejection, candidate: Tensor, batch: int) -> Tensor:
    """Go through the candidate's scores as a pass does; return those that were seen."""
    seen = 0
    while seen < len(candidate):
        size = rejection.size(seen, batch)
        assert 1 <= size <= batch
        seen += size
        if rejection.is_rejected(candidate[rejection.order[:seen]]):
            break
    return candidate[rejection.order[:seen]]


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
def test_rejected_candidates_are_those_that_the_full_pass_would_reject(
    data: st.DataObject, score: st.SearchStrategy[float], strictly: bool
) -> None:
    n = data.draw(st.integers(1, 60))
    table = st.lists(score, min_size=n, max_size=n).map(torch.tensor)
    incumbent, candidate = data.draw(table), data.draw(table)
    difficulty = data.draw(table)
    rejection = rejection_of(incumbent, strictly=strictly, difficulty=difficulty)
    seen = run(rejection, candidate, batch=data.draw(st.integers(1, 20)))
    if len(seen) < n:
        assert not full_decision(incumbent, candidate, strictly=strictly)
        assert rejection.sum_bound(seen) / n >= float(candidate.double().mean()) - 1e-12


@pytest.mark.parametrize("strictly", [False, True])
@given(data=st.data())
def test_greedy_with_weights_decides_by_weighted_means(data: st.DataObject, strictly: bool) -> None:
    n = data.draw(st.integers(1, 40))
    table = st.lists(whole, min_size=n, max_size=n).map(torch.tensor)
    incumbent, candidate, difficulty = (data.draw(table) for _ in range(3))
    some = st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=n, max_size=n)
    weights = torch.tensor(data.draw(some.filter(any)), dtype=torch.float64)
    rejection = EarlyRejection(
        incumbent,
        strictly=strictly,
        lowest=0,
        highest=1,
        difficulty=difficulty,
        weights=weights,
    )
    seen = run(rejection, candidate, batch=data.draw(st.integers(1, 20)))
    before, after = (float((each * weights).sum()) for each in (incumbent, candidate))
    rows = rejection.order[: len(seen)]
    bound = rejection.bound("", "val", rows, seen).score
    assert bound >= after / float(weights.sum()) - 1e-9
    if len(seen) < n:
        assert after <= before if strictly else after < before
    shuffled = torch.randperm(len(seen))
    again = rejection.bound("", "val", rows[shuffled], seen[shuffled]).score
    assert again == pytest.approx(bound)


def test_examples_of_weight_zero_come_last_and_are_not_needed() -> None:
    weights = torch.tensor([0.0] * 90 + [1.0] * 10)
    rejection = EarlyRejection(
        torch.ones(100),
        strictly=False,
        lowest=0,
        highest=1,
        difficulty=torch.ones(100),
        weights=weights,
    )
    assert rejection.order[:10].tolist() == [*range(90, 100)]
    assert len(run(rejection, torch.zeros(100), batch=100)) == 1


@pytest.mark.parametrize("strictly", [False, True])
def test_an_equal_candidate_is_evaluated_to_the_end(strictly: bool) -> None:
    incumbent = torch.tensor([1.0, 0.0] * 50)
    seen = run(rejection_of(incumbent), incumbent.flip(0), batch=7)
    assert len(seen) == 100
    better = incumbent.clone()
    better[1] = 1
    assert len(run(rejection_of(incumbent, strictly=strictly), better, batch=7)) == 100


def test_a_tie_is_rejected_only_by_a_strict_comparison() -> None:
    incumbent = torch.tensor([0.0] * 10 + [1.0] * 90)
    assert len(run(rejection_of(incumbent, strictly=False), incumbent, batch=100)) == 100
    # After the ten that both get wrong, the most that it can reach is the incumbent's score.
    assert len(run(rejection_of(incumbent, strictly=True), incumbent, batch=100)) == 11


def test_the_hardest_examples_are_evaluated_first() -> None:
    difficulty = torch.tensor([0.1, 3.0, math.nan, 2.0])
    assert rejection_of(torch.ones(4), difficulty=difficulty).order.tolist() == [2, 1, 3, 0]


def test_a_candidate_with_one_more_error_is_rejected_early() -> None:
    n = 1000
    incumbent = (torch.arange(n) >= 100).float()
    candidate = (torch.arange(n) >= 101).float()
    seen = run(rejection_of(incumbent, difficulty=-torch.arange(n).float()), candidate, batch=256)
    assert len(seen) == 101


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("whose", ["incumbent", "candidate"])
def test_a_broken_point_is_evaluated_to_the_end(bad: float, whose: str) -> None:
    scores = {"incumbent": torch.ones(50), "candidate": torch.zeros(50)}
    scores[whose][3] = bad
    rejection = EarlyRejection(
        scores["incumbent"], strictly=False, lowest=0, highest=math.inf, difficulty=torch.zeros(50)
    )
    assert len(run(rejection, scores["candidate"], batch=10)) == 50


@pytest.mark.parametrize("outside", [-0.5, 1.5])
def test_a_score_outside_the_range_is_refused(outside: float) -> None:
    with pytest.raises(TaskError, match=r"`score_range` is 0.* to 1"):
        rejection_of(torch.ones(3)).is_rejected(torch.tensor([outside]))


def test_batches_have_at_most_the_requested_size_and_none_is_tiny() -> None:
    sizes: Callable[[int], int] = lambda seen: rejection_of(torch.ones(100)).size(seen, 64)  # noqa: E731
    assert [sizes(seen) for seen in (0, 1, 33, 53, 99)] == [1, 32, 32, 47, 1]


@pytest.fixture
def incumbent(sweep: Sweep, evaluator: Evaluator, passes: list[int]) -> Evaluation:
    """What the base scores: better than anything that was moved from it."""
    assert sweep.base is not None
    found = evaluator.evaluate(sweep.base.mixture, "val")
    passes.clear()
    return found


@pytest.fixture
def loser(sweep: Sweep) -> Mixture:
    return sweep["run10"].mixture


@pytest.fixture
def winner(sweep: Sweep) -> Mixture:
    """The base itself, by a detour that makes it another point."""
    return sweep.mixture({"base": 1.0001})


def test_a_rejected_candidate_has_a_valid_upper_bound(
    evaluator: Evaluator,
    incumbent: Evaluation,
    loser: Mixture,
    passes: list[int],
    task: ClassificationTask,
    store: Store,
) -> None:
    found = evaluator.evaluate_or_reject(loser, incumbent)
    assert isinstance(found, UpperBound)
    assert found.seen == len(found.scores) == sum(passes) < 100
    assert (found.mixture_key, found.split, found.n) == (loser.key, "val", 100)
    assert evaluator.stored([loser], "val") == [None]
    full = evaluator.evaluate(loser, "val")
    assert full.score <= found.score < incumbent.score
    assert torch.equal(full.scores[found.rows], found.scores)


def test_rejections_are_stored(
    evaluator: Evaluator, incumbent: Evaluation, loser: Mixture, passes: list[int]
) -> None:
    first = evaluator.evaluate_or_reject(loser, incumbent)
    passes.clear()
    reports: list[tuple[int, int]] = []
    again = evaluator.evaluate_or_reject(
        loser, incumbent, on_progress=lambda done, total: reports.append((done, total))
    )
    assert isinstance(first, UpperBound)
    assert isinstance(again, UpperBound)
    assert passes == []
    assert reports == [(100, 100)]
    assert again.score == first.score
    assert torch.equal(again.rows, first.rows)


def test_a_stored_bound_that_is_too_weak_is_evaluated_to_the_end(
    evaluator: Evaluator, incumbent: Evaluation, loser: Mixture, sweep: Sweep
) -> None:
    assert isinstance(evaluator.evaluate_or_reject(loser, incumbent), UpperBound)
    weaker = evaluator.evaluate(sweep.mixture({"base": -1}), "val")
    found = evaluator.evaluate_or_reject(loser, weaker)
    assert isinstance(found, Evaluation)
    assert found.score >= weaker.score


def test_an_accepted_candidate_is_evaluated_as_usual(
    evaluator: Evaluator,
    incumbent: Evaluation,
    winner: Mixture,
    passes: list[int],
    task: ClassificationTask,
    store: Store,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    difficulty = torch.randn(100, generator=torch.Generator().manual_seed(1))
    found = evaluator.evaluate_or_reject(winner, incumbent, difficulty=difficulty)
    assert isinstance(found, Evaluation)
    assert sum(passes) == 100
    assert evaluator.stored([winner], "val") == [found]
    other = Store(tmp_path_factory.mktemp("other"))
    plain = Evaluator(task, other, device="cpu", batch_size=256).evaluate(winner, "val")
    assert found.predictions.tolist() == plain.predictions.tolist()
    assert found.scores.tolist() == plain.scores.tolist()
    torch.testing.assert_close(found.losses, plain.losses)
    torch.testing.assert_close(found.outputs, plain.outputs)
    other.close()


def test_stored_evaluations_are_used(
    evaluator: Evaluator, incumbent: Evaluation, loser: Mixture, passes: list[int]
) -> None:
    known = evaluator.evaluate(loser, "val")
    passes.clear()
    assert evaluator.evaluate_or_reject(loser, incumbent) == known
    assert passes == []


def test_progress_is_reported_up_to_the_end(
    evaluator: Evaluator, incumbent: Evaluation, sweep: Sweep
) -> None:
    for point in (sweep["run1"].mixture, mean([sweep["run1"].mixture, sweep["run2"].mixture])):
        reports: list[tuple[int, int]] = []
        evaluator.evaluate_or_reject(
            point, incumbent, on_progress=lambda *report, to=reports: to.append(report)
        )
        assert reports == sorted(reports)
        assert reports[-1] == (100, 100)
