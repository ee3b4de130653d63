import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss
from torch import Tensor, nn

from soupcore import (
    Cancelled,
    Checkpoint,
    CheckpointError,
    ClassificationTask,
    Evaluation,
    Evaluator,
    Mixture,
    Split,
    StockpotError,
    Store,
    Sweep,
    Task,
    TaskError,
    interpolate,
    mean,
)
from soupcore.store.arrays import DamagedArraysError
from tests.helpers import State, average
from tests.toy import CLASSES, FEATURES, build_model, logits, random_state

CheckpointOf = Callable[[Mapping[str, Tensor]], Checkpoint]


def halfway(sweep: Sweep) -> Mixture:
    return mean([sweep["run1"].mixture, sweep["run2"].mixture])


# What is found


@pytest.mark.parametrize("split", ["train", "val", "test", "shift/noise"])
@pytest.mark.parametrize(
    "names", [["run1"], ["run10"], ["run1", "run2"], ["run1", "run2", "run10"]]
)
def test_an_evaluation_agrees_with_scikit_learn_on_the_averaged_network(
    sweep: Sweep,
    states: dict[str, State],
    task: ClassificationTask,
    evaluator: Evaluator,
    names: list[str],
    split: str,
) -> None:
    found = evaluator.evaluate(mean(sweep[name].mixture for name in names), split)
    data = task.split(split)
    expected = logits(average([states[name] for name in names]), data.inputs)
    chances = expected.double().softmax(1).numpy()
    predictions = expected.argmax(1)
    targets = data.targets.numpy()
    assert found.n == len(data)
    assert found.split == split
    assert found.loss == pytest.approx(log_loss(targets, chances, labels=range(CLASSES)), rel=1e-5)
    assert found.score == found.accuracy == pytest.approx(accuracy_score(targets, predictions))
    torch.testing.assert_close(found.outputs, expected)
    assert found.predictions.tolist() == predictions.tolist()
    assert found.scores.tolist() == (predictions == data.targets).float().tolist()
    np.testing.assert_allclose(
        found.losses, -np.log(chances[np.arange(len(data)), targets]), rtol=1e-4, atol=1e-6
    )
    assert found.score_interval[0] < found.score < found.score_interval[1]
    assert found.seconds > 0


@pytest.mark.parametrize("batch_size", [1, 7, 99, 100, 101])
def test_the_batch_size_changes_no_result(
    sweep: Sweep,
    task: ClassificationTask,
    store: Store,
    evaluator: Evaluator,
    passes: list[int],
    batch_size: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    expected = evaluator.evaluate(halfway(sweep), "val")
    passes.clear()
    other = Evaluator(
        task, Store(tmp_path_factory.mktemp("other")), device="cpu", batch_size=batch_size
    )
    found = other.evaluate(halfway(sweep), "val")
    other.store.close()
    assert sum(passes) == 100
    assert max(passes) == min(batch_size, 100)
    assert found.scores.tolist() == expected.scores.tolist()
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_another_dtype_are_put_into_the_network_s_own(
    checkpoint_of: CheckpointOf, evaluator: Evaluator, task: ClassificationTask, dtype: torch.dtype
) -> None:
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in random_state(4).items()
    }
    expected = logits(state, task.split("val").inputs)
    found = evaluator.evaluate(Mixture([(checkpoint_of(state), 1)]), "val")
    assert found.outputs.dtype == torch.float32
    torch.testing.assert_close(found.outputs, expected)


@pytest.mark.parametrize("options", [{}, {"batch_size": 256}], ids=str)
def test_evaluating_twice_gives_the_same_bits(
    sweep: Sweep,
    task: ClassificationTask,
    tmp_path_factory: pytest.TempPathFactory,
    options: dict[str, Any],
) -> None:
    outputs = []
    for name in ("one", "two"):
        store = Store(tmp_path_factory.mktemp(name))
        outputs.append(
            Evaluator(task, store, device="cpu", **options).evaluate(halfway(sweep), "val").outputs
        )
        store.close()
    assert torch.equal(*outputs)


# What is remembered


def test_a_point_is_evaluated_once_for_all_calls(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    first = evaluator.evaluate(halfway(sweep), "val")
    assert passes == [100]
    a, b = sweep["run1"].mixture, sweep["run2"].mixture
    for point in (
        halfway(sweep),
        interpolate(b, a, 0.5),
        sweep.mixture({"run2": 0.5, "run1": 0.5}),
    ):
        assert evaluator.evaluate(point, "val") == first
    assert passes == [100]
    evaluator.evaluate(halfway(sweep), "test")
    evaluator.evaluate(a, "val")
    assert passes == [100, 90, 100]


def test_a_point_is_known_after_a_restart(
    sweep: Sweep, task: ClassificationTask, store: Store, passes: list[int]
) -> None:
    first = Evaluator(task, store, device="cpu", batch_size=256).evaluate(halfway(sweep), "val")
    passes.clear()
    with_reopened = Evaluator(task, Store(store.folder), device="cpu")
    again = with_reopened.evaluate(halfway(Sweep.from_folder(sweep.folder)), "val")
    with_reopened.store.close()
    assert passes == []
    assert again == first
    assert torch.equal(again.outputs, first.outputs)


def test_evaluations_belong_to_one_task(
    sweep: Sweep, task: ClassificationTask, store: Store, passes: list[int]
) -> None:
    Evaluator(task, store, device="cpu", batch_size=256).evaluate(halfway(sweep), "val")
    other = ClassificationTask(task.build_model, task.splits, version="2", name="toy")
    assert Evaluator(other, store).stored([halfway(sweep)], "val") == [None]
    data = task.split("val")
    splits = {"val": Split("select", data.inputs, 2 - data.targets)}
    relabelled = ClassificationTask(task.build_model, splits, name="toy")
    assert Evaluator(relabelled, store).stored([halfway(sweep)], "val") == [None]


def test_outputs_are_added_when_they_are_requested_later(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    lean = evaluator.evaluate(halfway(sweep), "val", keep_outputs=False)
    assert not lean.has_outputs
    with pytest.raises(KeyError, match="evaluate again with keep_outputs=True"):
        _ = lean.outputs
    full = evaluator.evaluate(halfway(sweep), "val")
    assert full.has_outputs
    assert full.outputs.shape == (100, CLASSES)
    assert passes == [100, 100]
    assert evaluator.evaluate(halfway(sweep), "val", keep_outputs=False).has_outputs
    assert passes == [100, 100]
    assert (lean.loss, lean.score) == (full.loss, full.score)


def test_stored_and_missing_points_are_listed_without_computing(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    points = [sweep[name].mixture for name in sweep.ingredients]
    found = evaluator.evaluate(points[1], "val")
    passes.clear()
    assert evaluator.stored(points, "val") == [None, found, None]
    assert evaluator.missing([*points, points[0]], "val") == [points[0], points[2]]
    assert evaluator.missing(points, "test") == points
    assert evaluator.stored([], "val") == []
    assert passes == []


# What is held in memory


@pytest.mark.parametrize("copies", [0, 1, 2, 10])
def test_the_memory_budget_changes_no_result(
    sweep: Sweep,
    task: ClassificationTask,
    evaluator: Evaluator,
    tmp_path_factory: pytest.TempPathFactory,
    copies: int,
) -> None:
    budget = copies * sweep["run1"].checkpoint.nbytes
    store = Store(tmp_path_factory.mktemp("other"))
    tight = Evaluator(task, store, device="cpu", memory_budget=budget)
    points = [halfway(sweep), sweep["run10"].mixture, sweep.mixture({"base": 2, "run10": -1})]
    points.append(mean(ingredient.mixture for ingredient in sweep.ingredients.values()))
    for point in points:
        expected = evaluator.evaluate(point, "val")
        assert torch.equal(tight.evaluate(point, "val").outputs, expected.outputs)
    store.close()


def count_reads(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    counter: Counter[str] = Counter()
    read_into = checkpoint.read_into

    def counted(name: str, start: int, out: Tensor) -> None:
        counter[name] += 1
        read_into(name, start, out)

    monkeypatch.setattr(checkpoint, "read_into", counted)
    return counter


@pytest.mark.parametrize(("copies", "reads"), [(10, 1), (1, 1), (0, 3)])
def test_an_ingredient_that_fits_the_budget_is_read_once(
    sweep: Sweep,
    task: ClassificationTask,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    copies: int,
    reads: int,
) -> None:
    checkpoint = sweep["run1"].checkpoint
    counter = count_reads(checkpoint, monkeypatch)
    budget = copies * checkpoint.nbytes
    evaluator = Evaluator(task, store, device="cpu", memory_budget=budget)
    for split in ("val", "test", "train"):
        evaluator.evaluate(sweep["run1"].mixture, split)
    assert counter == dict.fromkeys(checkpoint.tensors, reads)


def test_the_ingredient_used_longest_ago_makes_room(
    sweep: Sweep, task: ClassificationTask, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = {
        name: count_reads(sweep[name].checkpoint, monkeypatch) for name in sweep.ingredients
    }
    budget = 2 * sweep["run1"].checkpoint.nbytes
    evaluator = Evaluator(task, store, device="cpu", memory_budget=budget)
    for split, name in [
        ("val", "run1"),
        ("val", "run2"),
        ("test", "run1"),
        ("val", "run10"),  # run2 goes
        ("train", "run1"),
        ("test", "run2"),  # run10 goes
        ("shift/noise", "run1"),
    ]:
        evaluator.evaluate(sweep[name].mixture, split)
    assert {name: counter["0.weight"] for name, counter in counters.items()} == {
        "run1": 1,
        "run2": 2,
        "run10": 1,
    }


def test_a_file_changed_since_it_was_opened_is_not_evaluated(
    sweep: Sweep, evaluator: Evaluator, store: Store
) -> None:
    evaluator.evaluate(sweep["run1"].mixture, "val")
    sweep["run1"].checkpoint.path.write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"run1\.safetensors was changed after it was opened"):
        evaluator.evaluate(sweep["run1"].mixture, "test")
    assert evaluator.stored([sweep["run1"].mixture], "test") == [None]


# Progress


def test_progress_ends_with_all_examples(
    sweep: Sweep, task: ClassificationTask, store: Store
) -> None:
    evaluator = Evaluator(task, store, device="cpu", batch_size=30)
    for expected in ([(30, 100), (60, 100), (90, 100), (100, 100)], [(100, 100)]):
        reports: list[tuple[int, int]] = []
        evaluator.evaluate(
            halfway(sweep), "val", on_progress=lambda *report, to=reports: to.append(report)
        )
        assert reports == expected


def test_work_that_is_cancelled_leaves_nothing_and_can_be_done_again(
    sweep: Sweep, task: ClassificationTask, store: Store
) -> None:
    evaluator = Evaluator(task, store, device="cpu", batch_size=30)

    def stop(done: int, total: int) -> None:
        if done == 60:
            raise Cancelled

    with pytest.raises(Cancelled):
        evaluator.evaluate(halfway(sweep), "val", on_progress=stop)
    assert evaluator.stored([halfway(sweep)], "val") == [None]
    assert not [path for path in (store.folder / "arrays").rglob("*") if path.is_file()]
    assert evaluator.evaluate(halfway(sweep), "val").n == 100


# What does not fit, and what is not a number


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param({"3.bias": None}, "'3.bias' is only in the network", id="missing"),
        pytest.param({"extra": torch.ones(1)}, "'extra' is only in the checkpoint", id="extra"),
        pytest.param(
            {"3.bias": torch.ones(4)},
            r"'3.bias' has shape \[4\], the network's has \[3\]",
            id="shape",
        ),
    ],
)
def test_weights_that_do_not_fit_the_network_are_refused_by_file_and_tensor(
    checkpoint_of: CheckpointOf,
    evaluator: Evaluator,
    change: dict[str, Tensor | None],
    problem: str,
) -> None:
    changed = random_state(1) | change
    checkpoint = checkpoint_of({n: tensor for n, tensor in changed.items() if tensor is not None})
    with pytest.raises(CheckpointError, match=problem) as caught:
        evaluator.evaluate(Mixture([(checkpoint, 1)]), "val")
    assert str(checkpoint.path) in str(caught.value)
    assert "'toy'" in str(caught.value)


def test_an_unknown_split_is_refused(sweep: Sweep, evaluator: Evaluator) -> None:
    with pytest.raises(TaskError, match="has no split 'dev'"):
        evaluator.evaluate(halfway(sweep), "dev")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_score_nothing(
    checkpoint_of: CheckpointOf, evaluator: Evaluator, bad: float
) -> None:
    state = random_state(1)
    state["3.bias"][0] = bad
    point = Mixture([(checkpoint_of(state), 1)])
    for found in (evaluator.evaluate(point, "val"), *evaluator.stored([point], "val")):
        assert found is not None
        assert math.isnan(found.loss)
        assert found.score == 0
        assert found.score_interval[0] == 0


# Tasks that are no classification


class Regression(Task):
    loss_name = "squared error"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().mean(1)

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -self.loss(outputs, targets)


@pytest.fixture
def regression(store: Store) -> Evaluator:
    inputs = torch.randn(50, FEATURES, generator=torch.Generator().manual_seed(9))
    splits = {"val": Split("select", inputs, inputs[:, :2] * 2)}
    return Evaluator(Regression(lambda: nn.Linear(FEATURES, 2), splits, name="lines"), store)


@pytest.mark.parametrize("keep_outputs", [True, False])
def test_a_regression_is_evaluated_with_and_without_outputs(
    checkpoint_of: CheckpointOf, regression: Evaluator, keep_outputs: bool
) -> None:
    state = {"weight": torch.eye(2, FEATURES), "bias": torch.tensor([0.0, 1.0])}
    doubled = {name: 2 * tensor for name, tensor in state.items()}
    nothing = {name: 0 * tensor for name, tensor in state.items()}
    point = Mixture([(checkpoint_of(doubled), 0.5), (checkpoint_of(nothing), 0.5)])
    found = regression.evaluate(point, "val", keep_outputs=keep_outputs)
    inputs = regression.task.split("val").inputs.double().numpy()
    errors = ((inputs[:, :2] + [0, 1] - 2 * inputs[:, :2]) ** 2).mean(1)
    np.testing.assert_allclose(found.losses, errors, rtol=1e-5)
    assert found.loss == pytest.approx(errors.mean())
    assert found.score == pytest.approx(-errors.mean())
    assert found.score_interval[0] < found.score < found.score_interval[1]
    np.testing.assert_allclose(found.predictions, inputs[:, :2] + [0, 1], rtol=1e-5, atol=1e-6)
    assert found.has_outputs is keep_outputs


def test_a_regression_with_weights_that_are_not_finite_does_not_fail(
    checkpoint_of: CheckpointOf, regression: Evaluator
) -> None:
    state = {"weight": torch.full((2, FEATURES), math.nan), "bias": torch.zeros(2)}
    point = Mixture([(checkpoint_of(state), 1)])
    for found in (regression.evaluate(point, "val"), *regression.stored([point], "val")):
        assert found is not None
        assert math.isnan(found.loss)
        assert math.isnan(found.score)
        assert all(math.isnan(end) for end in found.score_interval)


def test_a_loss_that_is_one_number_for_all_examples_is_refused(
    sweep: Sweep, splits: dict[str, Split], store: Store
) -> None:
    class Averaged(ClassificationTask):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return torch.nn.functional.cross_entropy(outputs, targets)

    evaluator = Evaluator(Averaged(build_model, splits, name="averaged"), store)
    with pytest.raises(TaskError, match="one number per example"):
        evaluator.evaluate(sweep["run1"].mixture, "val")


def test_points_are_evaluated_once_and_returned_in_order(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    one, two = sweep["run1"].mixture, sweep["run2"].mixture
    reports: list[tuple[int, int]] = []
    found = evaluator.evaluate_all(
        [two, one, two], "val", on_progress=lambda done, total: reports.append((done, total))
    )
    assert [evaluation.mixture_key for evaluation in found] == [two.key, one.key, two.key]
    assert len(passes) == 2
    assert reports == [(100, 200), (200, 200)]


# Damaged arrays


def damage_file(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "deleted":
        path.unlink()
        return
    if how == "emptied":
        content.clear()
    if how == "truncated":
        del content[-100:]
    if how == "lengthened":
        content += b"more"
    if how == "flipped":
        content[len(content) // 2] ^= 0x40
    if how == "zeroed":
        content[:] = bytes(len(content))
    path.write_bytes(content)


@pytest.mark.parametrize(
    "how", ["deleted", "emptied", "truncated", "lengthened", "flipped", "zeroed"]
)
@pytest.mark.parametrize("keep_outputs", [True, False])
@pytest.mark.parametrize("when", ["before it is looked up", "after"])
def test_damaged_arrays_are_computed_again(
    sweep: Sweep,
    task: ClassificationTask,
    store: Store,
    evaluator: Evaluator,
    passes: list[int],
    how: str,
    keep_outputs: bool,
    when: str,
) -> None:
    point = halfway(sweep)
    before = evaluator.evaluate(point, "val", keep_outputs=keep_outputs)
    losses = before.losses.clone()
    other = Evaluator(task, Store(store.folder), device="cpu", batch_size=256)
    if when == "after":
        found = other.evaluate(point, "val", keep_outputs=keep_outputs)
        damage_file(before.arrays, how)
    else:
        damage_file(before.arrays, how)
        found = other.evaluate(point, "val", keep_outputs=keep_outputs)
    assert torch.equal(found.losses, losses)
    assert found.has_outputs == keep_outputs
    if keep_outputs:
        assert found.outputs.shape == (100, CLASSES)
    (note,) = other.notes
    assert str(before.arrays.relative_to(store.folder)) in note
    passes.clear()  # from now on it is known again
    known = other.evaluate(point, "val", keep_outputs=keep_outputs)
    assert torch.equal(known.losses, losses)
    assert not passes
    other.store.close()


def test_damaged_arrays_raise_an_error_and_the_point_is_removed(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    point = halfway(sweep)
    damage_file(evaluator.evaluate(point, "val").arrays, "flipped")
    passes.clear()
    (known,) = evaluator.stored([point], "val")
    assert known is not None
    with pytest.raises(DamagedArraysError, match=r"is damaged.*evaluated again"):
        known.scores.mean()
    assert evaluator.stored([point], "val") == [None]
    assert not passes


def test_evaluate_or_reject_computes_damaged_arrays_again(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    incumbent = evaluator.evaluate(sweep["run1"].mixture, "val")
    point = halfway(sweep)
    losses = evaluator.evaluate(point, "val").losses.clone()
    damage_file(evaluator.evaluate(point, "val").arrays, "flipped")
    found = evaluator.evaluate_or_reject(point, incumbent)
    assert isinstance(found, Evaluation)
    assert torch.equal(found.losses, losses)


def test_parts_of_a_split_are_taken_from_the_whole_computed_again_if_it_is_damaged(
    sweep: Sweep, task: ClassificationTask, evaluator: Evaluator
) -> None:
    point = halfway(sweep)
    whole = evaluator.evaluate(point, "val")
    losses = whole.losses.clone()
    damage_file(whole.arrays, "flipped")
    part = task.part("val", 50)
    found = evaluator.evaluate(point, part)
    assert torch.equal(found.losses, losses[task.rows_of(part)])


def test_a_cluster_without_ray_says_what_to_install(
    task: ClassificationTask, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    evaluator = Evaluator(task, Store(tmp_path / "store"), device="cpu", ray="local")
    point = sweep["run1"].mixture
    for evaluate in (evaluator.evaluate, lambda *point: evaluator.evaluate_all([point[0]], "val")):
        with pytest.raises(StockpotError, match=r"needs the package ray.* pip install 'stockpot"):
            evaluate(point, "val")
