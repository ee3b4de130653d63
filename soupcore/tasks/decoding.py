"""Data sets that are decoded once and then read from disk.

Decoding images often costs more than the forward pass, so each data set is decoded once. The
decoded tensors are stored in the workspace with their dtypes and memory-mapped, so they may be
larger than memory.
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from soupcore.checkpoints.dtypes import DTYPE_NAMES, raw_bytes
from soupcore.errors import TaskError
from soupcore.new_files import check_space, create_private, full_disk, is_full, new_folder, reserve
from soupcore.tasks.examples import Collate, Examples, Leaf, Ragged, Structure, described
from soupcore.workspace import private_folder, workspace_folder

_BATCH = 64
_PROBED = 64  # examples hashed for the identity of a data set; more would be slow

OnExamples = Callable[[int, int], None]


class Decoding:
    """A data set and the location of its decoded copy.

    Args:
        dataset: Map-style: `dataset[i]` is a pair of inputs and target, or a dict with both; all
            examples have one structure, and each is the same at every access.
        version: Part of the data set's identity.
        workers: Processes that decode; 0 to decode in this one.
        target: The key of the target in dicts; `label` or `labels` by default.
        collate: Makes batches of the inputs (see `Split`).

    Raises:
        TaskError: The data set is empty or not map-style.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        version: str,
        workers: int,
        target: str | None = None,
        collate: Collate | None = None,
    ) -> None:
        if isinstance(dataset, DataLoader):
            raise TaskError(
                "Pass the data set (`loader.dataset`), not a DataLoader, and the loader's "
                "num_workers as `workers`."
            )
        is_map_style = hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
        if not is_map_style or not hasattr(dataset, "__len__") or not len(cast("Sized", dataset)):
            raise TaskError(
                "A split needs a map-style data set with at least one example: it must implement "
                "`__len__` and `__getitem__`."
            )
        self._dataset = dataset
        self._version = version
        self._workers = workers
        self._target = target
        self._collate = collate
        self._digest = ""
        self._first: _Example | None = None

    def __len__(self) -> int:
        return len(cast("Sized", self._dataset))

    @property
    def digest(self) -> str:
        """Identity of the data: version, length, 64 evenly spaced examples, tensors in memory."""
        if not self._digest:
            sha = hashlib.sha256(f"dataset {self._version} {len(self)}".encode())
            rows = sorted({i * (len(self) - 1) // (_PROBED - 1) for i in range(_PROBED)})
            probed = [self._example(row) for row in rows]
            self._first = probed[0]
            if not isinstance(self._first.structure, int):
                sha.update(repr(self._first.structure).encode())
            tensors = [tensor for example in probed for tensor in example.tensors]
            for tensor in [*tensors, *_in_memory(self._dataset)]:
                sha.update(f"{DTYPE_NAMES[tensor.dtype]} {list(tensor.shape)}".encode())
                sha.update(raw_bytes(tensor.detach().cpu().contiguous()))
            self._digest = sha.hexdigest()
        return self._digest

    @property
    def is_done(self) -> bool:
        """Whether the workspace has the decoded data."""
        return self._folder.is_dir()

    def load(self, on_examples: OnExamples) -> tuple[Examples, Examples]:
        """Return inputs and targets, mapped from disk; decode them first if needed.

        Args:
            on_examples: Called with the examples decoded so far and their total; raise in it to
                stop.

        Raises:
            TaskError: Examples differ in structure, shape or dtype.
            FullDiskError: The disk is too small.
        """
        if not self.is_done:
            self._decode(on_examples)
        first = self._first or self._example(0)
        columns = [_opened(self._folder, name) for name in first.names]
        inputs = Examples(columns[:-1], first.structure, self._collate)
        inputs.check_padding()
        return inputs, Examples.of_targets(columns[-1])

    @property
    def _folder(self) -> Path:
        return workspace_folder() / "decoded" / self.digest[:32]

    def _example(self, row: int) -> "_Example":
        return _Example.of(self._dataset[row], self._target)

    def _decode(self, on_examples: OnExamples) -> None:
        private_folder(self._folder.parent)
        ragged: set[str] = set()
        while True:
            try:
                with new_folder(self._folder) as folder:
                    self._decode_into(folder, ragged, on_examples)
                return
            except _DiffersError as error:
                # This column is ragged: decode again. Lengths mostly differ in the first batch
                # already, so little is decoded twice.
                ragged.add(error.name)

    def _decode_into(self, folder: Path, ragged: set[str], on_examples: OnExamples) -> None:
        loader: DataLoader[Any] = DataLoader(
            self._dataset, batch_size=_BATCH, num_workers=self._workers, collate_fn=list
        )
        columns: list[_Column] = []
        first: _Example | None = None
        done = 0
        for batch in loader:
            examples = [_Example.of(example, self._target) for example in batch]
            first = first or examples[0]
            for example in examples:
                self._compare(example, first, ragged)
            if not columns:
                columns = self._create(folder, first, ragged)
            for column, tensors in zip(
                columns, zip(*(e.tensors for e in examples), strict=True), strict=True
            ):
                column.write(tensors)
            done += len(examples)
            on_examples(done, len(self))
        for column in columns:
            column.finish()

    def _compare(self, example: "_Example", first: "_Example", ragged: set[str]) -> None:
        if example.names != first.names:
            raise TaskError(
                f"Examples of the data set differ: one has {', '.join(first.names)}, another "
                f"{', '.join(example.names)}. The data set must return one structure for all."
            )
        for name, tensor, other in zip(first.names, example.tensors, first.tensors, strict=True):
            if tensor.shape == other.shape and tensor.dtype == other.dtype:
                continue
            alike = tensor.dtype == other.dtype and tensor.ndim == other.ndim > 0
            if alike and tensor.shape[1:] == other.shape[1:]:
                if name in ragged:
                    continue
                if (
                    self._collate is not None
                    or "inputs.input_ids" in first.names
                    or name == "targets"
                ):
                    raise _DiffersError(name)
            raise TaskError(
                f"Examples of the data set differ: one is {described(other)}, another "
                f"{described(tensor)}. The data set must return one shape and dtype for all. If "
                "only the first dimension differs, give the split a `collate` that makes a batch "
                "from a list of inputs."
            )

    def _create(self, folder: Path, first: "_Example", ragged: set[str]) -> list["_Column"]:
        check_space(folder.parent, sum(tensor.nbytes for tensor in first.tensors) * len(self))
        return [
            (_RaggedColumn if name in ragged else _Column)(folder / name, tensor, len(self))
            for name, tensor in zip(first.names, first.tensors, strict=True)
        ]


def rows_on_disk(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return a copy of some rows of a tensor that is mapped from disk, mapped from disk too.

    Its file has no name and is freed with the last reference to the copy.

    Raises:
        FullDiskError: The disk is too small.
    """
    folder = workspace_folder()
    shape = (len(rows), *tensor.shape[1:])
    with tempfile.TemporaryFile(dir=folder) as file:
        reserve(file, folder, tensor[:1].nbytes * len(rows))
        found = torch.from_numpy(np.memmap(file, tensor.numpy().dtype, mode="w+", shape=shape))
    return torch.index_select(tensor, 0, rows, out=found)


@dataclass(frozen=True)
class _Example:
    """One example of a data set.

    Attributes:
        tensors: The tensors of the inputs, then the target.
        names: The name of each: `inputs` with its place in the structure, or `targets`.
        structure: The structure of the inputs.
    """

    tensors: list[Tensor]
    names: list[str]
    structure: Structure

    @classmethod
    def of(cls, example: Any, target: str | None) -> "_Example":
        """Split an example into tensors and structure.

        Raises:
            TaskError: It has no target, or contains something other than tensors.
        """
        inputs, answer = _pair(example, target)
        leaves: list[Any] = []
        names: list[str] = []
        structure = _taken_apart(inputs, "inputs", leaves, names)
        try:
            tensors = [torch.as_tensor(part) for part in [*leaves, answer]]
            for tensor in tensors:
                tensor.numpy()  # fails for dtypes that a .npy file cannot have
        except (TypeError, ValueError, RuntimeError) as error:
            raise TaskError(
                "A data set must return pairs of an input and a target, or dicts with both, of "
                f"tensors or numbers in a dtype of numpy ({error})."
            ) from error
        return cls(tensors, [*names, "targets"], structure)


class _DiffersError(Exception):
    """Examples differ in length in a column that was created for one shape."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Column:
    """A file of tensors of one shape, one per example."""

    def __init__(self, path: Path, first: Tensor, n: int) -> None:
        path, shape = path.with_name(f"{path.name}.npy"), (n, *first.shape)
        create_private(path)
        self._file = np.lib.format.open_memmap(path, "w+", first.numpy().dtype, shape)
        self._done = 0
        with path.open("rb+") as file:
            reserve(file, path, path.stat().st_size)

    def write(self, tensors: Sequence[Tensor]) -> None:
        """Add the tensors of some examples."""
        self._file[self._done : self._done + len(tensors)] = torch.stack(list(tensors)).numpy()
        self._done += len(tensors)

    def finish(self) -> None:
        """Flush the file to disk."""
        self._file.flush()


class _RaggedColumn(_Column):
    """A file of tensors that differ in their first dimension, and a file of their offsets."""

    def __init__(self, path: Path, first: Tensor, n: int) -> None:
        self._path = path
        self._first = first
        self._lengths: list[int] = []
        create_private(path)

    def write(self, tensors: Sequence[Tensor]) -> None:
        """Add the tensors of some examples."""
        content = torch.cat(list(tensors)).numpy().tobytes()
        try:
            with self._path.open("ab") as file:
                file.write(content)
        except OSError as error:
            if is_full(error):
                raise full_disk(self._path, len(content)) from error
            raise
        self._lengths += [len(tensor) for tensor in tensors]

    def finish(self) -> None:
        """Turn the written bytes into an array, which may be larger than memory."""
        dtype, shape = self._first.numpy().dtype, (sum(self._lengths), *self._first.shape[1:])
        path = self._path.with_name(f"{self._path.name}.npy")
        create_private(path)
        values = np.lib.format.open_memmap(path, "w+", dtype, shape)
        with path.open("rb+") as file:
            reserve(file, path, path.stat().st_size)
        if values.size:
            values[:] = np.memmap(self._path, dtype, "r", shape=shape)
        values.flush()
        self._path.unlink()
        offsets = self._path.with_name(f"{self._path.name}.offsets.npy")
        create_private(offsets)
        np.save(offsets, np.cumsum([0, *self._lengths]))


def _opened(folder: Path, name: str) -> Leaf:
    def mapped(file: Path) -> Tensor:
        # Copy-on-write and never written to: torch warns about read-only memory.
        return torch.from_numpy(np.lib.format.open_memmap(file, mode="c"))

    values, offsets = mapped(folder / f"{name}.npy"), folder / f"{name}.offsets.npy"
    return Ragged(values, mapped(offsets)) if offsets.exists() else values


def _pair(example: Any, target: str | None) -> tuple[Any, Any]:
    """Return the inputs and the target of an example."""
    if isinstance(example, Mapping):
        keys = [target] if target is not None else ["labels", "label"]
        key = next((key for key in keys if key in example), None)
        if key is None:
            raise TaskError(
                f"The examples of the data set have {', '.join(map(str, example))}, but no "
                f"{' or '.join(map(repr, keys))}. Pass the key of the target as `target`."
            )
        return {name: part for name, part in example.items() if name != key}, example[key]
    if isinstance(example, tuple | list) and len(example) == 2:
        return example[0], example[1]
    raise TaskError(
        "A data set must return pairs of an input and a target, or dicts with both; it returns "
        f"{described(example)}."
    )


def _taken_apart(inputs: Any, name: str, leaves: list[Any], names: list[str]) -> Structure:
    """Flatten a structure into named arrays, dropping texts; return the structure without them."""
    if isinstance(inputs, Mapping):
        return {
            key: _taken_apart(part, f"{name}.{key}", leaves, names)
            for key, part in inputs.items()
            if not _is_text(part)
        }
    if isinstance(inputs, tuple):
        return tuple(
            _taken_apart(part, f"{name}.{i}", leaves, names) for i, part in enumerate(inputs)
        )
    leaves.append(inputs)
    names.append(name)
    return len(leaves) - 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and any(map(_is_text, value)))


def _in_memory(dataset: Dataset[Any]) -> list[Tensor]:
    """Return the tensors or labels of all examples that a data set has in memory."""
    if isinstance(dataset, Subset):
        rows = torch.as_tensor(list(dataset.indices))
        return [tensor[rows.to(tensor.device)] for tensor in _in_memory(dataset.dataset)]
    if isinstance(dataset, TensorDataset):
        return list(dataset.tensors)
    labels = (getattr(dataset, name, None) for name in ("targets", "labels"))
    return [tensor for found in labels for tensor in _numbers(found, len(cast("Sized", dataset)))]


def _numbers(values: Any, length: int) -> list[Tensor]:
    """Return values in a tensor if they are numbers, one per example; else nothing."""
    try:
        tensor = torch.tensor(np.asarray(values))  # a copy: an array may be read-only
    except (TypeError, ValueError, RuntimeError):
        return []
    return [tensor] if tensor.ndim and len(tensor) == length else []
