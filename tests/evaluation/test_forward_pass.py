from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from soupcore import (
    ClassificationTask,
    Evaluation,
    Evaluator,
    Split,
    Store,
    Sweep,
    TaskError,
    uniform,
)
from tests.helpers import save_sweep
from tests.toy import FEATURES, IMAGE_NETWORKS, build_model, image_sweep


@pytest.mark.parametrize("net", IMAGE_NETWORKS)
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 16}, {"memory_budget": 0}],
    ids=str,
)
def test_every_point_agrees_with_the_plain_loop(
    tmp_path: Path, store: Store, net: str, options: dict[str, int]
) -> None:
    made = image_sweep(tmp_path / "sweep", net, splits=("val", "test"))
    evaluator = made.evaluator(store, **options)
    for split in ("val", "test"):
        points = made.points()
        for point, found in zip(points, evaluator.evaluate_all(points, split), strict=True):
            assert made.agrees(found, point, split)
    assert evaluator.notes == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_weights_are_rounded_as_their_mixture_is(
    tmp_path: Path, store: Store, dtype: torch.dtype
) -> None:
    made = image_sweep(tmp_path / "sweep", "mlp", k=2)
    halved = {n: {k: t.to(dtype) for k, t in s.items()} for n, s in made.states.items()}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "halved", halved))
    point = sweep.mixture({"run0": Fraction(1, 3), "run1": Fraction(2, 3)})
    found = made.evaluator(store).evaluate(point, "val")
    model = made.task.build_model()
    model.load_state_dict(point.state_dict())
    with torch.no_grad():
        expected = model(made.task.split("val").inputs)
    torch.testing.assert_close(found.outputs, expected)


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


def assert_same_results(one: Evaluator, other: Evaluator, sweep: Sweep) -> None:
    for name in ("run1", "run2"):
        found, expected = (each.evaluate(sweep[name].mixture, "val") for each in (one, other))
        assert found.scores.equal(expected.scores)
        torch.testing.assert_close(found.losses, expected.losses)


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
    assert_same_results(small, evaluator, sweep)
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
    assert_same_results(Evaluator(task, store, device="cpu"), evaluator, sweep)


def test_statistics_that_do_not_fit_in_memory_are_refused(
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
    monkeypatch.setattr("soupcore.evaluation.evaluations._WRITE_EVERY", 60.0)
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
