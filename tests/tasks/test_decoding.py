import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from soupcore import (
    Cancelled,
    Checkpoint,
    ClassificationTask,
    Evaluator,
    Mixture,
    Split,
    Store,
    Sweep,
    TaskError,
)
from soupcore.errors import FullDiskError

N = 150


class Images(Dataset[Any]):
    """Counts how often an example is decoded."""

    def __init__(self, n: int = N, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 256, (n, 3, 4, 4), dtype=torch.uint8, generator=generator)
        self.labels = torch.randint(0, 5, (n,), generator=generator)
        self.decoded: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.decoded.append(index)
        return self.images[index], int(self.labels[index])


class Numbers(Images):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.images[index].numpy().astype(np.float32), np.int16(self.labels[index])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_is_decoded_to_its_tensors(workers: int) -> None:
    data = Images()
    split = Split.from_dataset("report", data, workers=workers)
    assert len(split) == N
    assert torch.equal(split.inputs, data.images)
    assert torch.equal(split.targets, data.labels)
    assert (split.inputs.dtype, split.targets.dtype) == (torch.uint8, torch.int64)
    assert split.role == "report"


def test_arrays_and_numbers_become_tensors_of_their_dtype() -> None:
    split = Split.from_dataset("select", Numbers())
    assert torch.equal(split.inputs, Images().images.float())
    assert split.targets.dtype == torch.int16


def test_data_are_decoded_once_and_then_read_from_the_workspace(workspace: Path) -> None:
    data = Images()
    split = Split.from_dataset("select", data)
    assert not split.is_loaded
    _ = split.digest
    probed = len(data.decoded)
    assert probed == 64
    _ = split.inputs, split.targets, split.digest
    assert split.is_loaded
    assert len(data.decoded) == probed + N
    again = Images()
    reopened = Split.from_dataset("select", again)
    assert reopened.is_loaded
    assert torch.equal(reopened.inputs, data.images)
    assert len(again.decoded) == probed
    assert len([*(workspace / "decoded").iterdir()]) == 1


def test_the_identity_covers_version_length_and_examples() -> None:
    digests = [
        Split.from_dataset("select", data, version=version).digest
        for data, version in (
            (Images(), ""),
            (Images(), "2"),
            (Images(N - 1), ""),
            (Images(seed=1), ""),
        )
    ]
    assert len(set(digests)) == 4
    assert Split.from_dataset("report", Images(), workers=1).digest == digests[0]
    assert all(len(digest) == 64 for digest in digests)


class Labelled(Images):
    """Labels that it holds under a name and in a form of choice."""

    def __init__(self, name: str, labels: Any) -> None:
        super().__init__()
        setattr(self, name, labels)


def read_only(labels: list[int]) -> Any:
    array = np.array(labels)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda labels: Labelled("labels", torch.tensor(labels)), id="labels"),
        pytest.param(lambda labels: Labelled("targets", labels), id="a list of targets"),
        pytest.param(lambda labels: Labelled("targets", read_only(labels)), id="an array"),
        pytest.param(
            lambda labels: TensorDataset(torch.zeros(N, 2), torch.tensor(labels)), id="tensors"
        ),
        pytest.param(
            lambda labels: TensorDataset(torch.tensor(labels), torch.zeros(N)), id="inputs"
        ),
        pytest.param(
            lambda labels: Subset(Labelled("targets", labels), range(N - 1)), id="a subset"
        ),
    ],
)
def test_the_identity_covers_all_that_is_held_in_memory(
    make: Callable[[list[int]], Dataset[Any]],
) -> None:
    fixed = [0, 4, *[0] * (N - 2)]  # the example of number 1 is not among those that are probed
    one, same, other = (
        Split.from_dataset("select", make(labels)).digest for labels in ([0] * N, [0] * N, fixed)
    )
    assert one == same != other


@pytest.mark.parametrize("labels", [["a"] * N, [0], 0, None, {}, [[0], [0, 1]], [None] * N])
def test_attributes_without_a_number_per_example_are_not_part_of_the_identity(
    labels: Any,
) -> None:
    odd = Split.from_dataset("select", Labelled("targets", labels))
    assert odd.digest == Split.from_dataset("select", Images()).digest


def test_progress_counts_examples_and_a_stop_leaves_nothing(workspace: Path) -> None:
    split = Split.from_dataset("select", Images())

    def stop(done: int, total: int) -> None:
        if done > 64:
            raise Cancelled

    with pytest.raises(Cancelled):
        split.load(stop)
    assert [*(workspace / "decoded").iterdir()] == []
    reports: list[tuple[int, int]] = []
    split.load(lambda *report: reports.append(report))
    assert reports == [(64, N), (128, N), (N, N)]


class Uneven(Images):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        side = 4 if index < 100 else 5
        return torch.zeros(3, side, side), 0


class Halves(Images):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return torch.zeros(2, dtype=torch.bfloat16), 0


class Single(Images):
    def __getitem__(self, index: int) -> Any:
        return torch.zeros(2)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield torch.zeros(2), 0


class Counted(Stream):
    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: DataLoader(Images(), batch_size=32), id="a loader"),
        pytest.param(lambda: iter([]), id="an iterator"),
        pytest.param(Counted, id="a stream that has a length"),
    ],
)
def test_datasets_without_indices_are_refused(
    make: Callable[[], Any],
) -> None:
    with pytest.raises(TaskError, match=r"loader\.dataset|map-style data set"):
        Split.from_dataset("select", make())


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(lambda: Images(0), "at least one example", id="empty"),
        pytest.param(Stream, "map-style data set", id="without a length"),
        pytest.param(Uneven, "one shape", id="uneven"),
        pytest.param(Halves, "in a dtype of numpy", id="bfloat16"),
        pytest.param(Single, "pairs of an input and a target", id="no target"),
    ],
)
def test_examples_that_cannot_be_decoded_are_refused(
    workspace: Path, make: Callable[[], Dataset[Any]], problem: str
) -> None:
    with pytest.raises(TaskError, match=problem):
        Split.from_dataset("select", make()).load()
    assert not (workspace / "decoded").exists() or not [*(workspace / "decoded").iterdir()]


def test_shapes_that_differ_between_batches_are_refused() -> None:
    class Late(Images):
        def __getitem__(self, index: int) -> tuple[Any, Any]:
            return torch.zeros(4 if index < 128 else 5), 0

    with pytest.raises(TaskError, match=r"one is float32 \[4\], another .* \[5\]"):
        Split.from_dataset("select", Late()).load()


def test_too_little_disk_space_is_reported_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    data = Images()
    with pytest.raises(FullDiskError, match=r"decoded needs 8\.4 kB, and 100 bytes are free"):
        Split.from_dataset("select", data).load()
    assert len(data.decoded) < N


def test_two_processes_may_decode_at_once() -> None:
    one, other = (Split.from_dataset("select", Images()) for _ in range(2))

    def meanwhile(done: int, total: int) -> None:
        other.load()

    assert torch.equal(one.load(meanwhile)[0].whole(), other.inputs)


# In an evaluation


class Flat(Dataset[Any]):
    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.split.inputs[index], self.split.targets[index]


def test_decoded_data_are_evaluated_like_data_in_memory(
    evaluator: Evaluator, task: ClassificationTask, sweep: Sweep, passes: list[int]
) -> None:
    point = sweep["run1"].mixture
    streamed = Split.from_dataset("select", Flat(task.split("val")))
    other = ClassificationTask(task.build_model, {"val": streamed}, name="streamed")
    expected = evaluator.evaluate(point, "val")
    passes.clear()
    reports: list[float] = []
    found = Evaluator(other, evaluator.store, device="cpu", batch_size=30).evaluate(
        point, "val", on_progress=lambda done, total: reports.append(done / total)
    )
    torch.testing.assert_close(found.outputs, expected.outputs)
    assert found.scores.tolist() == expected.scores.tolist()
    assert passes == [30, 30, 30, 10]
    assert reports == sorted(reports)
    assert reports[0] == 0.32  # 64 of 100 decoded, which is half of the work
    assert reports[-1] == 1


def test_bytes_are_prepared_batch_by_batch(
    store: Store, checkpoint_of: Callable[[dict[str, Tensor]], Checkpoint]
) -> None:
    batches: list[tuple[torch.dtype, int]] = []

    def prepare(images: Tensor) -> Tensor:
        batches.append((images.dtype, len(images)))
        return images.flatten(1) / 255

    data = Images()
    splits = {"val": Split.from_dataset("select", data, prepare=prepare)}
    task = ClassificationTask(lambda: nn.Linear(48, 5), splits, name="bytes")
    weights = {"weight": torch.randn(5, 48), "bias": torch.zeros(5)}
    point = Mixture([(checkpoint_of(weights), 1)])
    found = Evaluator(task, store, device="cpu", batch_size=100).evaluate(point, "val")
    torch.testing.assert_close(found.outputs, data.images.flatten(1) / 255 @ weights["weight"].T)
    assert batches == [(torch.uint8, 100), (torch.uint8, 50)]
