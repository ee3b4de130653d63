"""Checkpoints that are computed from others instead of read from a file.

What is not one set of coefficients for all tensors (TIES, DARE, Model Stock, SLERP, a soup learned
tensor by tensor) is a checkpoint like any other: its elements are computed when they are read, any
range of them, the same however they are cut. So it is evaluated, drawn, mixed again and written by
what evaluates, draws, mixes and writes files.
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

_FORMAT = 2  # of the identity: change it when a method gives other bits for the same parameters


class Derived(Checkpoint):
    """A checkpoint whose elements are a function of the same elements of its sources.

    Attributes:
        method: What the function is called in the identity and in recipes.
        sources: What it is computed from, in an order that does not depend on names or files.
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
        """Return the method, its parameters and the names of the sources, as JSON.

        Args:
            name_of: Gives a source's name.
        """

    @abstractmethod
    def read_into(self, name: str, start: int, out: torch.Tensor) -> None:
        """Compute part of a tensor into a buffer; see `Checkpoint.read_into`."""

    def copied_from(self, name: str) -> Checkpoint | None:
        """Return the source that the tensor `name` is copied from, None where it is computed."""
        return None

    def known(self, name: str) -> TensorScan | None:
        """Return what is known of what a tensor is copied from; see `Checkpoint.known`."""
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
        """Identity of the weights: 64 hex digits over how they are computed.

        It costs nothing once the sources' digests are known. The same weights written to a file
        have another one, that of their bytes.
        """
        recipe = self.to_json(lambda source: source.digest)
        text = json.dumps(["derived", _FORMAT, recipe], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def scan(self, on_bytes: Callable[[int], None] = lambda nbytes: None) -> Scan:
        """Compute every element once; what is found is not kept beyond this object.

        Args:
            on_bytes: Called with the number of bytes computed since the last call; it may raise to
                stop.
        """
        if self._scan is None:
            self._scan = scan_tensors(self, on_bytes)
        return self._scan

    @property
    def is_scanned(self) -> bool:
        """Whether `nonfinite` is known without computing; `digest` always is."""
        return self._scan is not None

    def check_unchanged(self) -> None:
        """Make sure that the sources are the ones that were opened; see `Checkpoint`."""
        for source in self.sources:
            source.check_unchanged()
