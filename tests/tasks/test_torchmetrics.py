"""Objects of torchmetrics as metrics of a task."""

from typing import Any

import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor, nn

from soupcore import ClassificationTask, Evaluator, Split, Store, Sweep, Task, TaskError, greedy
from soupcore.tasks import from_torchmetrics
from tests.toy import build_model, logits

torchmetrics = pytest.importorskip("torchmetrics")
pytestmark = pytest.mark.integration

TARGETS = torch.tensor([0, 1, 2, 1, 0, 2])
LOGITS = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def task_with(*metrics: Any, classes: int = 3) -> ClassificationTask:
    split = Split("select", torch.zeros(6, 1), TARGETS % classes)
    return ClassificationTask(lambda: nn.Linear(1, classes), {"val": split}, metrics=metrics)


def test_scores_are_those_of_scikit_learn(
    splits: dict[str, Split], store: Store, sweep: Sweep, states: dict[str, Any]
) -> None:
    given = [
        torchmetrics.classification.MulticlassF1Score(num_classes=3, average="macro"),
        torchmetrics.classification.MulticlassAUROC(num_classes=3),
        torchmetrics.classification.MulticlassCalibrationError(num_classes=3),
    ]
    given[0].update(LOGITS, TARGETS)  # what an object has seen before is no part of a score
    task = ClassificationTask(build_model, splits, metrics=[*given, "macro F1"])
    evaluator = Evaluator(task, store, device="cpu")
    for name in ("run1", "run2"):
        found = evaluator.evaluate(sweep[name].mixture, "val")
        outputs, targets = logits(states[name], splits["val"].inputs), splits["val"].targets
        scores = found.all_scores
        assert scores["MulticlassF1Score"] == pytest.approx(scores["macro F1"], abs=1e-6)
        assert scores["MulticlassAUROC"] == pytest.approx(
            sklearn_metrics.roc_auc_score(targets, outputs.softmax(1), multi_class="ovr"), abs=1e-6
        )
        assert -1 <= scores["MulticlassCalibrationError"] < 0  # lower values are better
        assert found.score == scores["MulticlassF1Score"]
        low, high = found.score_interval
        assert 0 <= low < found.score < high <= 1
    assert [metric.higher_is_better for metric in task.metrics] == [True, True, False, True]
    assert task.score_unit.is_share
    assert greedy(sweep, evaluator).evaluations["val"].score >= found.score
    assert given[0].compute() > 0  # it still has what it has seen
    assert int(given[0].update_count) == 1


def test_a_binary_metric_takes_the_chance_of_the_second_class() -> None:
    (metric,) = task_with(torchmetrics.classification.BinaryAUROC(), classes=2).metrics
    outputs, targets = LOGITS[:, :2], TARGETS % 2
    expected = sklearn_metrics.roc_auc_score(targets, outputs[:, 1] - outputs[:, 0])
    assert metric.score({"outputs": outputs}, targets) == pytest.approx(expected)


def test_a_regression_s_metric_takes_predictions() -> None:
    class Regression(Task):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return (outputs[:, 0] - targets).square()

        def predict(self, outputs: Tensor) -> Tensor:
            return outputs[:, 0]

    split = Split("select", torch.zeros(3, 1), torch.zeros(3))
    metric = torchmetrics.MeanSquaredError(squared=False)
    task = Regression(lambda: nn.Linear(1, 1), {"val": split}, metrics=[metric])
    (found,) = task.metrics
    assert (found.name, found.higher_is_better) == ("MeanSquaredError", False)
    predictions = torch.tensor([1.0, 2, 2])
    assert found.score({"predictions": predictions}, torch.zeros(3)) == pytest.approx(-(3**0.5))


def test_settings_of_torchmetrics_are_part_of_the_identity() -> None:
    f1 = torchmetrics.classification.MulticlassF1Score
    keys = [task_with(f1(num_classes=3, average=how)).key for how in ("macro", "micro", "macro")]
    assert keys[0] == keys[2] != keys[1]
    named = [
        from_torchmetrics(f1(num_classes=3, average=how), f"{how} F1", of_classes=True)
        for how in ("macro", "micro")
    ]
    assert task_with(*named).score_name == "macro F1"
    with pytest.raises(TaskError, match="2 metrics named 'MulticlassF1Score'"):
        task_with(f1(num_classes=3), f1(num_classes=3, average="micro"))


def test_metrics_that_are_no_scores_are_refused() -> None:
    matrix = torchmetrics.classification.MulticlassConfusionMatrix(num_classes=3)
    with pytest.raises(TaskError, match="does not define whether higher values are better"):
        task_with(matrix)
    each = torchmetrics.classification.MulticlassF1Score(num_classes=3, average=None)
    (metric,) = task_with(each).metrics
    with pytest.raises(TaskError, match="its value is not one number; choose an `average`"):
        metric.score({"outputs": LOGITS}, TARGETS)
    weighted = Split("select", torch.zeros(6, 1), TARGETS, weights=torch.arange(6))
    with pytest.raises(TaskError, match="has weights, but the metric 'MulticlassF1Score'"):
        ClassificationTask(lambda: nn.Linear(1, 3), {"val": weighted}, metrics=[each])
