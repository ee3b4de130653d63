from typing import Any

import numpy as np
import pytest
from torch.utils.data import TensorDataset

from soupcore import (
    Adaptive,
    Cancelled,
    ClassificationTask,
    Evaluator,
    Split,
    Store,
    Sweep,
    TaskError,
    barriers,
    linear_path,
    mean,
    uniform,
)
from soupcore.connectivity import evaluate_lines, stored_barriers, stored_lines
from soupcore.connectivity.known_lines import Alphas
from soupcore.connectivity.path import End
from tests.connectivity.well import Well


def known_path(start: End, end: End, evaluator: Evaluator, *alphas: int, **told: Any) -> Any:
    """The stored path of a line; None if points are missing."""
    found = stored_lines([(start, end)], evaluator, *alphas, **told)
    return None if found.open[0] else found.paths[0]


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


@pytest.mark.parametrize("alphas", [11, Adaptive()])
def test_a_path_walked_back_needs_no_pass(
    sweep: Sweep, evaluator: Evaluator, passes: list[int], alphas: Alphas
) -> None:
    there = linear_path(sweep["run1"], sweep["run2"], evaluator, alphas)
    walked = len(passes)
    assert walked == len(there.alphas)
    back = linear_path(sweep["run2"].mixture, sweep["run1"].mixture, evaluator, alphas)
    assert len(passes) == walked
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
    assert known_path(*ends, evaluator, 3) is None
    linear_path(*ends, evaluator, 2)
    assert known_path(*ends, evaluator, 3) is None
    linear_path(*ends, evaluator, 3)
    passes.clear()
    found = known_path(*ends, evaluator, 3)
    assert found is not None
    assert found.losses.tolist() == linear_path(*ends, evaluator, 3).losses.tolist()
    assert known_path(*ends, evaluator, 3, split="test") is None
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


# With adaptive α


def test_barriers_of_real_networks_are_those_of_a_dense_grid(
    far_sweep: Sweep, evaluator: Evaluator
) -> None:
    dense = barriers(far_sweep, evaluator, alphas=51)
    assert dense.loss.max() > 0.1  # there is something to find
    for tolerance in (0.002, 0.01):
        adaptive = barriers(far_sweep, evaluator, alphas=Adaptive(tolerance))
        allowed = tolerance * np.maximum(1, dense.loss)
        assert (adaptive.loss >= dense.loss - allowed).all()
        for pair, path in adaptive.paths.items():
            low, high = path.barrier_bracket
            assert low == path.barrier
            assert low <= high <= low + tolerance * max(1, low)
            assert low <= dense.paths[pair].barrier + allowed.max()
            assert len(path.alphas) < 20


def test_the_midpoints_of_all_pairs_are_evaluated_before_any_pair_is_refined(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    points = 3 + 3

    def stop(done: int, total: int) -> None:
        if done > points * 100:
            raise Cancelled

    with pytest.raises(Cancelled):
        barriers(sweep, evaluator, on_progress=stop)
    known = stored_barriers(sweep, evaluator)
    assert len(known.open) == len(known.paths) == 3
    assert all(len(path.alphas) == 3 for path in known.paths.values())
    assert known.missing >= 6 - 1
    assert np.isfinite(known.midpoint_advantage).all()


def test_adaptive_barriers_that_are_stored_are_looked_up_without_a_pass(
    far_sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    computed = barriers(far_sweep, evaluator)
    passes.clear()
    stored = stored_barriers(far_sweep, evaluator)
    assert stored.loss.tolist() == computed.loss.tolist()
    assert (stored.missing, stored.open) == (0, frozenset())
    assert passes == []
    assert known_path(far_sweep["run1"], far_sweep["run2"], evaluator) is not None
    finer = stored_barriers(far_sweep, evaluator, alphas=Adaptive(0.0001))
    assert finer.missing > 0
    assert finer.paths.keys() == stored.paths.keys()


def test_points_beyond_the_ends_are_evaluated_and_change_no_barrier(
    well: Well,
) -> None:
    ends = well.sweep["left"], well.sweep["right"]
    within = linear_path(*ends, well.evaluator)
    beyond = [-0.5, 1.5]
    assert known_path(*ends, well.evaluator, beyond=beyond) is None
    found = linear_path(*ends, well.evaluator, beyond=beyond)
    assert found.alphas.tolist() == [-0.5, *within.alphas, 1.5]
    assert found.barrier_bracket == within.barrier_bracket
    assert known_path(*ends, well.evaluator, beyond=beyond) is not None


def test_lines_share_the_points_that_they_have_in_common(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    a, b, c = (sweep[name] for name in ("run1", "run2", "run10"))
    paths = evaluate_lines([(a, b), (b, a), (a, c), (a, b)], evaluator, 3)
    assert len(passes) == 3 + 2
    assert paths[0].losses.tolist() == paths[1].losses.tolist()[::-1] == paths[3].losses.tolist()
    known = stored_lines([(a, b), (b, c)], evaluator, 3)
    assert (known.open, known.missing) == ([False, True], 1)
    assert known.paths[1] is None


def test_adaptive_progress_goes_to_the_end(sweep: Sweep, evaluator: Evaluator) -> None:
    reports: list[tuple[int, int]] = []
    barriers(sweep, evaluator, on_progress=lambda done, of: reports.append((done, of)))
    done = [report[0] for report in reports]
    assert done == sorted(done)
    assert all(done <= total for done, total in reports)
    assert reports[-1][0] == reports[-1][1]


def test_progress_does_not_go_back_where_data_is_decoded_first(
    sweep: Sweep, task: ClassificationTask, store: Store
) -> None:
    val = task.split("val")
    splits = {"val": Split.from_dataset("select", TensorDataset(val.inputs, val.targets))}
    decoding = ClassificationTask(task.build_model, splits)
    reports: list[tuple[int, int]] = []
    linear_path(
        sweep["run1"], sweep["run2"], Evaluator(decoding, store, device="cpu", batch_size=20), 3,
        on_progress=lambda done, of: reports.append((done, of)),
    )  # fmt: skip
    assert reports == sorted(reports)
    assert {of for _, of in reports} == {300}
    assert reports[-1] == (300, 300)
