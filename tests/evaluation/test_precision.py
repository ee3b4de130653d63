from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from soupcore import ClassificationTask, Evaluator, Split, Store, TaskError, greedy
from soupcore.evaluation.forward_pass import ForwardPass
from soupcore.tasks import TaskDescription
from soupcore.tasks.networks import Precision
from tests.toy import ImageSweep, image_sweep

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture
def net(tmp_path: Path) -> ImageSweep:
    return image_sweep(tmp_path, "conv net", splits=("val", "test"))


def task_with(net: ImageSweep, precision: Precision) -> ClassificationTask:
    return ClassificationTask(net.task.build_model, net.task.splits, precision=precision)


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "bfloat16 autocast"])
def test_precision_is_that_of_torch(net: ImageSweep, store: Store, precision: Precision) -> None:
    evaluator = Evaluator(task_with(net, precision), store, device="cpu")
    point = net.points()[-1]
    found = evaluator.evaluate(point, "val")
    model = net.task.build_model().eval()
    model.load_state_dict({name: point.tensor(name) for name in model.state_dict()})
    inputs, targets = (getattr(net.task.split("val"), each) for each in ("inputs", "targets"))
    dtype = HALF[precision.split()[0]]
    with torch.no_grad():
        if precision in HALF:
            outputs = model.to(dtype)(inputs.to(dtype))
        else:
            with torch.autocast("cpu", dtype):
                outputs = model(inputs)
    assert torch.equal(found.outputs, outputs.float())
    assert found.loss == pytest.approx(float(cross_entropy(outputs.float(), targets)), rel=1e-6)
    assert not torch.equal(outputs.float(), model.float()(inputs))
    assert evaluator.notes == []


def test_results_are_kept_apart_and_a_description_says_which(net: ImageSweep) -> None:
    tasks = [task_with(net, each) for each in ("float32", "bfloat16", "bfloat16 autocast")]
    assert len({task.key for task in tasks}) == 3
    assert tasks[0].key == net.task.key
    assert "precision" not in repr(tasks[0])
    assert repr(tasks[1]).endswith("precision='bfloat16')")
    assert "Evaluated in bfloat16." in tasks[1]._repr_html_()
    described = TaskDescription.from_json(tasks[1].describe().to_json())
    assert (described.precision, repr(described)[-21:]) == ("bfloat16", "precision='bfloat16')")


def test_nothing_depends_on_batches_of_other_sizes(net: ImageSweep, store: Store) -> None:
    evaluator = Evaluator(task_with(net, "bfloat16"), store, device="cpu")
    soup = greedy(net.sweep, evaluator)
    n = len(net.task.split("val"))
    assert all(step.examples == n for step in soup.trace)  # none is rejected early
    forward = evaluator._forward_pass
    assert isinstance(forward, ForwardPass)
    assert forward.shortcuts._folding is None
    assert forward.shortcuts._prefix is None


def test_statistics_are_not_estimated_in_a_half_type(net: ImageSweep, store: Store) -> None:
    split = net.task.split("val")
    splits = {**net.task.splits, "train": Split("train", split.inputs, split.targets)}
    half, mixed = (
        ClassificationTask(net.task.build_model, splits, precision=each)
        for each in ("bfloat16", "bfloat16 autocast")
    )
    assert (half.can_re_estimate, mixed.can_re_estimate) == (False, True)
    with pytest.raises(TaskError, match="set `precision` to 'bfloat16 autocast'"):
        Evaluator(half, store, device="cpu").with_statistics("re-estimated")
    evaluator = Evaluator(mixed, store, device="cpu").with_statistics("re-estimated")
    point = net.points()[-1]
    assert evaluator.evaluate(point, "val").n == len(split)
    found = evaluator.estimated_statistics(point)
    assert all(tensor.dtype == torch.float32 for tensor in found.values())


def test_another_precision_is_refused(net: ImageSweep) -> None:
    with pytest.raises(TaskError, match="must be one of float32, bfloat16"):
        task_with(net, "int8")  # type: ignore[arg-type]
