"""Data sets that are decoded once and read from disk from then on.

Decoding images costs more than many a network does: it is done once for a data set, not once for
each point. What comes out lies in the workspace as it is (bytes stay bytes) and is mapped into
memory, so that it may be larger than that.
"""

import hashlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
)

from soupcore.checkpoints.dtypes import DTYPE_NAMES, raw_bytes
from soupcore.errors import TaskError
from soupcore.workspace import workspace_folder

_BATCH = 64
_PROBED = 64  # examples that the identity of a data set covers; decoding more would be felt

OnExamples = Callable[[int, int], None]


class Decoding:
    """A data set and the place where it lies decoded.

    Args:
        dataset: Map-style: `dataset[i]` is a pair of input and target, each a tensor, an array or a
            number, of one shape and dtype for all i, and the same each time it is asked for.
        version: Part of the data set's identity.
        workers: Processes that decode; 0 to decode in this one.

    Raises:
        TaskError: It is empty, or does not give its examples by their number.
    """

    def __init__(self, dataset: Dataset[Any], version: str, workers: int) -> None:
        if isinstance(dataset, DataLoader):
            raise TaskError(
                "A split is made of a data set, not of a loader, whose batches and order it has no "
                "use for: give it `loader.dataset`, and the loader's num_workers as `workers`."
            )
        is_map_style = hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
        if not is_map_style or not hasattr(dataset, "__len__") or not len(cast("Sized", dataset)):
            raise TaskError(
                "A split needs a map-style data set with at least one example: one that has a "
                "length and gives its examples by their number."
            )
        self._dataset = dataset
        self._version = version
        self._workers = workers
        self._digest = ""

    def __len__(self) -> int:
        return len(cast("Sized", self._dataset))

    @property
    def digest(self) -> str:
        """Identity of the data: version, length, 64 examples spread over it, what is in memory."""
        if not self._digest:
            sha = hashlib.sha256(f"dataset {self._version} {len(self)}".encode())
            rows = sorted({i * (len(self) - 1) // (_PROBED - 1) for i in range(_PROBED)})
            probed = [tensor for row in rows for tensor in _pair([self._dataset[row]])]
            for tensor in [*probed, *_in_memory(self._dataset)]:
                sha.update(f"{DTYPE_NAMES[tensor.dtype]} {list(tensor.shape)}".encode())
                sha.update(raw_bytes(tensor.detach().cpu().contiguous()))
            self._digest = sha.hexdigest()
        return self._digest

    @property
    def is_done(self) -> bool:
        """Whether it lies decoded in the workspace."""
        return self._folder.is_dir()

    def load(self, on_examples: OnExamples) -> tuple[Tensor, Tensor]:
        """Return inputs and targets, mapped from disk, decoding them first where they are not yet.

        Args:
            on_examples: Called with examples decoded and in all; raise in it to stop.

        Raises:
            TaskError: Examples differ in shape or dtype, or the disk is too small.
        """
        if not self.is_done:
            self._decode(on_examples)
        # Private to the process and only read; torch wants memory that it could write to.
        inputs, targets = (
            torch.from_numpy(np.lib.format.open_memmap(self._folder / name, mode="c"))
            for name in ("inputs.npy", "targets.npy")
        )
        return inputs, targets

    @property
    def _folder(self) -> Path:
        return workspace_folder() / "decoded" / self.digest[:32]

    def _decode(self, on_examples: OnExamples) -> None:
        folder = self._folder.with_name(f".{secrets.token_hex(8)}.part")
        folder.mkdir(parents=True)
        try:
            self._decode_into(folder, on_examples)
            folder.rename(self._folder)
        except OSError:
            if not self.is_done:  # else another process was quicker
                raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _decode_into(self, folder: Path, on_examples: OnExamples) -> None:
        loader: DataLoader[Any] = DataLoader(
            self._dataset, batch_size=_BATCH, num_workers=self._workers, collate_fn=_pair
        )
        files: list[np.memmap[Any, Any]] = []
        done = 0
        for tensors in loader:
            pair = [tensor.numpy() for tensor in tensors]
            if not files:
                files = self._create(folder, pair)
            for file, part in zip(files, pair, strict=True):
                if (file.dtype, file.shape[1:]) != (part.dtype, part.shape[1:]):
                    raise TaskError(
                        f"Examples of the data set differ: one is {file.dtype} of shape "
                        f"{list(file.shape[1:])}, another {part.dtype} of shape "
                        f"{list(part.shape[1:])}. Have the data set give all in one."
                    )
                file[done : done + len(part)] = part
            done += len(pair[0])
            on_examples(done, len(self))
        for file in files:
            file.flush()

    def _create(self, folder: Path, pair: list[np.ndarray[Any, Any]]) -> list[Any]:
        _check_space(folder, sum(part[0].nbytes for part in pair) * len(self))
        names = ("inputs.npy", "targets.npy")
        return [
            np.lib.format.open_memmap(
                folder / name, mode="w+", dtype=part.dtype, shape=(len(self), *part.shape[1:])
            )
            for name, part in zip(names, pair, strict=True)
        ]


def rows_on_disk(tensor: Tensor, rows: Tensor) -> Tensor:
    """Return a copy of some rows of a tensor that is mapped from disk, mapped from disk too.

    Its file has no name, and goes when nothing holds the copy any more.

    Raises:
        TaskError: The disk is too small.
    """
    folder = workspace_folder()
    shape = (len(rows), *tensor.shape[1:])
    _check_space(folder, tensor[:1].nbytes * len(rows))
    with tempfile.TemporaryFile(dir=folder) as file:
        found = torch.from_numpy(np.memmap(file, tensor.numpy().dtype, mode="w+", shape=shape))
    return torch.index_select(tensor, 0, rows, out=found)


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise TaskError(
            f"The decoded data takes {needed / 1e9:.1f} GB and there are {free / 1e9:.1f} GB "
            f"free in {workspace_folder()}. Free some, or set STOCKPOT_WORKSPACE to another disk."
        )


def _in_memory(dataset: Dataset[Any]) -> list[Tensor]:
    """Return what a data set holds of all its examples: the tensors it is made of, or labels."""
    if isinstance(dataset, Subset):
        rows = torch.as_tensor(list(dataset.indices))
        return [tensor[rows.to(tensor.device)] for tensor in _in_memory(dataset.dataset)]
    if isinstance(dataset, TensorDataset):
        return list(dataset.tensors)
    labels = (getattr(dataset, name, None) for name in ("targets", "labels"))
    return [tensor for found in labels for tensor in _numbers(found, len(cast("Sized", dataset)))]


def _numbers(values: Any, length: int) -> list[Tensor]:
    """Return values as a tensor, where they are numbers and as many as there are examples."""
    try:
        tensor = torch.tensor(np.asarray(values))  # a copy: an array may be read-only
    except (TypeError, ValueError, RuntimeError):
        return []
    return [tensor] if tensor.ndim and len(tensor) == length else []


def _pair(examples: list[Any]) -> tuple[Tensor, Tensor]:
    try:
        inputs, targets = default_collate(examples)
        pair = torch.as_tensor(inputs), torch.as_tensor(targets)
        for tensor in pair:
            tensor[:0].numpy()  # a dtype that a file can hold
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(
            "A data set has to give pairs of an input and a target, each a tensor of one shape and "
            f"of a dtype that numpy has; it does not ({error})."
        ) from error
    return pair
