"""Checkpoints that are computed from others instead of being read from a file.

A merge that is not one set of coefficients for all tensors (TIES, DARE, Model Stock, SLERP, a soup
learned per tensor) is a checkpoint whose elements are computed while they are read. Any range of
elements can be read, and the values do not depend on how ranges are cut. Merges are therefore
evaluated, plotted, mixed and written like any other checkpoint.
"""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from soupcore.checkpoints import Checkpoint, TensorInfo
from soupcore.checkpoints.digest import Scan, TensorScan, scan_tensors

NameOf = Callable[[Checkpoint], str]

_FORMAT = 2  # part of the digest; increase it if a method changes bits for equal parameters


class Derived(Checkpoint):
    """A checkpoint whose elements are a function of the same elements of its sources.

    Attributes:
        method: Name of the function in the digest and in recipes.
        sources: The sources, in an order that does not depend on names or files.
    """

    method: ClassVar[str]

    def __init__(self, sources: Sequence[Checkpoint], tensors: Mapping[str, TensorInfo]) -> None:
        files = dict.fromkeys(file for source in sources for file in source.files)
        names = ", ".join(dict.fromkeys(source.path.name for source in sources))
        super().__init__(
            Path(f"{self.method} of {names}"), tensors, sources[0].metadata, tuple(files)
        )
        self.sources = tuple(sources)

    @abstractmethod
    def to_json(self, name_of: NameOf) -> dict[str, Any]:
        """Return the method, its parameters and the names of the sources as JSON.

        Args:
            name_of: Returns the name of a source.
        """

    @abstractmethod
    def read_into(self, name: str, start: int, out: torch.Tensor) -> None:
        """Compute part of a tensor into a buffer; see `Checkpoint.read_into`."""

    def copied_from(self, name: str) -> Checkpoint | None:
        """Return the source that the tensor `name` is copied from; None if it is computed."""
        return None

    def known(self, name: str) -> TensorScan | None:
        """Return the scan of the tensor that a tensor is copied from; see `Checkpoint.known`."""
        copied = self.copied_from(name)
        if copied is None or copied.tensors[name].dtype != self.tensors[name].dtype:
            return None
        return copied.known(name)

    def read_elements(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Compute part of a tensor; see `Checkpoint.read_elements`."""
        block = torch.empty(stop - start, dtype=self.tensors[name].dtype)
        self.read_into(name, start, block)
        return block

    @cached_property
    def digest(self) -> str:
        """Digest of the description of the merge: 64 hex digits.

        It needs only the digests of the sources. A file with the same weights has another digest,
        that of its bytes.
        """
        recipe = self.to_json(lambda source: source.digest)
        text = json.dumps(["derived", _FORMAT, recipe], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def scan(self, on_bytes: Callable[[int], None] = lambda nbytes: None) -> Scan:
        """Compute every element once. The result is kept only in this object.

        Args:
            on_bytes: Called with the number of bytes computed since the last call. Raise in it to
                cancel.
        """
        if self._scan is None:
            self._scan = scan_tensors(self, on_bytes)
        return self._scan

    @property
    def is_scanned(self) -> bool:
        """Whether `nonfinite` is known without computing the weights; `digest` always is."""
        return self._scan is not None

    def check_unchanged(self) -> None:
        """Check that the files of the sources did not change; see `Checkpoint`."""
        for source in self.sources:
            source.check_unchanged()
