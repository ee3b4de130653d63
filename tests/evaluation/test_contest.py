import pytest
import torch

from soupcore import ClassificationTask, Evaluation, Evaluator, Mixture, Store, Sweep, mean
from soupcore.evaluation import Bound


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


def test_a_loser_is_given_up_with_a_bound_that_holds(
    evaluator: Evaluator,
    incumbent: Evaluation,
    loser: Mixture,
    passes: list[int],
    task: ClassificationTask,
    store: Store,
) -> None:
    found = evaluator.contest(loser, incumbent)
    assert isinstance(found, Bound)
    assert found.seen == len(found.scores) == sum(passes) < 100
    assert (found.mixture_key, found.split, found.n) == (loser.key, "val", 100)
    assert evaluator.stored([loser], "val") == [None]
    full = evaluator.evaluate(loser, "val")
    assert full.score <= found.score < incumbent.score
    assert torch.equal(full.scores[found.rows], found.scores)


def test_what_was_given_up_is_remembered(
    evaluator: Evaluator, incumbent: Evaluation, loser: Mixture, passes: list[int]
) -> None:
    first = evaluator.contest(loser, incumbent)
    passes.clear()
    reports: list[tuple[int, int]] = []
    again = evaluator.contest(
        loser, incumbent, on_progress=lambda done, total: reports.append((done, total))
    )
    assert isinstance(first, Bound)
    assert isinstance(again, Bound)
    assert passes == []
    assert reports == [(100, 100)]
    assert again.score == first.score
    assert torch.equal(again.rows, first.rows)


def test_what_was_given_up_against_a_better_one_is_seen_to_the_end_where_that_is_not_enough(
    evaluator: Evaluator, incumbent: Evaluation, loser: Mixture, sweep: Sweep
) -> None:
    assert isinstance(evaluator.contest(loser, incumbent), Bound)
    weaker = evaluator.evaluate(sweep.mixture({"base": -1}), "val")
    found = evaluator.contest(loser, weaker)
    assert isinstance(found, Evaluation)
    assert found.score >= weaker.score


def test_one_that_is_not_given_up_is_evaluated_as_always(
    evaluator: Evaluator,
    incumbent: Evaluation,
    winner: Mixture,
    passes: list[int],
    task: ClassificationTask,
    store: Store,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    difficulty = torch.randn(100, generator=torch.Generator().manual_seed(1))
    found = evaluator.contest(winner, incumbent, difficulty=difficulty)
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


def test_an_evaluation_that_is_known_is_taken(
    evaluator: Evaluator, incumbent: Evaluation, loser: Mixture, passes: list[int]
) -> None:
    known = evaluator.evaluate(loser, "val")
    passes.clear()
    assert evaluator.contest(loser, incumbent) == known
    assert passes == []


def test_progress_is_told_and_ends_with_all(
    evaluator: Evaluator, incumbent: Evaluation, sweep: Sweep
) -> None:
    for point in (sweep["run1"].mixture, mean([sweep["run1"].mixture, sweep["run2"].mixture])):
        reports: list[tuple[int, int]] = []
        evaluator.contest(
            point, incumbent, on_progress=lambda *report, to=reports: to.append(report)
        )
        assert reports == sorted(reports)
        assert reports[-1] == (100, 100)
