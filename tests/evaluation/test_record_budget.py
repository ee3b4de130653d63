import pytest
import torch
from torch import Tensor

from soupcore import ClassificationTask, Evaluator, Store, Sweep, TaskError


def test_records_beyond_the_budget_are_refused_after_one_batch(
    task: ClassificationTask, store: Store, sweep: Sweep
) -> None:
    task.record_budget = 100 * (3 * 4 + 8) - 1
    evaluator = Evaluator(task, store, device="cpu", batch_size=10)
    point, seen = sweep["run1"].mixture, list[int]()
    words = (
        r"would keep 2 kB: for each of 100 examples 12 bytes of records \(float32 \[1, 3\]\) and "
        r"8 bytes of predictions .* `record_budget` is 2 kB\. Override `record` and `predict`"
    )
    with pytest.raises(TaskError, match=words):
        evaluator.evaluate(point, "val", on_progress=lambda done, total: seen.append(done))
    assert seen == []
    assert evaluator.stored([point], "val") == [None]
    middle = sweep.mixture({"run1": 1, "run2": 0.5})
    assert not evaluator.evaluate(middle, "val", keep_outputs=False).has_outputs
    task.record_budget += 1
    assert evaluator.evaluate(point, "val").has_outputs


def test_predictions_count_too(task: ClassificationTask, store: Store, sweep: Sweep) -> None:
    class Wordy(ClassificationTask):
        def predict(self, outputs: Tensor) -> Tensor:
            return torch.zeros(len(outputs), 1000)

        def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return (outputs.argmax(1) == targets).float()

    wordy = Wordy(task.build_model, task.splits)
    wordy.record_budget = 1000 * 100 * 4 - 1
    with pytest.raises(TaskError, match="4 kB of predictions"):
        Evaluator(wordy, store, device="cpu").evaluate(
            sweep.mixture({"run1": 1, "run2": 0.5}), "val", keep_outputs=False
        )
