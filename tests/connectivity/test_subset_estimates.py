import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.polynomial import Polynomial
from torch import Tensor, nn

from soupcore import Evaluator, Split, Store, Sweep, Task, linear_path
from soupcore.connectivity import evaluate_lines, stored_lines
from soupcore.connectivity.adaptive import lobatto
from soupcore.connectivity.subset_estimates import estimates, part_of
from soupcore.mixtures import interpolate
from tests.helpers import save_sweep

GAPS = lobatto(8)[3:6:2]
Loss = Callable[[Tensor], Tensor]


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
    """One weight, α. Its loss is told by a function, and differs from example to example."""

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
def sweep(tmp_path: Path) -> Sweep:
    ends = {name: {"weight": torch.tensor([[alpha]])} for name, alpha in (("a", 0.0), ("b", 1.0))}
    return Sweep.from_folder(save_sweep(tmp_path / "line", ends))


@pytest.mark.parametrize(
    ("loss", "whole", "on_subset"),
    [(valley, lobatto(4), 2), (flat, lobatto(4), 2), (valley, lobatto(4), 0)],
)
def test_the_gaps_of_a_smooth_line_are_seen_on_a_part_alone(
    sweep: Sweep, store: Store, loss: Loss, whole: list[Fraction], on_subset: int
) -> None:
    evaluator = Evaluator(Line(loss, 800 if on_subset else 300), store, device="cpu")
    found = linear_path(sweep["a"], sweep["b"], evaluator)
    assert found.alphas.tolist() == sorted(map(float, whole if on_subset else [*whole, *GAPS]))
    assert found.barrier == pytest.approx(0, abs=0.01)
    assert part_of(evaluator.task, "val") == ("val, n=200" if on_subset else None)


@pytest.mark.parametrize("loss", [hills, broken])
def test_maxima_on_a_subset_are_evaluated_on_the_whole_split(
    sweep: Sweep, store: Store, loss: Loss
) -> None:
    evaluator = Evaluator(Line(loss, 800), store, device="cpu")
    (found,) = evaluate_lines([(sweep["a"], sweep["b"])], evaluator)
    assert {*map(float, GAPS)} <= {*found.alphas.tolist()}
    assert found.n == 800
    if loss is hills:
        assert found.barrier == pytest.approx(0.5, abs=0.03)  # difficulties do not sum up to 0
    else:
        assert math.isnan(found.barrier)


def test_lines_in_doubt_keep_no_other_line_from_being_settled(sweep: Sweep, store: Store) -> None:
    evaluator = Evaluator(Line(hills, 800), store, device="cpu")
    a, b = sweep["a"].mixture, sweep["b"].mixture
    past_the_hills = sweep.mixture({"a": -1, "b": 2})
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


def test_a_line_whose_gaps_were_not_seen_is_open(sweep: Sweep, store: Store) -> None:
    evaluator = Evaluator(Line(valley, 800), store, device="cpu")
    line = (sweep["a"], sweep["b"])
    evaluate_lines([line], evaluator, lobatto(4))
    known = stored_lines([line], evaluator)
    assert known.open == [True]
    assert known.paths[0] is not None
    evaluate_lines([line], evaluator)
    assert stored_lines([line], evaluator).open == [False]
    assert len(evaluate_lines([line], evaluator)[0].alphas) == 5


def test_only_points_that_need_a_pass_count_as_missing(sweep: Sweep, store: Store) -> None:
    evaluator = Evaluator(Line(valley, 800), store, device="cpu")
    line = (sweep["a"].mixture, sweep["b"].mixture)
    evaluate_lines([line], evaluator, lobatto(4))
    assert stored_lines([line], evaluator).missing == 2
    part = evaluator.task.part("val", 200)
    evaluator.evaluate_all([interpolate(*line, alpha) for alpha in GAPS], part)
    known = stored_lines([line], evaluator)
    assert known.open == [True]
    assert known.missing == 5  # none takes a pass, but the line cannot be settled without


@pytest.mark.parametrize("examples", [300, 800, 8000])
def test_how_much_there_is_to_do_is_known_before_where_there_is_no_barrier(
    sweep: Sweep, store: Store, examples: int
) -> None:
    evaluator = Evaluator(Line(valley, examples), store, device="cpu")
    a, b = (sweep[name].mixture for name in "ab")
    lines = [(a, b), (b, sweep.mixture({"a": -1, "b": 2}))]
    reports: list[tuple[int, int]] = []
    evaluate_lines(lines, evaluator, on_progress=lambda done, of: reports.append((done, of)))
    assert reports == sorted(reports)
    assert len({of for _, of in reports}) == 1
    assert reports[-1][0] == reports[-1][1]


def test_a_part_is_less_than_half(store: Store) -> None:
    assert part_of(Line(valley, 400), "val") is None
    assert part_of(Line(valley, 401), "val") == "val, n=200"


def test_a_part_is_not_estimated_by_parts(store: Store) -> None:
    task = Line(valley, 10_000)
    assert part_of(task, "val") == "val, n=1250"
    assert part_of(task, "val, n=1250") is None
    assert part_of(task, task.part("val", 500)) is None


def test_the_error_of_a_part_is_similar_at_neighbouring_points() -> None:
    gap, lines, on_subset = GAPS[0], [], []
    for seed in range(3):
        loss, score = (Polynomial(each) for each in np.random.default_rng(seed).normal(size=(2, 4)))
        line = {a: (float(loss(float(a))), float(score(float(a)))) for a in lobatto(4)}
        there = {**line, gap: (7.0, 0.5)}
        lines.append(line)
        on_subset.append(
            {a: (x + 0.1 + float(a), y - 0.2 * float(a) ** 3) for a, (x, y) in there.items()}
        )
    for found in estimates(lines, on_subset):
        assert list(found) == [gap]
        assert found[gap] == pytest.approx((7.0, 0.5))
