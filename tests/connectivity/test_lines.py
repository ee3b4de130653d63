import math
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from soupcore import (
    Adaptive,
    Cancelled,
    ClassificationTask,
    Evaluator,
    Ingredient,
    Split,
    Store,
    Sweep,
    Task,
    TaskError,
    barriers,
    linear_path,
    mean,
    uniform,
)
from soupcore.connectivity import evaluate_lines, stored_lines
from soupcore.connectivity.adaptive import lobatto, part_of
from soupcore.connectivity.path import Alphas, End
from soupcore.mixtures import interpolate
from tests.connectivity.well import Well
from tests.helpers import save_sweep

GAPS = lobatto(8)[3:6:2]
Loss = Callable[[Tensor], Tensor]


def all_pairs(sweep: Sweep) -> list[tuple[Ingredient, Ingredient]]:
    return [(sweep[a], sweep[b]) for a, b in combinations(sweep.names(), 2)]


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
def test_a_reversed_path_needs_no_pass(
    sweep: Sweep, evaluator: Evaluator, passes: list[int], alphas: Alphas
) -> None:
    there = linear_path(sweep["run1"], sweep["run2"], evaluator, alphas)
    walked = len(passes)
    assert walked == len(there.alphas)
    back = linear_path(sweep["run2"].mixture, sweep["run1"].mixture, evaluator, alphas)
    assert len(passes) == walked
    assert back.losses.tolist() == there.losses.tolist()[::-1]


def test_a_finer_grid_reuses_the_points_of_a_coarser_one(
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


@pytest.mark.integration
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
    known = stored_lines(all_pairs(sweep), evaluator)
    assert known.open == [True] * 3
    paths = [path for path in known.paths if path is not None]
    assert [len(path.alphas) for path in paths] == [3] * 3
    assert known.missing >= 6 - 1
    assert all(math.isfinite(path.midpoint_advantage) for path in paths)


def test_stored_adaptive_lines_are_found_without_a_pass(
    far_sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    computed = barriers(far_sweep, evaluator)
    passes.clear()
    lines = all_pairs(far_sweep)
    stored = stored_lines(lines, evaluator)
    assert [path and path.barrier for path in stored.paths] == [
        path.barrier for path in computed.paths.values()
    ]
    assert (stored.missing, any(stored.open)) == (0, False)
    assert passes == []
    assert known_path(far_sweep["run1"], far_sweep["run2"], evaluator) is not None
    finer = stored_lines(lines, evaluator, Adaptive(0.0001))
    assert finer.missing > 0
    assert None not in finer.paths


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


# The gaps of a line, checked on a part of the split


def valley(alpha: Tensor) -> Tensor:
    return alpha * (alpha - 1)


def flat(alpha: Tensor) -> Tensor:
    return torch.zeros_like(alpha)


def hills(alpha: Tensor) -> Tensor:
    """Two hills in the widest gaps of the first five points."""
    return sum((0.5 * (-(((alpha - at) / 0.1) ** 2)).exp() for at in (0.32, 0.68)), flat(alpha))


def broken(alpha: Tensor) -> Tensor:
    return torch.where((alpha - 0.31).abs() < 0.05, math.nan, valley(alpha))


class Line(Task):
    """One weight, α. A function of α gives the loss; each example scales and shifts it."""

    def __init__(self, loss: Loss, examples: int) -> None:
        random = torch.Generator().manual_seed(0)
        difficulty = torch.randn(examples, 2, generator=random)
        split = Split("select", torch.ones(examples, 1), difficulty)
        super().__init__(lambda: nn.Linear(1, 1, bias=False), {"val": split}, name=loss.__name__)
        self._loss = loss

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        alpha = outputs[:, 0]
        level, slope = targets.unbind(1)
        return self._loss(alpha) * (1 + 0.1 * level) + level + slope * alpha**2

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.ones(len(outputs))


@pytest.fixture
def line_sweep(tmp_path: Path) -> Sweep:
    ends = {name: {"weight": torch.tensor([[alpha]])} for name, alpha in (("a", 0.0), ("b", 1.0))}
    return Sweep.from_folder(save_sweep(tmp_path / "line", ends))


@pytest.mark.parametrize(
    ("loss", "whole", "on_subset"),
    [(valley, lobatto(4), 2), (flat, lobatto(4), 2), (valley, lobatto(4), 0)],
)
def test_the_gaps_of_a_smooth_line_are_checked_on_a_part_alone(
    line_sweep: Sweep, store: Store, loss: Loss, whole: list[Fraction], on_subset: int
) -> None:
    evaluator = Evaluator(Line(loss, 800 if on_subset else 300), store, device="cpu")
    found = linear_path(line_sweep["a"], line_sweep["b"], evaluator)
    assert found.alphas.tolist() == sorted(map(float, whole if on_subset else [*whole, *GAPS]))
    assert found.barrier == pytest.approx(0, abs=0.01)
    assert part_of(evaluator.task, "val") == ("val, n=200" if on_subset else None)


@pytest.mark.parametrize("loss", [hills, broken])
def test_maxima_on_a_subset_are_evaluated_on_the_whole_split(
    line_sweep: Sweep, store: Store, loss: Loss
) -> None:
    evaluator = Evaluator(Line(loss, 800), store, device="cpu")
    (found,) = evaluate_lines([(line_sweep["a"], line_sweep["b"])], evaluator)
    assert {*map(float, GAPS)} <= {*found.alphas.tolist()}
    assert found.n == 800
    if loss is hills:
        assert found.barrier == pytest.approx(0.5, abs=0.03)  # difficulties do not sum up to 0
    else:
        assert math.isnan(found.barrier)


def test_an_uncertain_line_does_not_keep_others_open(line_sweep: Sweep, store: Store) -> None:
    evaluator = Evaluator(Line(hills, 800), store, device="cpu")
    a, b = line_sweep["a"].mixture, line_sweep["b"].mixture
    past_the_hills = line_sweep.mixture({"a": -1, "b": 2})
    lines = [(a, b), (b, past_the_hills)]
    seen: list[int] = []
    doubtful, smooth = evaluate_lines(lines, evaluator, on_progress=lambda *at: seen.append(at[0]))
    assert len(smooth.alphas) == 5 < 7 < len(doubtful.alphas)
    assert seen == sorted(seen)
    known = stored_lines(lines, evaluator)
    assert (known.open, known.missing) == ([False, False], 0)
    assert [path and path.losses.tolist() for path in known.paths] == [
        doubtful.losses.tolist(), smooth.losses.tolist(),
    ]  # fmt: skip


def test_a_line_with_unchecked_gaps_is_open(line_sweep: Sweep, store: Store) -> None:
    evaluator = Evaluator(Line(valley, 800), store, device="cpu")
    line = (line_sweep["a"], line_sweep["b"])
    evaluate_lines([line], evaluator, lobatto(4))
    known = stored_lines([line], evaluator)
    assert known.open == [True]
    assert known.paths[0] is not None
    evaluate_lines([line], evaluator)
    assert stored_lines([line], evaluator).open == [False]
    assert len(evaluate_lines([line], evaluator)[0].alphas) == 5


def test_only_points_that_need_a_pass_count_as_missing(line_sweep: Sweep, store: Store) -> None:
    evaluator = Evaluator(Line(valley, 800), store, device="cpu")
    line = (line_sweep["a"].mixture, line_sweep["b"].mixture)
    evaluate_lines([line], evaluator, lobatto(4))
    assert stored_lines([line], evaluator).missing == 2
    part = evaluator.task.part("val", 200)
    evaluator.evaluate_all([interpolate(*line, alpha) for alpha in GAPS], part)
    known = stored_lines([line], evaluator)
    assert known.open == [True]
    assert known.missing == 5  # none takes a pass, but the line cannot be settled without


@pytest.mark.parametrize("examples", [300, 800, 8000])
def test_the_total_is_known_from_the_start_if_there_is_no_barrier(
    line_sweep: Sweep, store: Store, examples: int
) -> None:
    evaluator = Evaluator(Line(valley, examples), store, device="cpu")
    a, b = (line_sweep[name].mixture for name in "ab")
    lines = [(a, b), (b, line_sweep.mixture({"a": -1, "b": 2}))]
    reports: list[tuple[int, int]] = []
    evaluate_lines(lines, evaluator, on_progress=lambda done, of: reports.append((done, of)))
    assert reports == sorted(reports)
    assert len({of for _, of in reports}) == 1
    assert reports[-1][0] == reports[-1][1]


def test_a_part_is_less_than_half_of_the_split(store: Store) -> None:
    assert part_of(Line(valley, 400), "val") is None
    assert part_of(Line(valley, 401), "val") == "val, n=200"


def test_parts_of_a_split_have_no_parts(store: Store) -> None:
    task = Line(valley, 10_000)
    assert part_of(task, "val") == "val, n=1250"
    assert part_of(task, "val, n=1250") is None
    assert part_of(task, task.part("val", 500)) is None
