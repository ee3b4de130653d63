import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from soupcore import (
    Checkpoint,
    ClassificationTask,
    Evaluation,
    Evaluator,
    Mixture,
    Split,
    Store,
    Sweep,
    TaskError,
    interpolate,
    uniform,
)
from soupcore.evaluation.graph_shortcuts import Folding
from tests.evaluation.nets import CLASSES, EXAMPLES, NETS, SIDE, ToySweep, toy_sweep
from tests.helpers import FEATURES, build_model, save_sweep

Build = Callable[[], nn.Module]


def evaluator_of(toy: ToySweep, store: Store, **options: Any) -> Evaluator:
    return Evaluator(toy.task, store, device="cpu", **options)


def frozen(*parts: str) -> Callable[[str], bool]:
    """Say that only tensors with one of these in their names move."""
    return lambda name: any(part in name for part in parts)


# Against the plain loop


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 16}, {"memory_budget": 0}],
    ids=str,
)
def test_every_point_agrees_with_the_plain_loop(
    tmp_path: Path, store: Store, net: str, options: dict[str, int]
) -> None:
    made = toy_sweep(tmp_path / "sweep", NETS[net], splits=("val", "test"))
    evaluator = evaluator_of(made, store, **options)
    for split in ("val", "test"):
        points = made.points()
        for point, found in zip(points, evaluator.evaluate_all(points, split), strict=True):
            assert made.agrees(found, point, split)
    assert evaluator.notes == []


@pytest.mark.parametrize(
    ("net", "moving"),
    [
        pytest.param("mlp", ("5.",), id="mlp, head"),
        pytest.param("mlp", ("3.", "5."), id="mlp, all but the first layer"),
        pytest.param("mlp", ("1.",), id="mlp, first layer only"),
        pytest.param("conv net", ("head",), id="conv net, head"),
        pytest.param("conv net", ("blocks.2", "head"), id="conv net, last block"),
        pytest.param("conv net", ("norm",), id="conv net, BatchNorm only"),
        pytest.param("transformer", ("head",), id="transformer, head"),
        pytest.param("transformer", ("blocks.1", "head"), id="transformer, last block"),
        pytest.param("transformer", ("token",), id="transformer, class token only"),
        pytest.param("transformer", ("num_batches_tracked",), id="transformer, nothing"),
    ],
)
def test_points_with_frozen_layers_agree_with_the_plain_loop(
    tmp_path: Path, store: Store, net: str, moving: tuple[str, ...]
) -> None:
    made = toy_sweep(tmp_path / "sweep", NETS[net], moving=frozen(*moving), splits=("val", "test"))
    evaluator = evaluator_of(made, store)
    for split in ("val", "test", "val"):
        points = made.points()
        for point, found in zip(points, evaluator.evaluate_all(points, split), strict=True):
            assert made.agrees(found, point, split)
    assert evaluator.notes == []


def test_layers_that_are_frozen_in_some_ingredients_are_not_taken_for_frozen_in_others(
    tmp_path: Path, store: Store
) -> None:
    moving = frozen("head")
    tuned = {"run1"}
    made = toy_sweep(tmp_path / "frozen", NETS["conv net"], moving=moving)
    free = toy_sweep(tmp_path / "free", NETS["conv net"])
    states = {n: free.states[n] if n in tuned else state for n, state in made.states.items()}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "mixed", states))
    mixed = ToySweep(made.task, sweep, states)
    evaluator = evaluator_of(mixed, store)
    for point in mixed.points():
        for keep_outputs in (False, True):
            found = evaluator.evaluate(point, "val", keep_outputs=keep_outputs)
            assert mixed.agrees(found, point)


# What is computed, and what is not


@pytest.fixture
def convolved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples each call of a convolution had."""
    calls: list[int] = []
    forward = nn.Conv2d.forward

    def counted(self: nn.Conv2d, images: Tensor) -> Tensor:
        calls.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(nn.Conv2d, "forward", counted)
    return calls


def test_frozen_layers_are_computed_once(
    tmp_path: Path, store: Store, convolved: list[int]
) -> None:
    made = toy_sweep(tmp_path / "sweep", NETS["conv net"], moving=frozen("head"))
    evaluator = evaluator_of(made, store, batch_size=100)
    evaluator.evaluate_all(made.points()[:2], "val")
    before = len(convolved)
    evaluator.evaluate_all(made.points(), "val")
    assert convolved[before:] == []


def test_the_same_point_on_another_split_is_not_taken_for_one_with_all_layers_frozen(
    tmp_path: Path, store: Store, convolved: list[int]
) -> None:
    moving = frozen("blocks.2", "head")
    made = toy_sweep(tmp_path / "sweep", NETS["conv net"], moving=moving, splits=("val", "test"))
    evaluator = evaluator_of(made, store, batch_size=100)
    for point in made.points()[:2]:
        for split in ("val", "test"):
            evaluator.evaluate(point, split)
    # What the frozen layers make of both splits is known by now, and the last block has three.
    before = len(convolved)
    third = made.points()[2]
    found = {split: evaluator.evaluate(third, split) for split in ("val", "test")}
    assert len(convolved) - before == 2 * 3
    for split, evaluation in found.items():
        assert made.agrees(evaluation, third, split)


def test_layers_too_large_to_cache_are_computed_at_each_point(
    tmp_path: Path, store: Store, convolved: list[int]
) -> None:
    made = toy_sweep(tmp_path / "sweep", NETS["conv net"], moving=frozen("head"))
    # The features of the last layer are 16 numbers an example.
    few = evaluator_of(made, store, batch_size=100, memory_budget=4 * EXAMPLES * 15 * 4)
    few.evaluate_all(made.points()[:3], "val")
    before = len(convolved)
    found = few.evaluate(made.points()[4], "val")
    assert len(convolved) > before
    assert made.agrees(found, made.points()[4])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_weights_are_rounded_as_their_mixture_is(
    tmp_path: Path, store: Store, dtype: torch.dtype
) -> None:
    made = toy_sweep(tmp_path / "sweep", NETS["mlp"], k=2)
    halved = {n: {k: t.to(dtype) for k, t in s.items()} for n, s in made.states.items()}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "halved", halved))
    point = sweep.mixture({"run0": Fraction(1, 3), "run1": Fraction(2, 3)})
    found = evaluator_of(made, store).evaluate(point, "val")
    model = made.task.build_model()
    model.load_state_dict(point.state_dict())
    with torch.no_grad():
        expected = model(made.task.split("val").inputs)
    torch.testing.assert_close(found.outputs, expected)


# Networks that are not what they seem


class InPlace(nn.Module):
    """Writes to its input, and to what its frozen layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4 * (SIDE - 2) ** 2, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        images.sub_(0.5)
        features = self.features(images)
        features.mul_(1.5).add_(0.25)
        logits: Tensor = self.head(features.flatten(1))
        return logits


class ByPosition(InPlace):
    """Takes numbers up to the size of the batch from the way that the data comes."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images).flatten(1)
        order = torch.arange(features.shape[0])
        logits: Tensor = self.head(features)
        return logits[order]


class Branching(InPlace):
    """Asks the data which way to go, so that there is no graph of it."""

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.features(images).flatten(1)
        if features.isnan().all():
            return features
        logits: Tensor = self.head(features)
        return logits


class Around(InPlace):
    """The data goes through the first layer and around it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(SIDE, SIDE)  # type: ignore[assignment]
        self.head = nn.Linear(SIDE * SIDE, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head((images + self.features(images)).flatten(1))
        return logits


@pytest.mark.parametrize("build", [InPlace, ByPosition, Branching, Around])
@pytest.mark.parametrize("moving", [("",), ("head",), ("features",)])
@pytest.mark.parametrize("batch_size", [16, 70])
def test_a_peculiar_network_is_computed_as_it_would_be(
    tmp_path: Path, store: Store, build: Build, moving: tuple[str, ...], batch_size: int
) -> None:
    made = toy_sweep(tmp_path / "sweep", build, moving=frozen(*moving))
    evaluator = evaluator_of(made, store, batch_size=batch_size)
    inputs = made.task.split("val").inputs.clone()
    for point in made.points():
        assert made.agrees(evaluator.evaluate(point, "val"), point)
    assert torch.equal(made.task.split("val").inputs, inputs)


def test_a_network_with_hooks_keeps_them(tmp_path: Path, store: Store) -> None:
    def build() -> nn.Module:
        model = NETS["conv net"]()
        model.stem[0].register_forward_hook(  # type: ignore[index, union-attr]
            lambda module, arguments, output: output * 2
        )
        return model

    made = toy_sweep(tmp_path / "sweep", build, moving=frozen("head"))
    evaluator = evaluator_of(made, store)
    for point in made.points():
        assert made.agrees(evaluator.evaluate(point, "val"), point)


# Shortcuts that fail


def test_a_shortcut_that_changes_the_numbers_is_switched_off_with_a_note(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh = Folding.refresh

    def wrong(self: Folding) -> float:
        scale = refresh(self)
        for name, parameter in self.graph.named_parameters():
            if name.startswith("_folded"):
                parameter.mul_(1.001)
        return scale

    monkeypatch.setattr(Folding, "refresh", wrong)
    made = toy_sweep(tmp_path / "sweep", NETS["conv net"])
    evaluator = evaluator_of(made, store)
    for point in made.points():
        assert made.agrees(evaluator.evaluate(point, "val"), point)
    (note,) = evaluator.notes
    assert "BatchNorm is computed without a shortcut, which changed the loss by" in note


def test_a_shortcut_that_goes_wrong_later_is_found_when_it_is_compared_again(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soupcore.evaluation.forward_pass._AGAIN", 4)
    monkeypatch.setattr("soupcore.evaluation.forward_pass._EXAMPLES", 16)
    made = toy_sweep(tmp_path / "sweep", NETS["conv net"])
    evaluator = evaluator_of(made, store)
    one, other = made.sweep["run0"].mixture, made.sweep["run1"].mixture
    points = [interpolate(one, other, Fraction(i, 20)) for i in range(1, 12)]
    refresh, calls = Folding.refresh, 0

    def wrong_from_the_third_on(self: Folding) -> float:
        nonlocal calls
        calls += 1
        refresh(self)
        for name, parameter in self.graph.named_parameters():
            if calls >= 3 and name.startswith("_folded"):
                parameter.mul_(1.01)
        return 1.0  # with larger factors than before, it would be compared at once

    monkeypatch.setattr(Folding, "refresh", wrong_from_the_third_on)
    for point in points[:3]:
        evaluator.evaluate(point, "val")
    assert evaluator.notes == []
    for point in points[3:]:
        evaluator.evaluate(point, "val")
    (note,) = evaluator.notes
    assert "BatchNorm is computed without a shortcut, which changed the loss by" in note
    assert made.agrees(evaluator.evaluate(points[-1], "val"), points[-1])


def test_a_broken_point_switches_nothing_off(
    tmp_path: Path, store: Store, checkpoint_of: Callable[[Mapping[str, Tensor]], Checkpoint]
) -> None:
    made = toy_sweep(tmp_path / "sweep", NETS["conv net"])
    evaluator = evaluator_of(made, store)
    for name, tensor, value in (
        ("run0", "head.bias", math.nan),
        ("run1", "blocks.0.norm1.running_var", -1.0),
        ("run2", "stem.0.weight", math.inf),
    ):
        state = {**made.states[name], tensor: torch.full_like(made.states[name][tensor], value)}
        broken, whole = Mixture([(checkpoint_of(state), 1)]), made.sweep[name].mixture
        found = evaluator.evaluate(broken, "val")
        assert math.isnan(found.loss)
        assert found.score == 0
        assert made.agrees(evaluator.evaluate(whole, "val"), whole)
    assert evaluator.notes == []


ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
]


def scarce(room: int, error: Exception, seen: list[int]) -> Callable[[], nn.Module]:
    """Build a network that runs out of memory where a batch is larger than there is room."""

    class Scarce(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            if len(inputs) > room:
                raise error
            seen.append(len(inputs))
            for module in self:
                inputs = module(inputs)
            return inputs

    return lambda: Scarce(*build_model().children())


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("batch_size", [None, 80])
def test_out_of_memory_halves_the_batch_and_goes_on(
    sweep: Sweep,
    splits: dict[str, Split],
    store: Store,
    evaluator: Evaluator,
    error: Exception,
    batch_size: int | None,
) -> None:
    seen: list[int] = []
    task = ClassificationTask(scarce(30, error, seen), splits, name="scarce", version="scarce")
    small = Evaluator(task, store, device="cpu", batch_size=batch_size)
    for name in ("run1", "run2"):
        point = sweep[name].mixture
        found, expected = small.evaluate(point, "val"), evaluator.evaluate(point, "val")
        assert found.scores.equal(expected.scores)
        torch.testing.assert_close(found.losses, expected.losses)
    assert sum(seen) == 200
    assert max(seen) == (20 if batch_size else 25)
    # It is not tried again at each point.
    assert len(set(seen)) <= 2


def test_by_default_each_pass_takes_128_examples_at_a_time(sweep: Sweep, store: Store) -> None:
    seen: list[int] = []
    split = Split("select", torch.zeros(300, FEATURES), torch.zeros(300).long())
    task = ClassificationTask(scarce(300, MemoryError(), seen), {"val": split}, name="toy")
    evaluator = Evaluator(task, store, device="cpu")
    for name in ("run1", "run2", "run10"):
        evaluator.evaluate(sweep[name].mixture, "val")
    assert seen == [128, 128, 44] * 3


class Narrow(nn.Module):
    """A layer, without weights, that has room for so many examples."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs."""
        if len(inputs) > self._room:
            raise torch.OutOfMemoryError("out of memory")
        return inputs


def narrow(room: int) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*build_model().children(), Narrow(room))


@pytest.mark.parametrize("room", [64, 30, 1])
def test_out_of_memory_while_a_shortcut_is_checked_shrinks_the_check(
    sweep: Sweep, splits: dict[str, Split], store: Store, evaluator: Evaluator, room: int
) -> None:
    task = ClassificationTask(narrow(room), splits, name="narrow", version="narrow")
    small = Evaluator(task, store, device="cpu")
    for name in ("run1", "run2"):
        point = sweep[name].mixture
        found, expected = small.evaluate(point, "val"), evaluator.evaluate(point, "val")
        assert found.scores.equal(expected.scores)
        torch.testing.assert_close(found.losses, expected.losses)


def test_statistics_that_cannot_be_estimated_in_the_memory_there_is_are_refused(
    sweep: Sweep, splits: dict[str, Split], store: Store
) -> None:
    task = ClassificationTask(narrow(10), splits, name="narrow", version="narrow")
    estimating = Evaluator(task, store, device="cpu").with_statistics("re-estimated")
    with pytest.raises(TaskError, match="estimated on 128 examples at a time"):
        estimating.evaluate(sweep["run1"].mixture, "val")


@pytest.mark.parametrize("build", [scarce(0, MemoryError(), []), narrow(0)])
def test_a_network_for_which_no_example_fits_is_refused(
    sweep: Sweep, splits: dict[str, Split], store: Store, build: Callable[[], nn.Module]
) -> None:
    task = ClassificationTask(build, splits, name="huge")
    with pytest.raises(TaskError, match=r"one example \(16 bytes\) of the task 'huge'"):
        Evaluator(task, store, device="cpu").evaluate(sweep["run1"].mixture, "val")


def test_other_errors_of_the_network_are_not_handled_as_out_of_memory(
    sweep: Sweep, splits: dict[str, Split], store: Store
) -> None:
    task = ClassificationTask(scarce(0, RuntimeError("mine"), []), splits, name="broken")
    with pytest.raises(TaskError, match=r"network of the task 'broken'.*'val'.*mine") as caught:
        Evaluator(task, store, device="cpu").evaluate(sweep["run1"].mixture, "val")
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("inner", ["run2", "base"])
def test_another_point_may_be_evaluated_between_two_batches(
    sweep: Sweep,
    task: ClassificationTask,
    store: Store,
    evaluator: Evaluator,
    inner: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    other = Store(tmp_path_factory.mktemp("other"))
    busy = Evaluator(task, other, device="cpu", batch_size=30)
    between: list[Evaluation] = []

    def interrupt(done: int, total: int) -> None:
        between.append(busy.evaluate(sweep[inner].mixture, "test" if done < total else "val"))

    found = busy.evaluate(sweep["run1"].mixture, "val", on_progress=interrupt)
    assert found.scores.equal(evaluator.evaluate(sweep["run1"].mixture, "val").scores)
    expected = evaluator.evaluate(sweep[inner].mixture, "test")
    torch.testing.assert_close(between[0].losses, expected.losses)
    other.close()


@pytest.mark.parametrize("budget", [0, 2_000, 1 << 30])
def test_reading_a_point_from_files_has_progress_and_may_be_interrupted(
    sweep: Sweep,
    task: ClassificationTask,
    store: Store,
    evaluator: Evaluator,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    budget: int,
) -> None:
    monkeypatch.setattr("soupcore.evaluation.forward_pass._LONG_READ", 0)
    busy = Evaluator(task, store, device="cpu", batch_size=1_000, memory_budget=budget)
    point = uniform(sweep).mixture
    reported: list[float] = []
    between: dict[str, Evaluation] = {}

    def interrupt(done: int, total: int) -> None:
        reported.append(done / total)
        if len(reported) < 3:  # while it is read or mixed
            name = f"run{len(reported)}"
            between[name] = busy.evaluate(sweep[name].mixture, "test")

    found = busy.evaluate(point, "val", on_progress=interrupt)
    assert len(between) == 2
    assert sum(0 < each <= 0.5 for each in reported) > 1
    assert reported[-1] == 1
    other = Store(tmp_path_factory.mktemp("other"))
    alone = Evaluator(task, other, device="cpu", batch_size=1_000)
    assert found.losses.equal(alone.evaluate(point, "val").losses)
    for name, evaluation in between.items():
        assert evaluation.losses.equal(alone.evaluate(sweep[name].mixture, "test").losses)
    other.close()

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        busy.evaluate(0.5 * point + 0.5 * sweep["run1"].mixture, "val", on_progress=stop)
    assert not busy.stored([0.5 * point + 0.5 * sweep["run1"].mixture], "val")[0]


def test_evaluations_computed_together_share_a_file(
    sweep: Sweep, evaluator: Evaluator, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow the machine is.
    monkeypatch.setattr("soupcore.evaluation.records._WRITE_EVERY", 60.0)
    points = [sweep.mixture({"run1": 10 - i, "run2": i}) * 0.1 for i in range(1, 10)]
    found = evaluator.evaluate_all(points, "val", keep_outputs=False)
    files = [path for path in (store.folder / "arrays").rglob("*") if path.is_file()]
    assert len(files) < len(points)
    stored = evaluator.stored(points, "val")
    assert stored == found
    for point, one in zip(points, found, strict=True):
        alone = Evaluator(evaluator.task, store, device="cpu", batch_size=256)
        again = alone.evaluate(point, "val")  # with outputs this time, so in a file of its own
        assert again.place is None
        torch.testing.assert_close(again.losses, one.losses)
        assert again.predictions.equal(one.predictions)
        assert again.predictions.dtype == one.predictions.dtype == torch.int64
        assert again.scores.equal(one.scores)
        assert one.scores.dtype == torch.float32


def test_results_computed_before_a_stop_are_kept(sweep: Sweep, evaluator: Evaluator) -> None:
    points = [sweep.mixture({"run1": 10 - i, "run2": i}) * 0.1 for i in range(1, 10)]

    def stop(done: int, total: int) -> None:
        if done == 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate_all(points, "val", keep_outputs=False, on_progress=stop)
    assert evaluator.missing(points, "val") == points[4:]
