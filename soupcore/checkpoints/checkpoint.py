"""The interface of checkpoints, which does not depend on the file format."""

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
    """Shape and dtype of a tensor."""

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
        name: Its place in the file, such as `ema`; the argument `weights` of `open_checkpoint`.
        title: Display name, such as "EMA weights".
    """

    name: str
    title: str


class Checkpoint(ABC):
    """A file (or folder of shards) holding named tensors, read lazily.

    Attributes:
        path: The file or folder.
        tensors: `{name: TensorInfo}` in file order, read from the header alone.
        metadata: Strings stored beside the tensors.
        files: All files of the checkpoint.
        stamp: Path and stamp of each file when it was opened; see `soupcore.checkpoints.files`.
        weights: Name of the opened weight set; "" if the file has only one.
        weight_sets: All weight sets, the conventional choice first; empty if there is only one.
        details: Information on the training run in the file: epoch, hyperparameters, metrics.
        notes: Sentences for users on how the file was read.
        ties: Groups of names that refer to the same stored tensor.
        set_aside: Tensors of `original` that are omitted here because they are not trained. A soup
            written in the form of this checkpoint contains them unchanged.
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

        Formats that read their file block by block override this to avoid a copy.

        Args:
            name: Name of the tensor.
            start: The first element.
            out: The buffer: a 1-D contiguous CPU tensor of the same dtype. Its length is the number
                of elements to read.
        """
        out.copy_(self.read_elements(name, start, start + out.numel()))

    @property
    def checksummed(self) -> frozenset[str]:
        """Names of tensors with a separate checksum in the file."""
        return frozenset()

    def check_integrity(  # noqa: B027 - most formats have no checksums, so there is nothing to do
        self,
        on_bytes: Callable[[int], None] = lambda nbytes: None,
        checksums: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Compare the weights with the checksums in the file, if it has any.

        Args:
            on_bytes: Called with the number of bytes read since the last call; it may raise to
                stop.
            checksums: CRC-32 of tensors in `checksummed` that were computed before; these tensors
                are not read again.

        Raises:
            CheckpointError: A checksum is wrong: the file is damaged, or was tampered with.
        """

    def read(self, name: str) -> torch.Tensor:
        """Read the whole tensor `name` in its own shape and dtype.

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

        It covers names, dtypes, shapes and bytes, and is independent of the file format: the same
        weights saved as safetensors and as `.pt`, or from a wrapped network (see
        `soupcore.checkpoints.names`), have the same digest. The first call reads the whole file
        (see `soupcore.checkpoints.digest`).
        """
        return weights_digest(self.tensors, self.scan())

    @cached_property
    def nonfinite(self) -> dict[str, int]:
        """Number of NaN or infinite elements of each tensor that has any."""
        return {name: scan.nonfinite for name, scan in self.scan().items() if scan.nonfinite}

    @property
    def scan_name(self) -> str:
        """The key that distinguishes scans of the same files in the cache: the weight set."""
        return self.weights

    def scan(self, on_bytes: Callable[[int], None] = lambda nbytes: None) -> Scan:
        """Return the scan of the files from the cache, or by reading every byte once.

        Args:
            on_bytes: Called with the number of bytes read since the last call; it may raise to
                stop.

        Raises:
            CheckpointError: The files are damaged, or changed in the meantime.
        """
        if self._scan is None:
            self._scan = cached_scan(self) or scan(self, on_bytes)
        return self._scan

    @property
    def original(self) -> "Checkpoint":
        """The checkpoint as stored in its files, if this one is a view of it under other names."""
        return self

    @property
    def original_names(self) -> dict[str, str]:
        """`{name: name in the files}` of all tensors."""
        return {name: name for name in self.tensors}

    def known(self, name: str) -> TensorScan | None:
        """Return the scan of a tensor if the checkpoint has been scanned, else None."""
        return self._scan[name] if self._scan is not None else None

    def identity(self, name: str) -> str | None:
        """Return a string that is equal only for equal values of a tensor; None if not scanned.

        Reads no weights. Tensors with different strings may also be equal.
        """
        scan = self.known(name)
        return scan.digest if scan is not None else None

    @property
    def is_scanned(self) -> bool:
        """Whether a scan, or the error of a damaged file, is cached."""
        try:
            self._scan = self._scan or cached_scan(self)
        except CheckpointError:
            return True
        return self._scan is not None

    def check_unchanged(self) -> None:
        """Check that the files are still those that were opened.

        Raises:
            CheckpointError: A file was changed or removed since, so the digest would be wrong.
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
    """Return whether the tensor `name` is equal in all checkpoints, according to their scans.

    Returns False if a checkpoint has not been scanned. Reads no weights.
    """
    identities = {
        (checkpoint.identity(name), checkpoint.tensors[name].dtype) for checkpoint in checkpoints
    }
    return len(identities) == 1 and None not in identities.pop()


def check_not_placeholder(path: Path) -> None:
    """Check that a file is not empty and not a Git LFS pointer.

    Raises:
        CheckpointError: It is one of these.
    """
    with path.open("rb") as file:
        beginning = file.read(64)
    if not beginning:
        raise CheckpointError(f"{path} is empty.", "Copy or download it again.")
    if beginning.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the weights.", "Run `git lfs pull` in its folder."
        )
