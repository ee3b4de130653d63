"""What a checkpoint is, whatever its file format."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import torch

from soupcore.checkpoints.digest import (
    Scan,
    TensorScan,
    cached_scan,
    scan,
    stamp,
    weights_digest,
)
from soupcore.errors import CheckpointError


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.numel * self.dtype.itemsize


@dataclass(frozen=True)
class WeightSet:
    """One of several sets of weights in a checkpoint.

    Attributes:
        name: Its place in the file, such as `ema`; `open_checkpoint` takes it as `weights`.
        title: What it is, for people, such as "EMA weights".
    """

    name: str
    title: str


class Checkpoint(ABC):
    """A file (or folder of shards) holding named tensors, read lazily.

    Attributes:
        path: The file or folder.
        tensors: `{name: TensorInfo}` in file order, from the header alone.
        metadata: Free text stored beside the tensors.
        files: Every file whose bytes belong to the checkpoint.
        stamp: Path and stamp of each file when it was opened; see `soupcore.checkpoints.files`.
        weights: Name of the weight set that was opened; "" where there is one only.
        weight_sets: All that can be opened, the one to take by convention first; empty where there
            is one only.
        details: What the file says of the run that made it: epoch, hyperparameters, metrics.
        notes: Sentences on what a reader should know of how the file was read.
        ties: Groups of names that stand for one and the same stored tensor.
        set_aside: Tensors of `original` that are missing here as they are no weights to average. A
            soup in the form of this checkpoint keeps them as they are.
    """

    weights: str = ""
    weight_sets: tuple[WeightSet, ...] = ()
    details: Mapping[str, str | int | float | bool | None] = MappingProxyType({})
    notes: tuple[str, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
    set_aside: tuple[str, ...] = ()

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, TensorInfo],
        metadata: Mapping[str, str],
        files: tuple[Path, ...],
    ) -> None:
        if not tensors:
            raise CheckpointError(f"{path} holds no tensors.", "Choose another file.")
        self.path = path
        self.tensors = dict(tensors)
        self.metadata = dict(metadata)
        self.files = files
        try:
            self.stamp = stamp(files)
        except OSError as error:
            raise CheckpointError(
                f"{path} was changed while it was opened ({error.strerror}).", "Open it again."
            ) from None
        self._scan: Scan | None = None

    @abstractmethod
    def read_elements(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read elements `start` to `stop` of the flattened tensor `name`.

        Returns:
            A 1-D tensor of `stop - start` elements that the caller must not write to.
        """

    def read_into(self, name: str, start: int, out: torch.Tensor) -> None:
        """Read elements of the flattened tensor `name`, from `start` on, into the caller's buffer.

        A format that reads its file piece by piece overrides this, to read without a copy.

        Args:
            name: Which tensor.
            start: The first element.
            out: Where they go: a 1-D contiguous CPU tensor of the same dtype, as long as what is
                read.
        """
        out.copy_(self.read_elements(name, start, start + out.numel()))

    @property
    def checksummed(self) -> frozenset[str]:
        """Tensors of whose bytes, and of no others with them, the file gives a checksum."""
        return frozenset()

    def check_integrity(  # noqa: B027 - most formats have no checksums, so there is nothing to do
        self,
        on_bytes: Callable[[int], None] = lambda nbytes: None,
        checksums: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Compare the weights with the checksums that the file gives of them, if it does.

        Args:
            on_bytes: Called with the number of bytes read since the last call; it may raise to
                stop.
            checksums: The CRC-32 of tensors in `checksummed` that were read before, which need not
                be read again for this.

        Raises:
            CheckpointError: A checksum is wrong: the file is damaged, or was tampered with.
        """

    def read(self, name: str) -> torch.Tensor:
        """Read the tensor `name` whole, in its own shape and dtype.

        Raises:
            CheckpointError: There is no such tensor, or the file cannot be read.
        """
        info = self.tensors.get(name)
        if info is None:
            raise CheckpointError(f"{self.path} has no tensor {name!r}.")
        return self.read_elements(name, 0, info.numel).reshape(info.shape)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Read every tensor."""
        return {name: self.read(name) for name in self.tensors}

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(info.nbytes for info in self.tensors.values())

    @cached_property
    def digest(self) -> str:
        """Identity of the weights: 64 hex digits.

        It covers names, dtypes, shapes and bytes and nothing of the file format, so the same
        weights saved as safetensors and as `.pt` have the same digest, and those saved from a
        wrapped network too (see `soupcore.checkpoints.names`). The first call reads the whole
        file (see `soupcore.checkpoints.digest`).
        """
        return weights_digest(self.tensors, self.scan())

    @cached_property
    def nonfinite(self) -> dict[str, int]:
        """How many NaN or infinite elements each tensor has, where it has any."""
        return {name: found.nonfinite for name, found in self.scan().items() if found.nonfinite}

    @property
    def scan_name(self) -> str:
        """What tells scans of the same files apart in the cache: the weight set."""
        return self.weights

    def scan(self, on_bytes: Callable[[int], None] = lambda nbytes: None) -> Scan:
        """Read every byte once, or take what is known of these files from the cache.

        Args:
            on_bytes: Called with the number of bytes read since the last call; it may raise to
                stop.

        Raises:
            CheckpointError: The files are damaged, or were changed meanwhile.
        """
        if self._scan is None:
            self._scan = cached_scan(self) or scan(self, on_bytes)
        return self._scan

    @property
    def original(self) -> "Checkpoint":
        """The checkpoint as it is in its files, where this is a view of it under other names."""
        return self

    @property
    def original_names(self) -> dict[str, str]:
        """The names in its files, by the names here."""
        return {name: name for name in self.tensors}

    def known(self, name: str) -> TensorScan | None:
        """Return what a scan found of a tensor, where one was made already; None before."""
        return self._scan[name] if self._scan is not None else None

    def identity(self, name: str) -> str | None:
        """Return a text that is the same for equal values of a tensor; None if not known yet.

        It is found without reading. Tensors with different texts may be equal too.
        """
        found = self.known(name)
        return found.digest if found is not None else None

    @property
    def is_scanned(self) -> bool:
        """Whether a scan is known, or that the files are damaged, without reading them again."""
        try:
            self._scan = self._scan or cached_scan(self)
        except CheckpointError:
            return True
        return self._scan is not None

    def check_unchanged(self) -> None:
        """Make sure that the files are the ones that were opened.

        Raises:
            CheckpointError: A file was changed or removed since; its digest would belong to other
                weights.
        """
        try:
            unchanged = stamp(self.files) == self.stamp
        except OSError:  # removed, or no longer readable
            unchanged = False
        if not unchanged:
            raise CheckpointError(
                f"{self.path} was changed after it was opened.", "Reload the sweep."
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self.tensors)} tensors)"


def are_known_alike(checkpoints: Iterable[Checkpoint], name: str) -> bool:
    """Return whether checkpoints are known, without reading, to hold the same tensor as `name`."""
    found = {
        (checkpoint.identity(name), checkpoint.tensors[name].dtype) for checkpoint in checkpoints
    }
    return len(found) == 1 and None not in found.pop()


def check_not_placeholder(path: Path) -> None:
    """Make sure that a file holds more than its name.

    Raises:
        CheckpointError: It is empty, or a Git LFS pointer.
    """
    with path.open("rb") as file:
        beginning = file.read(64)
    if not beginning:
        raise CheckpointError(f"{path} is empty.", "Copy or download it again.")
    if beginning.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the weights.", "Run `git lfs pull` in its folder."
        )
