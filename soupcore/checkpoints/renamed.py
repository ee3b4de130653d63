"""A checkpoint under the tensor names of another, or of a network."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from types import MappingProxyType

import torch

from soupcore.checkpoints.checkpoint import Checkpoint
from soupcore.checkpoints.digest import Scan, TensorScan
from soupcore.checkpoints.names import align


class RenamedCheckpoint(Checkpoint):
    """A view of a checkpoint under other names; its weights, and their digest, are the same.

    Args:
        original: The checkpoint.
        names: `{name here: name there}`. Tensors that are not named are left out; one may stand
            under two names.
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
        self.ties = _ties(names, original.ties)
        self.set_aside = tuple(set_aside)

    @property
    def original(self) -> Checkpoint:
        """The checkpoint as it is in its files."""
        return self._original

    @property
    def original_names(self) -> dict[str, str]:
        """The names in its files, by the names here."""
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
            found = self._original.scan(on_bytes)
            self._scan = {name: found[other] for name, other in self._names.items()}
        return self._scan

    def known(self, name: str) -> TensorScan | None:
        """Return what is known of the original, see `Checkpoint.known`."""
        return self._original.known(self._names[name])

    @property
    def is_scanned(self) -> bool:
        """Whether the original is scanned."""
        return self._original.is_scanned


def named_like(
    checkpoint: Checkpoint, names: Collection[str], ties: Iterable[Collection[str]]
) -> Checkpoint:
    """Return a checkpoint under other names, as far as they stand for the same tensors.

    Wrappers' prefixes are taken off or put before. Of tied tensors, names that are wanted and not
    there are added, and names that are there and not wanted left out: Hugging Face saves one of
    them only, torch all.

    Args:
        checkpoint: The checkpoint; it is returned itself where it has these names.
        names: The names it should have.
        ties: Groups of these that stand for one tensor.
    """
    found = align(checkpoint.tensors.keys(), names)
    for tie in ties:
        held = [name for name in tie if name in found]
        if held:
            found |= {name: found[held[0]] for name in tie if name not in found}
    for tie in checkpoint.ties:
        tied = {name for name, there in found.items() if there in tie}
        if tied & set(names):
            found = {n: there for n, there in found.items() if n not in tied or n in names}
    if list(found) == list(checkpoint.tensors) == list(found.values()):
        return checkpoint
    return RenamedCheckpoint(checkpoint, found)


def without(checkpoint: Checkpoint, names: Collection[str]) -> Checkpoint:
    """Return a checkpoint less tensors that are no weights; a file in its form keeps them.

    Args:
        checkpoint: The checkpoint; it is returned itself where it has none of them.
        names: Those tensors.
    """
    there = checkpoint.original_names
    kept = {name: other for name, other in there.items() if name not in names}
    if len(kept) == len(there):
        return checkpoint
    used = {*kept.values(), *checkpoint.set_aside}
    aside = dict.fromkeys(other for other in there.values() if other not in used)
    return RenamedCheckpoint(checkpoint.original, kept, (*checkpoint.set_aside, *aside))


def _ties(
    names: Mapping[str, str], ties: tuple[tuple[str, ...], ...]
) -> tuple[tuple[str, ...], ...]:
    stored = {name: tie[0] for tie in ties for name in tie}
    found: dict[str, list[str]] = {}
    for name, other in names.items():
        found.setdefault(stored.get(other, other), []).append(name)
    return tuple(tuple(tied) for tied in found.values() if len(tied) > 1)
