import math
from typing import Any

import numpy as np
import pytest
import scipy
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from soupcore import ClassificationTask, Metric, Split, TaskError
from soupcore.tasks import METRICS, MetricInfo, TaskDescription
from soupcore.tasks.metrics import metric_named

N = 80
GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(N, 6, generator=GENERATOR)
CLASSES = torch.where(
    torch.rand(N, generator=GENERATOR) < 0.5,
    LOGITS.argmax(1),
    torch.randint(6, (N,), generator=GENERATOR),
)
TWO, BOTH = LOGITS[:, :2], (CLASSES < 3).long()
NUMBERS = torch.randn(N, generator=GENERATOR)
NEAR = NUMBERS + 0.3 * torch.randn(N, generator=GENERATOR)


def predicted(logits: Tensor) -> Tensor:
    return logits.argmax(1)


@pytest.mark.parametrize(
    ("name", "outputs", "predictions", "targets", "expected"),
    [
        (
            "balanced accuracy", LOGITS, predicted(LOGITS), CLASSES,
            lambda y, p, o: sklearn_metrics.recall_score(y, p, average="macro"),
        ),
        (
            "worst-class accuracy", LOGITS, predicted(LOGITS), CLASSES,
            lambda y, p, o: sklearn_metrics.recall_score(y, p, average=None).min(),
        ),
        ("F1", TWO, predicted(TWO), BOTH, lambda y, p, o: sklearn_metrics.f1_score(y, p)),
        (
            "macro F1", LOGITS, predicted(LOGITS), CLASSES,
            lambda y, p, o: np.mean([sklearn_metrics.f1_score(y == c, p == c) for c in range(6)]),
        ),
        ("micro F1", LOGITS, predicted(LOGITS), CLASSES, lambda y, p, o: np.mean(y == p)),
        (
            "mean IoU", LOGITS, predicted(LOGITS), CLASSES,
            lambda y, p, o: np.mean(
                [((y == c) & (p == c)).sum() / ((y == c) | (p == c)).sum() for c in range(6)]
            ),
        ),
        (
            "Matthews correlation", TWO, predicted(TWO), BOTH,
            lambda y, p, o: scipy.stats.pearsonr(y, p).statistic,
        ),
        (
            "AUC", TWO, predicted(TWO), BOTH,
            lambda y, p, o: sklearn_metrics.roc_auc_score(y, o[:, 1] - o[:, 0]),
        ),
        (
            "top-5 accuracy", LOGITS, predicted(LOGITS), CLASSES,
            lambda y, p, o: np.mean(np.any(np.argsort(o)[:, -5:] == y[:, None], axis=1)),
        ),
        ("MAE", NEAR, NEAR, NUMBERS, lambda y, p, o: np.abs(y - p).mean()),
        ("RMSE", NEAR, NEAR, NUMBERS, lambda y, p, o: np.square(y - p).mean() ** 0.5),
        (
            "R²", NEAR, NEAR, NUMBERS,
            lambda y, p, o: 1 - np.square(y - p).sum() / np.square(y - y.mean()).sum(),
        ),
        ("Pearson correlation", NEAR, NEAR, NUMBERS, lambda y, p, o: np.corrcoef(y, p)[0, 1]),
        (
            "Spearman correlation", NEAR, NEAR, NUMBERS,
            lambda y, p, o: np.corrcoef(y.argsort().argsort(), p.argsort().argsort())[0, 1],
        ),
        (
            "perplexity", torch.tensor([[4.0, 2], [9.0, 3]]), NEAR, torch.empty(2, 0),
            lambda y, p, o: math.exp(13 / 5),
        ),
    ],
)  # fmt: skip
def test_metrics_follow_their_definitions(
    name: str, outputs: Tensor, predictions: Tensor, targets: Tensor, expected: Any
) -> None:
    metric = METRICS[name]
    found = metric.sign * metric.score({"outputs": outputs, "predictions": predictions}, targets)
    arrays = (each.double().numpy() for each in (targets, predictions, outputs))
    assert found == pytest.approx(expected(*arrays), abs=1e-6)
    if metric.range is not None:
        assert metric.range[0] <= found <= metric.range[1]


def test_all_built_in_metrics_are_tested() -> None:
    (mark,) = test_metrics_follow_their_definitions.pytestmark
    assert {case[0] for case in mark.args[1]} == METRICS.keys()


@pytest.mark.parametrize("name", METRICS)
def test_better_predictions_score_higher(name: str) -> None:
    metric = METRICS[name]
    of_classes = name not in ("MAE", "RMSE", "R²", "Pearson correlation", "Spearman correlation")
    targets = BOTH if of_classes else NUMBERS
    right = torch.nn.functional.one_hot(BOTH, 2).double() * 4 - 2
    wrong = -right
    if name == "top-5 accuracy":
        targets = CLASSES
        right = torch.nn.functional.one_hot(CLASSES, 6).double()
        wrong = -right
    if name == "perplexity":
        right, wrong = torch.tensor([[1.0, 5]]), torch.tensor([[5.0, 5]])

    def score(outputs: Tensor) -> float:
        predictions = outputs.argmax(1) if of_classes else outputs[:, 0]
        return metric.score({"outputs": outputs, "predictions": predictions}, targets)

    if of_classes:
        assert score(right) > score(wrong)
    else:
        noise = torch.randn(N, generator=torch.Generator().manual_seed(1)).double()
        assert score((targets + 0.1 * noise)[:, None]) > score((targets + noise)[:, None])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_network_that_fails_has_the_worst_score(bad: float) -> None:
    for metric in (METRICS["R²"], METRICS["MAE"]):
        predictions = NEAR.clone()
        predictions[3] = bad
        assert metric.score({"predictions": predictions}, NUMBERS) == -math.inf


def test_a_metric_that_fails_is_named() -> None:
    metric = Metric("mine", compute=lambda predictions, targets: 1 / 0)
    with pytest.raises(TaskError, match="'mine' cannot be computed: ZeroDivisionError"):
        metric.score({"predictions": NEAR}, NUMBERS)
    with pytest.raises(TaskError, match=r"no metric 'f1'. The built-in metrics are .*macro F1"):
        metric_named("f1")


def task_with(*metrics: Metric | str) -> ClassificationTask:
    split = Split("select", torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    return ClassificationTask(lambda: torch.nn.Linear(1, 2), {"val": split}, metrics=metrics)


def test_the_first_metric_is_primary_and_part_of_what_is_measured() -> None:
    plain, other = task_with(), task_with("macro F1", "accuracy")
    assert (plain.metric.name, plain.score_name, plain.metric.is_mean) == ("accuracy",) * 2 + (
        True,
    )
    assert (other.metric.name, other.score_name, other.metric.is_mean) == ("macro F1",) * 2 + (
        False,
    )
    assert [metric.is_mean for metric in other.metrics] == [False, True]
    assert other.score_unit.text(0.5) == "50.00 %"
    assert len({plain.key, other.key, task_with("accuracy", "macro F1").key}) == 3


@pytest.mark.parametrize(
    "metric",
    [
        MetricInfo("a"),
        MetricInfo("MAE", higher_is_better=False, unit="K"),
        Metric("b", range=(0, 1), compute=lambda p, t: 0.5),
    ],
)
def test_a_description_knows_how_metrics_are_read(metric: MetricInfo) -> None:
    task = task_with(Metric(**vars(metric)) if type(metric) is Metric else "MAE")
    described = TaskDescription.from_json(task.describe().to_json())
    assert described.metrics == tuple(each.info for each in task.metrics)
    assert described.metric == task.metric.info
    assert MetricInfo.from_json(metric.to_json()) == metric.info


def test_objects_that_are_no_metrics_are_refused() -> None:
    with pytest.raises(TaskError, match="Pass the name of a built-in metric"):
        task_with(3)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="2 metrics named 'macro F1'"):
        task_with("macro F1", "macro F1")
