from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from soupcore import ClassificationTask, Evaluation, Evaluator, Split, Store, Sweep, TaskError
from tests.helpers import build_model

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
def test_out_of_memory_while_a_shortcut_is_proven_makes_less_of_the_proof(
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
def test_where_not_one_example_fits_it_is_said(
    sweep: Sweep, splits: dict[str, Split], store: Store, build: Callable[[], nn.Module]
) -> None:
    task = ClassificationTask(build, splits, name="huge")
    with pytest.raises(TaskError, match=r"one example \(16 bytes\) of the task 'huge'"):
        Evaluator(task, store, device="cpu").evaluate(sweep["run1"].mixture, "val")


def test_another_error_of_the_network_is_not_taken_for_one_of_memory(
    sweep: Sweep, splits: dict[str, Split], store: Store
) -> None:
    task = ClassificationTask(scarce(0, RuntimeError("mine"), []), splits, name="broken")
    with pytest.raises(RuntimeError, match="mine"):
        Evaluator(task, store, device="cpu").evaluate(sweep["run1"].mixture, "val")


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


def test_evaluations_computed_together_share_a_file(
    sweep: Sweep, evaluator: Evaluator, store: Store
) -> None:
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


def test_what_was_computed_before_a_stop_is_kept(sweep: Sweep, evaluator: Evaluator) -> None:
    points = [sweep.mixture({"run1": 10 - i, "run2": i}) * 0.1 for i in range(1, 10)]

    def stop(done: int, total: int) -> None:
        if done == 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate_all(points, "val", keep_outputs=False, on_progress=stop)
    assert evaluator.missing(points, "val") == points[4:]
