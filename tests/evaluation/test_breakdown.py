import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, recall_score
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
    ensemble,
    greedy,
)
from soupcore.analysis.optimism import cross_fit_evaluations
from soupcore.evaluation import by_class, by_group, compare
from soupcore.intervals import resamples

NAMES = ["run1", "run2", "run10"]
PLACES = ["land", "water", "air"]


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


def test_recipes_ensembles_parts_and_halves_are_judged_by_the_worst_group(
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


def test_a_metric_of_your_own_takes_groups() -> None:
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
