import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.stats import binomtest, bootstrap
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, recall_score
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
from soupcore.evaluation import by_class, by_group, compare
from soupcore.intervals import bootstrap_interval, paired, resamples
from soupcore.recipes import curve

NAMES = ["run1", "run2", "run10"]
PLACES = ["land", "water", "air"]


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


def test_intervals_are_computed_from_stored_scores(f1: Evaluator, sweep: Sweep) -> None:
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


def test_points_on_different_numbers_of_examples_are_not_compared(
    f1: Evaluator, evaluator: Evaluator, sweep: Sweep
) -> None:
    point = sweep["run1"].mixture
    for each in (f1, evaluator):
        part = each.task.part("val", len(each.task.split("val")) // 2)
        with pytest.raises(TaskError, match="cannot be paired"):
            compare(each.task, each.evaluate(point, "val"), each.evaluate(point, part))


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
def test_paths_parts_curves_and_ensembles_use_the_primary_metric(
    f1: Evaluator, sweep: Sweep
) -> None:
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


def line_split() -> Split:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 2, generator=generator)
    return Split("select", inputs, inputs[:, 0] + 0.1 * torch.randn(60, generator=generator))


MEAN = Metric("MAE", higher_is_better=False, unit="K")


@pytest.mark.parametrize(
    ("kind", "metrics"), [(Regression, ["MAE"]), (Mean, [MEAN])], ids=["of all", "a mean"]
)
def test_the_lowest_error_is_best_and_errors_are_shown_as_positive(
    lines: Sweep, store: Store, kind: Any, metrics: Any
) -> None:
    task = kind(lambda: nn.Linear(2, 1), {"val": line_split()}, metrics=metrics)
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


def test_recipes_refuse_an_undefined_metric(task: Any, store: Store, sweep: Sweep) -> None:
    nothing = Metric("nothing", compute=lambda predictions, targets: math.nan)
    named = ClassificationTask(task.build_model, task.splits, metrics=[nothing])
    with pytest.raises(TaskError, match=r"'nothing' of .* is undefined"):
        greedy(sweep, Evaluator(named, store, device="cpu"), NAMES)


# Groups and classes


def places(n: int) -> list[str]:
    return [PLACES[row % 5 % 3] for row in range(n)]


@pytest.fixture
def grouped(task: ClassificationTask, store: Store) -> Evaluator:
    splits = {
        name: Split(split.role, split.inputs, split.targets, groups=places(len(split)))
        for name, split in task.splits.items()
    }
    metrics = ["worst-group accuracy", "accuracy", "accuracy by group", "worst-class accuracy"]
    named = ClassificationTask(task.build_model, splits, name="groups", metrics=metrics)
    return Evaluator(named, store, device="cpu")


def by_hand(targets: Tensor, predictions: Tensor, groups: list[str]) -> dict[str, float]:
    return {
        group: accuracy_score(targets[rows], predictions[rows])
        for group in sorted(set(groups))
        for rows in [[row for row, own in enumerate(groups) if own == group]]
    }


def test_accuracies_of_groups_and_classes_are_those_of_scikit_learn(
    grouped: Evaluator, sweep: Sweep
) -> None:
    found = grouped.evaluate(sweep["run1"].mixture, "val")
    targets = grouped.task.split("val").targets
    expected = by_hand(targets, found.predictions, places(found.n))
    assert grouped.task.groups == ("air", "land", "water")
    assert found.score == pytest.approx(min(expected.values()), abs=1e-12)
    each = {name: found.all_scores[f"accuracy, {name}"] for name in expected}
    assert each == pytest.approx(expected, abs=1e-12)
    assert found.all_scores["accuracy"] == pytest.approx(float(found.scores.mean()))
    recalls = recall_score(targets, found.predictions, average=None)
    assert found.all_scores["worst-class accuracy"] == pytest.approx(recalls.min(), abs=1e-12)

    table = by_group(grouped.task, found)
    assert dict(table["score"]) == pytest.approx(expected)
    assert dict(table["n"]) == {name: places(found.n).count(name) for name in expected}
    for name, row in table.iterrows():
        right = round(row["score"] * row["n"])
        oracle = binomtest(right, int(row["n"])).proportion_ci(method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((oracle.low, oracle.high)), name
    classes = by_class(grouped.task, found)
    assert classes["score"].tolist() == pytest.approx(recalls.tolist())
    assert classes["n"].tolist() == np.bincount(targets).tolist()


def test_replicates_of_the_worst_group_are_resamples_by_hand(
    grouped: Evaluator, sweep: Sweep
) -> None:
    one, other = (grouped.evaluate(sweep[name].mixture, "val") for name in NAMES[:2])
    targets, groups = grouped.task.split("val").targets, places(one.n)
    expected = [
        min(by_hand(targets[rows], one.predictions[rows], [groups[r] for r in rows]).values())
        for rows in list(resamples(one.n))[:20]
    ]
    assert one.replicates is not None
    assert one.replicates[:20].tolist() == pytest.approx(expected, abs=1e-6)
    assert one.score_interval[0] < one.score < one.score_interval[1]
    assert compare(grouped.task, one, other).difference == one.score - other.score


def test_recipes_ensembles_parts_and_halves_use_the_worst_group(
    grouped: Evaluator, sweep: Sweep
) -> None:
    soup = greedy(sweep, grouped, NAMES)
    assert all(step.examples == 100 for step in soup.trace)  # nothing is rejected early
    alone = [grouped.evaluate(sweep[name].mixture, "val") for name in NAMES]
    assert soup.evaluations["val"].score >= max(each.score for each in alone)
    both = ensemble(grouped, [sweep[name].mixture for name in NAMES], "val")
    assert both is not None
    targets = grouped.task.split("val").targets
    averaged = torch.stack([each.outputs for each in alone]).mean(0).argmax(1)
    assert both.score == pytest.approx(min(by_hand(targets, averaged, places(100)).values()))
    part = grouped.task.part("val", 40)
    rows = grouped.task.rows_of(part)
    few = grouped.evaluate(sweep["run1"].mixture, part)
    some = [places(100)[row] for row in rows]
    expected = by_hand(targets[rows], alone[0].predictions[rows], some)
    assert few.score == pytest.approx(min(expected.values()))
    assert 0 <= cross_fit_evaluations(grouped.task, alone, repeats=3).delivered <= 1


class Distance(Task):
    score_name = "closeness"
    undefined = "exclude"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs[:, 0] - targets).abs()


@pytest.mark.parametrize("undefined", ["exclude", "refuse"])
def test_any_mean_has_a_worst_group(
    sweep: Sweep, store: Store, task: ClassificationTask, undefined: str
) -> None:
    targets = torch.arange(30).float()
    targets[4] = math.nan
    inputs = task.split("val").inputs[:30]
    split = Split("select", inputs, targets, groups=torch.arange(30) % 2)
    judged = Distance(task.build_model, {"val": split}, metrics=["worst-group closeness"])
    judged.undefined = undefined  # type: ignore[assignment]
    judged.check = lambda outputs, targets: None  # type: ignore[method-assign]
    found = Evaluator(judged, store, device="cpu").evaluate(sweep["run1"].mixture, "val")
    means = [float(np.nanmean(found.scores[number::2])) for number in (0, 1)]
    assert found.score == pytest.approx(min(means)) or undefined == "refuse"
    assert math.isnan(found.score) == (undefined == "refuse")


def nets() -> nn.Module:
    return nn.Linear(1, 2)


def split(role: str, groups: Sequence[object] | None, n: int = 4) -> Split:
    return Split(role, torch.zeros(n, 1), torch.arange(n) % 2, groups=groups)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("splits", "words"),
    [
        ({"val": split("select", None)}, "'worst-group accuracy' needs groups. Give each split"),
        (
            {"val": split("select", [1, 1, 2, 2]), "test": split("report", None)},
            "the split 'test' has none",
        ),
        (
            {"val": split("select", [1, 1, 1, 2]), "test": split("report", [1, 1, 1, 1])},
            "split 'test' .* no example of the group '2'.* val: 1 3, 2 1; test: 1 4, 2 0",
        ),
    ],
)
def test_missing_group_is_reported(splits: dict[str, Split], words: str) -> None:
    with pytest.raises(TaskError, match=words):
        ClassificationTask(nets, splits, metrics=["worst-group accuracy"])


def test_shifts_may_have_other_groups_and_training_data_none() -> None:
    splits = {
        "train": split("train", None),
        "val": split("select", ["a", "a", "b", "b"]),
        "shift/c": split("shift", ["c"] * 4),
    }
    task = ClassificationTask(nets, splits, metrics=["worst-group accuracy"])
    assert task.groups == ("a", "b", "c")


@pytest.mark.parametrize(
    ("groups", "words"),
    [([1, 2, 3], "one group for each example: 4, not 3"), ([1, None, 2, 2], "some have none")],
)
def test_groups_that_do_not_fit_are_refused(groups: list[object], words: str) -> None:
    with pytest.raises(TaskError, match=words):
        split("select", groups)


def test_tables_need_groups_and_classes(store: Store, sweep: Sweep, evaluator: Evaluator) -> None:
    found = evaluator.evaluate(sweep["run1"].mixture, "val")
    with pytest.raises(TaskError, match="has no groups"):
        by_group(evaluator.task, found)
    inputs = evaluator.task.split("val").inputs
    plain = {"val": Split("select", inputs, torch.rand(len(inputs)))}
    distance = Distance(evaluator.task.build_model, plain)
    scored = Evaluator(distance, store, device="cpu").evaluate(sweep["run1"].mixture, "val")
    with pytest.raises(TaskError, match="are not classes"):
        by_class(distance, scored)


def test_groups_are_part_of_the_data(tmp_path: Path) -> None:
    digests = {
        split("select", groups).digest
        for groups in (None, [1, 1, 2, 2], [1, 2, 1, 2], ["1", "1", "2", "2"])
    }
    assert len(digests) == 3  # numbers are their texts


def test_custom_metrics_may_use_groups() -> None:
    mean = Metric(
        "group mean", range=(0.0, 1.0), source="scores", against="groups",
        compute=lambda scores, groups: float(
            np.mean([scores[groups == g].mean() for g in torch.unique(groups)])
        ),
    )  # fmt: skip
    value = mean.score({"scores": torch.tensor([1.0, 0, 1, 1])}, torch.tensor([0, 0, 0, 1]))
    assert value == pytest.approx(5 / 6)
    failed = torch.tensor([1.0, -math.inf])
    assert mean.score({"scores": failed}, torch.tensor([0, 1])) == -math.inf


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
