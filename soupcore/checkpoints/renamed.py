"""A checkpoint under the tensor names of another checkpoint or of a network."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from types import MappingProxyType

import torch

from soupcore.checkpoints.checkpoint import Checkpoint
from soupcore.checkpoints.digest import Scan, TensorScan
from soupcore.checkpoints.names import align, tied


class RenamedCheckpoint(Checkpoint):
    """A view of a checkpoint under other names, with the same digest.

    Args:
        original: The checkpoint.
        names: `{new name: original name}`. Other tensors are omitted; a tensor may have two new
            names.
        set_aside: See `Checkpoint.set_aside`.
    """

    def __init__(
        self, original: Checkpoint, names: Mapping[str, str], set_aside: Iterable[str] = ()
    ) -> None:
        super().__init__(
            original.path,
            {name: original.tensors[other] for name, other in names.items()},
            original.metadata,
            original.files,
        )
        self.stamp = original.stamp
        self.weights = original.weights
        self.weight_sets = original.weight_sets
        self.details = original.details
        self.notes = original.notes
        self._original = original
        self._names = dict(names)
        first = {name: tie[0] for tie in original.ties for name in tie}
        self.ties = tied({name: first.get(other, other) for name, other in names.items()})
        self.set_aside = tuple(set_aside)

    @property
    def original(self) -> Checkpoint:
        """The checkpoint as stored in its files."""
        return self._original

    @property
    def original_names(self) -> dict[str, str]:
        """`{name: name in the files}` of all tensors."""
        return dict(self._names)

    @cached_property
    def digest(self) -> str:
        """Identity of the weights, see `Checkpoint.digest`."""
        return self._original.digest

    def read_elements(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read part of a tensor; see `Checkpoint.read_elements`."""
        return self._original.read_elements(self._names[name], start, stop)

    def read_into(self, name: str, start: int, out: torch.Tensor) -> None:
        """Read part of a tensor into a buffer; see `Checkpoint.read_into`."""
        self._original.read_into(self._names[name], start, out)

    def check_integrity(
        self,
        on_bytes: Callable[[int], None] = lambda nbytes: None,
        checksums: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Compare the checksums of the original; see `Checkpoint.check_integrity`."""
        self._original.check_integrity(on_bytes)

    def scan(self, on_bytes: Callable[[int], None] = lambda nbytes: None) -> Scan:
        """Scan the original, see `Checkpoint.scan`."""
        if self._scan is None:
            scan = self._original.scan(on_bytes)
            self._scan = {name: scan[other] for name, other in self._names.items()}
        return self._scan

    def known(self, name: str) -> TensorScan | None:
        """Return the original's scan of a tensor, see `Checkpoint.known`."""
        return self._original.known(self._names[name])

    @property
    def is_scanned(self) -> bool:
        """Whether the original is scanned."""
        return self._original.is_scanned


def named_like(
    checkpoint: Checkpoint, names: Collection[str], ties: Iterable[Collection[str]]
) -> Checkpoint:
    """Return a checkpoint under other names, as far as its tensors have counterparts.

    Prefixes of wrappers are removed or added. For tied tensors, missing names are added and
    superfluous ones are omitted: Hugging Face saves one tensor of a tie, torch saves all.

    Args:
        checkpoint: The checkpoint. It is returned unchanged if it has these names.
        names: The names to match.
        ties: Groups of these names that refer to the same tensor.
    """
    renamed = align(checkpoint.tensors.keys(), names)
    for tie in ties:
        held = [name for name in tie if name in renamed]
        if held:
            renamed |= {name: renamed[held[0]] for name in tie if name not in renamed}
    for tie in checkpoint.ties:
        tied = {name for name, there in renamed.items() if there in tie}
        if tied & set(names):
            renamed = {n: there for n, there in renamed.items() if n not in tied or n in names}
    if list(renamed) == list(checkpoint.tensors) == list(renamed.values()):
        return checkpoint
    return RenamedCheckpoint(checkpoint, renamed)


def without(checkpoint: Checkpoint, names: Collection[str]) -> Checkpoint:
    """Return a checkpoint without some tensors, which are listed in its `set_aside`.

    Args:
        checkpoint: The checkpoint. It is returned unchanged if it has none of the tensors.
        names: Names of tensors that are not trained.
    """
    there = checkpoint.original_names
    kept = {name: other for name, other in there.items() if name not in names}
    if len(kept) == len(there):
        return checkpoint
    used = {*kept.values(), *checkpoint.set_aside}
    aside = dict.fromkeys(other for other in there.values() if other not in used)
    return RenamedCheckpoint(checkpoint.original, kept, (*checkpoint.set_aside, *aside))
