from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from soupcore import Cancelled, Evaluator, LinearPath, Sweep, TaskError, linear_path, mean, uniform
from soupcore.connectivity import stored_path
from soupcore.connectivity.path import grid
from tests.connectivity.well import Well

NAN = float("nan")


def path(alphas: list[float], losses: list[float], scores: list[float] | None = None) -> LinearPath:
    return LinearPath(
        alphas=np.array(alphas),
        losses=np.array(losses),
        scores=np.array(scores or [0.5] * len(alphas)),
        split="val",
        n=10,
    )


@pytest.mark.parametrize(
    ("alphas", "losses", "barrier", "at"),
    [
        pytest.param([0, 1], [3, 7], 0, 0, id="ends only"),
        pytest.param([0, 0.5, 1], [1, 2, 1], 1, 0.5, id="a hill"),
        pytest.param([0, 0.5, 1], [1, 0, 1], 0, 0, id="a valley"),
        pytest.param([0, 0.5, 1], [0, 1, 2], 0, 0, id="on the chord"),
        pytest.param([0, 0.25, 0.5, 1], [4, 4, 3, 0], 1, 0.25, id="above a sloping chord"),
        pytest.param([0, 0.25, 0.75, 1], [0, 5, 6, 8], 3, 0.25, id="the first of two hills"),
        pytest.param([-1, 0, 0.5, 1, 2], [99, 1, 2, 1, 99], 1, 0.5, id="outside does not count"),
        pytest.param([0, 0.5, 1], [1, NAN, 1], NAN, 0.5, id="no number on the way"),
        pytest.param([0, 0.5, 1], [NAN, 1, 1], NAN, 0, id="no number at an end"),
        pytest.param([-1, 0, 0.5, 1], [NAN, 1, 2, 1], 1, 0.5, id="no number outside"),
    ],
)
def test_the_loss_barrier_is_the_largest_height_above_the_chord(
    alphas: list[float], losses: list[float], barrier: float, at: float
) -> None:
    found = path(alphas, losses)
    assert found.barrier == pytest.approx(barrier, nan_ok=True)
    assert found.barrier_alpha == at
    assert path([1 - a for a in alphas][::-1], losses[::-1]).barrier == pytest.approx(
        barrier, nan_ok=True
    )


@pytest.mark.parametrize(
    ("alphas", "scores", "barrier"),
    [
        pytest.param([0, 1], [0.8, 0.8], 0, id="equal ends"),
        pytest.param([0, 1], [0.9, 0.7], 0.1, id="the worse end is under the mean of both"),
        pytest.param([0, 0.5, 1], [0.9, 0.6, 0.7], 0.2, id="a drop"),
        pytest.param([0, 0.5, 1], [0.8, 0.9, 0.8], 0, id="a rise"),
        pytest.param([-1, 0, 0.5, 1, 2], [0, 0.8, 0.7, 0.8, 0], 0.1, id="outside does not count"),
    ],
)
def test_the_error_barrier_is_the_largest_error_above_the_mean_of_the_ends(
    alphas: list[float], scores: list[float], barrier: float
) -> None:
    found = path(alphas, [1.0] * len(alphas), scores)
    assert found.error_barrier == pytest.approx(barrier)
    assert found.accuracies.tolist() == scores


def test_the_chord_goes_on_beyond_the_ends() -> None:
    assert path([-1, 0, 0.5, 1, 2], [9, 1, 9, 3, 9]).chord.tolist() == [-1, 1, 2, 3, 5]


@pytest.mark.parametrize(
    ("alphas", "expected"),
    [
        (2, [0, 1]),
        (3, [0, Fraction(1, 2), 1]),
        (11, [Fraction(i, 10) for i in range(11)]),
        ([], [0, 1]),
        ([0.5], [0, Fraction(1, 2), 1]),
        ([1, 0.3, 0, 0.3, Fraction(3, 10)], [0, Fraction(3, 10), 1]),
        ([1.5, -0.5], [Fraction(-1, 2), 0, 1, Fraction(3, 2)]),
    ],
)
def test_a_grid_is_ascending_with_both_ends(alphas: Any, expected: list[Fraction]) -> None:
    assert grid(alphas) == expected


def test_a_grid_of_floats_is_the_grid_of_fractions() -> None:
    assert grid([i / 10 for i in range(11)]) == grid(11)


@pytest.mark.parametrize("count", [1, 0, -3])
def test_a_grid_of_fewer_than_two_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="at least its two ends"):
        grid(count)


@pytest.mark.parametrize("alpha", [NAN, float("inf")])
def test_an_alpha_that_is_not_finite_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        grid([alpha])


# On a loss that is known: L(w) = (w² − 1)², from w = −1 to w = 1


@pytest.mark.parametrize("alphas", [3, 11, [0.5], [0.1, 0.2, 0.5]])
def test_a_path_over_a_known_hill_has_its_height(well: Well, alphas: Any) -> None:
    found = linear_path(well.sweep["left"], well.sweep["right"], well.evaluator, alphas)
    w = 2 * found.alphas - 1
    np.testing.assert_allclose(found.losses, (w**2 - 1) ** 2, atol=1e-6)
    assert found.scores.tolist() == (abs(w) > 0.5).astype(float).tolist()
    assert found.barrier == pytest.approx(1)
    assert found.barrier_alpha == 0.5
    assert found.error_barrier == pytest.approx(1)
    assert (found.split, found.n) == ("val", 4)


def test_a_path_may_go_beyond_its_ends(well: Well) -> None:
    found = linear_path(well.sweep["left"], well.sweep["right"], well.evaluator, [-0.5, 1.5])
    assert found.alphas.tolist() == [-0.5, 0, 1, 1.5]
    np.testing.assert_allclose(found.losses, [9, 0, 0, 9], atol=1e-5)
    assert found.barrier == pytest.approx(0)


def test_a_path_without_a_hill_has_no_barrier(well: Well) -> None:
    found = linear_path(well.sweep["right"], well.sweep["right_too"], well.evaluator)
    assert found.barrier == pytest.approx(0, abs=1e-6)
    assert found.error_barrier == 0


# On a real sweep


def test_the_ends_of_a_path_are_the_ingredients(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    ends = [evaluator.evaluate(sweep[name].mixture, "val") for name in ("run1", "run10")]
    found = linear_path(sweep["run1"], sweep["run10"], evaluator, 5)
    assert [found.losses[0], found.losses[-1]] == [end.loss for end in ends]
    assert [found.scores[0], found.scores[-1]] == [end.score for end in ends]
    assert len(passes) == 2 + 3


def test_the_middle_of_a_path_is_the_uniform_soup_of_its_ends(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    soup = uniform(sweep, ["run1", "run2"]).evaluate(evaluator, ["val"])
    assert len(passes) == 1
    found = linear_path(sweep["run2"], sweep["run1"], evaluator, 3)
    assert len(passes) == 3
    assert found.losses[1] == soup.evaluations["val"].loss
    assert found.scores[1] == soup.evaluations["val"].score


def test_a_path_walked_back_needs_no_pass(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    there = linear_path(sweep["run1"], sweep["run2"], evaluator)
    assert len(passes) == 11
    back = linear_path(sweep["run2"].mixture, sweep["run1"].mixture, evaluator)
    assert len(passes) == 11
    assert back.losses.tolist() == there.losses.tolist()[::-1]


def test_a_finer_grid_takes_what_a_coarser_one_found(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    linear_path(sweep["run1"], sweep["run2"], evaluator, 3)
    linear_path(sweep["run1"], sweep["run2"], evaluator, 5)
    assert len(passes) == 5


def test_a_path_may_run_between_any_two_points_on_any_split(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    assert sweep.base is not None
    soup = mean([sweep["run1"].mixture, sweep["run2"].mixture])
    found = linear_path(sweep.base, soup, evaluator, 3, split="test")
    assert (found.split, found.n) == ("test", 90)
    middle = sweep.mixture({"base": 0.5, "run1": 0.25, "run2": 0.25})
    assert found.losses[1] == evaluator.evaluate(middle, "test").loss


def test_a_stored_path_computes_nothing(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    ends = sweep["run1"], sweep["run2"]
    assert stored_path(*ends, evaluator, 3) is None
    linear_path(*ends, evaluator, 2)
    assert stored_path(*ends, evaluator, 3) is None
    linear_path(*ends, evaluator, 3)
    passes.clear()
    found = stored_path(*ends, evaluator, 3)
    assert found is not None
    assert found.losses.tolist() == linear_path(*ends, evaluator, 3).losses.tolist()
    assert stored_path(*ends, evaluator, 3, split="test") is None
    assert passes == []


def test_progress_runs_to_the_end_and_may_stop_the_work(sweep: Sweep, evaluator: Evaluator) -> None:
    reports: list[tuple[int, int]] = []

    def on_progress(done: int, total: int) -> None:
        reports.append((done, total))
        if len(reports) == 3:
            raise Cancelled

    ends = sweep["run1"], sweep["run2"]
    with pytest.raises(Cancelled):
        linear_path(*ends, evaluator, 5, on_progress=on_progress)
    linear_path(*ends, evaluator, 5, on_progress=on_progress)
    assert reports[:3] == [(100, 500), (200, 500), (300, 500)]
    assert reports[3:] == [(100 * i, 500) for i in (1, 2, 3, 4, 5)]


def test_an_unknown_split_is_refused(sweep: Sweep, evaluator: Evaluator) -> None:
    with pytest.raises(TaskError, match="has no split 'dev'"):
        linear_path(sweep["run1"], sweep["run2"], evaluator, split="dev")


def test_a_computed_grid_is_the_same_as_the_counted_one() -> None:
    assert grid([float(alpha) for alpha in np.linspace(0, 1, 11)]) == grid(11)
