import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.stats import bootstrap
from sklearn.metrics import f1_score, mean_absolute_error
from torch import Tensor, nn

from soupcore import (
    ClassificationTask,
    Evaluator,
    Metric,
    Split,
    Store,
    Sweep,
    Task,
    TaskError,
    barriers,
    ensemble,
    greedy,
    mean,
    weighted,
)
from soupcore.analysis import cross_fit_greedy
from soupcore.analysis.optimism import cross_fit_evaluations
from soupcore.evaluation import compare
from soupcore.intervals import bootstrap_interval, paired, resamples
from soupcore.recipes import curve

NAMES = ["run1", "run2", "run10"]


@pytest.fixture
def f1(task: ClassificationTask, store: Store) -> Evaluator:
    named = ClassificationTask(
        task.build_model, task.splits, name="toy", metrics=["macro F1", "AUC", "accuracy"]
    )
    return Evaluator(named, store, device="cpu")


@pytest.mark.usefixtures("few_resamples")
def test_all_metrics_of_a_task_are_computed_and_stored(f1: Evaluator, sweep: Sweep) -> None:
    ends = [sweep[name].mixture for name in NAMES[:2]]
    for point in (ends[0], mean(ends)):
        found = f1.evaluate(point, "val", keep_outputs=False)
        (again,) = f1.stored([point], "val")
        targets = f1.task.split("val").targets
        expected = f1_score(targets, found.predictions, average="macro")
        assert found.score == pytest.approx(expected, abs=1e-9)
        assert found.all_scores["macro F1"] == found.score
        assert found.all_scores["accuracy"] == pytest.approx(float(found.scores.mean()))
        assert 0 < found.all_scores["AUC"] < 1
        assert again is not None
        assert again.all_scores == found.all_scores


def test_intervals_come_from_resamples_of_what_is_stored(f1: Evaluator, sweep: Sweep) -> None:
    found = f1.evaluate(sweep["run1"].mixture, "val")
    targets, predictions = f1.task.split("val").targets.numpy(), found.predictions.numpy()
    expected = bootstrap(
        (targets, predictions),
        lambda y, p: f1_score(y, p, average="macro"),
        paired=True, vectorized=False, n_resamples=400, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert found.score_interval == pytest.approx(tuple(expected), abs=0.03)
    assert found.replicates is not None
    assert found.replicates.shape == (200,)
    middle = f1.evaluate(mean(sweep[name].mixture for name in NAMES[:2]), "val", keep_outputs=False)
    assert all(math.isnan(end) for end in middle.score_interval)
    assert middle.replicates is None


@pytest.mark.usefixtures("few_resamples")
def test_two_points_are_compared_on_the_same_resamples(f1: Evaluator, sweep: Sweep) -> None:
    one, other = (f1.evaluate(sweep[name].mixture, "val") for name in NAMES[:2])
    found = compare(f1.task, one, other)
    assert found.difference == one.score - other.score
    assert (found.gained, found.lost, found.p_value) == (None, None, None)
    assert found.changed == int((one.predictions != other.predictions).sum())
    targets = f1.task.split("val").targets
    differences = [
        f1_score(targets[rows], one.predictions[rows], average="macro", zero_division=0)
        - f1_score(targets[rows], other.predictions[rows], average="macro", zero_division=0)
        for rows in resamples(one.n, 10)
    ]
    half = 1.959964 * np.std(differences, ddof=1)
    expected = found.difference - half, found.difference + half
    assert found.interval == pytest.approx(expected, abs=1e-6)
    same = compare(f1.task, one, one)
    assert (same.interval, same.difference, same.changed) == (None, 0, 0)
    assert "same on every resample" in same.why_no_interval


def test_a_mean_is_compared_example_by_example(evaluator: Evaluator, sweep: Sweep) -> None:
    one, other = (evaluator.evaluate(sweep[name].mixture, "val") for name in NAMES[:2])
    assert compare(evaluator.task, one, other) == paired(one.scores, other.scores)


@pytest.mark.usefixtures("few_resamples")
def test_recipes_choose_by_the_primary_metric(f1: Evaluator, sweep: Sweep) -> None:
    soup = greedy(sweep, f1, NAMES)
    targets = f1.task.split("val").targets

    def by_hand(names: tuple[str, ...]) -> float:
        found = f1.evaluate(mean(sweep[name].mixture for name in names), "val")
        return float(f1_score(targets, found.predictions, average="macro"))

    order = sorted(NAMES, key=lambda name: -by_hand((name,)))
    chosen: tuple[str, ...] = (order[0],)
    for name in order[1:]:
        if by_hand((*chosen, name)) >= by_hand(chosen):
            chosen = (*chosen, name)
    assert tuple(name for name, share in soup.coefficients.items() if share) == chosen
    assert all(step.examples == 100 for step in soup.trace)  # nothing is rejected early
    assert soup.evaluations["val"].score == pytest.approx(by_hand(chosen))


@pytest.mark.usefixtures("few_resamples")
def test_paths_parts_curves_and_ensembles_are_scored_by_it_too(f1: Evaluator, sweep: Sweep) -> None:
    found = barriers(sweep, f1, NAMES, 3, split="val")
    ends = [f1.evaluate(sweep[name].mixture, "val").score for name in NAMES]
    path = found.paths["run1", "run2"]
    assert (path.scores[0], path.scores[-1]) == (ends[0], ends[1])
    part = f1.task.part("val", 30)
    point = sweep["run1"].mixture
    on_part = f1.evaluate(point, part)
    rows = f1.task.rows_of(part)
    predictions = f1.evaluate(point, "val").predictions[rows]
    expected = f1_score(f1.task.split("val").targets[rows], predictions, average="macro")
    assert on_part.score == pytest.approx(expected)
    both = ensemble(f1, [sweep[name].mixture for name in NAMES], "val")
    assert both is not None
    outputs = torch.stack([f1.evaluate(sweep[n].mixture, "val").outputs for n in NAMES]).mean(0)
    targets = f1.task.split("val").targets
    assert both.score == pytest.approx(f1_score(targets, outputs.argmax(1), average="macro"))
    drawn = curve("wise_ft", "alpha", sweep, f1, NAMES, values=[0.0, 1.0], splits=["val"])
    assert drawn.best.evaluations["val"].score == max(drawn.scores("val"))


@pytest.mark.usefixtures("few_resamples")
def test_selection_bias_is_estimated_by_the_metric(f1: Evaluator, sweep: Sweep) -> None:
    found = [f1.evaluate(sweep[name].mixture, "val") for name in NAMES]
    estimate = cross_fit_evaluations(f1.task, found, repeats=5)
    targets = f1.task.split("val").targets
    generator = torch.Generator().manual_seed(0)
    promised, delivered = [], []
    for _ in range(5):
        order = torch.randperm(100, generator=generator)
        for here, there in ((order[:50], order[50:]), (order[50:], order[:50])):
            scores = [
                [
                    f1_score(
                        targets[rows], each.predictions[rows], average="macro", zero_division=0
                    )
                    for each in found
                ]
                for rows in (here, there)
            ]
            best = max(range(3), key=lambda i: (scores[0][i], -float(found[i].losses[here].mean())))
            promised.append(scores[0][best])
            delivered.append(scores[1][best])
    assert estimate.promised == pytest.approx(np.mean(promised))
    assert estimate.delivered == pytest.approx(np.mean(delivered))
    greedy_estimate = cross_fit_greedy(f1, {name: sweep[name].mixture for name in NAMES}, repeats=2)
    assert greedy_estimate.promised > greedy_estimate.delivered - 0.2
    assert 0 < greedy_estimate.delivered < 1


# A metric of which lower values are better


class Regression(Task):
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[:, 0] - targets).square()

    def predict(self, outputs: Tensor) -> Tensor:
        return outputs[:, 0]


class Mean(Regression):
    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -(outputs[:, 0] - targets).abs()


@pytest.fixture
def lines(tmp_path: Path) -> Sweep:
    folder = tmp_path / "lines"
    folder.mkdir()
    for run, slope in enumerate((0.5, 0.9, 1.2)):
        state = {"weight": torch.tensor([[slope, 0.0]]), "bias": torch.zeros(1)}
        save_file(state, folder / f"run{run}.safetensors")
    return Sweep.from_folder(folder)


def split() -> Split:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 2, generator=generator)
    return Split("select", inputs, inputs[:, 0] + 0.1 * torch.randn(60, generator=generator))


MEAN = Metric("MAE", higher_is_better=False, unit="K")


@pytest.mark.parametrize(
    ("kind", "metrics"), [(Regression, ["MAE"]), (Mean, [MEAN])], ids=["of all", "a mean"]
)
def test_of_errors_the_lowest_is_best_and_values_are_written(
    lines: Sweep, store: Store, kind: Any, metrics: Any
) -> None:
    task = kind(lambda: nn.Linear(2, 1), {"val": split()}, metrics=metrics)
    evaluator = Evaluator(task, store, device="cpu")
    found = {name: evaluator.evaluate(lines[name].mixture, "val") for name in lines.ingredients}
    targets = task.split("val").targets
    for evaluation in found.values():
        error = mean_absolute_error(targets, evaluation.predictions)
        assert evaluation.score == pytest.approx(-error, rel=1e-6)
        assert task.score_unit.number(evaluation.score) == f"{error:#.4g}"
        low, high = evaluation.score_interval
        assert low < evaluation.score < high < 0
    assert max(found, key=lambda name: found[name].score) == "run1"
    soup = greedy(lines, evaluator)
    assert soup.evaluations["val"].score >= found["run1"].score
    shares = weighted(lines, evaluator).coefficients
    assert shares is not None
    assert float(shares["run1"] / shares["run0"]) == pytest.approx(
        found["run0"].score / found["run1"].score, rel=1e-6
    )
    unit = task.score_unit
    gain = soup.evaluations["val"].score - found["run0"].score
    assert unit.difference(gain).startswith("-")  # a lower error
    assert unit.gain(gain).startswith("+")


def test_a_metric_that_is_undefined_chooses_nothing(task: Any, store: Store, sweep: Sweep) -> None:
    nothing = Metric("nothing", compute=lambda predictions, targets: math.nan)
    named = ClassificationTask(task.build_model, task.splits, metrics=[nothing])
    with pytest.raises(TaskError, match=r"'nothing' of .* is undefined"):
        greedy(sweep, Evaluator(named, store, device="cpu"), NAMES)


# Resamples


@given(st.integers(1, 50))
def test_resamples_are_rows_of_the_split_and_the_same_each_time(n: int) -> None:
    first, second = ([*resamples(n, 5)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(rows.shape == (n,) and 0 <= int(rows.min()) <= int(rows.max()) < n for rows in first)


NORMAL = torch.randn(4000, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("replicates", "half"),
    [
        (5 + NORMAL, 1.96),
        (torch.cat([5 + NORMAL, torch.full((2000,), math.nan)]), 1.96),
        (torch.full((10,), 1.0), None),
        (torch.tensor([1.0, math.nan, math.nan]), None),
        (torch.tensor([1.0, 2.0, -math.inf]), None),
        (torch.tensor([1.0]), None),
    ],
)
def test_the_interval_has_the_standard_error_of_the_replicates(
    replicates: Tensor, half: float | None
) -> None:
    low, high = bootstrap_interval(5.0, replicates)
    if half is None:
        assert math.isnan(low)
        assert math.isnan(high)
    else:
        assert (low, high) == pytest.approx((5 - half, 5 + half), abs=0.06)
        assert low + high == pytest.approx(10)
