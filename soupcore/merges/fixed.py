"""A checkpoint with some of its tensors taken from elsewhere.

If only some tensors take part in a recipe, all ingredients get the same values in the others. Any
combination of such ingredients whose coefficients sum to 1 has these values too, so recipes need
not know which tensors take part. A base that lacks the head of its fine-tunes is completed in the
same way.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.digest import Scan, TensorScan, scan_tensors
from soupcore.errors import CheckpointError
from soupcore.merges.grouped import Group, Grouped
from soupcore.mixtures import Mixture

_OWN = "own"


class Fixed(Grouped):
    """A checkpoint whose tensors come from a file, except for those of given groups.

    Args:
        own: The checkpoint. It may lack tensors of the groups, or have them in other shapes.
        groups: The tensors from elsewhere.

    Attributes:
        own: The checkpoint.
        fixed: Names of the tensors from elsewhere.

    Raises:
        CheckpointError: No tensor is left, a tensor is in two groups, or missing in a source.
    """

    method = "fixed"

    def __init__(self, own: Checkpoint, groups: Iterable[Group]) -> None:
        elsewhere = list(groups)
        self.fixed = frozenset(name for group in elsewhere for name in group.tensors)
        left = tuple(name for name in own.tensors if name not in self.fixed)
        if not left:
            raise CheckpointError(
                f"{own.path} has only tensors that come from elsewhere.", "Choose fewer tensors."
            )
        self.own = own
        labelled = {f"from elsewhere {i}": group for i, group in enumerate(elsewhere, start=1)}
        super().__init__({_OWN: Group(left, Mixture([(own, 1)])), **labelled})
        self.path = own.path
        self.metadata = own.metadata
        self.weights = own.weights
        self.weight_sets = own.weight_sets
        self.details = own.details
        self.ties = tuple(tie for tie in own.ties if self.fixed.isdisjoint(tie))

    @classmethod
    def from_json(
        cls, body: Mapping[str, Any], checkpoint_of: Callable[[str], Checkpoint]
    ) -> "Fixed":
        """Recreate the checkpoint from the JSON of `to_json`."""
        groups = dict(Grouped.from_json(body, checkpoint_of).groups)
        (own,) = groups.pop(_OWN).mixture.sources.values()
        return cls(own, groups.values())

    def known(self, name: str) -> TensorScan | None:
        """Return the stored scan of a tensor, if any; see `Checkpoint.known`."""
        known = super().known(name)
        return self._scan[name] if known is None and self._scan is not None else known

    def identity(self, name: str) -> str | None:
        """Return the identity of a tensor; see `Checkpoint.identity`."""
        if name not in self.fixed:
            return self.own.identity(name)
        mixture = self._mixture_of[name]
        copied = mixture.copied_from(name)
        known = copied.identity(name) if copied is not None else None
        return f"{name} of {mixture.key}" if known is None else known

    def scan(self, on_bytes: Callable[[int], None] = lambda nbytes: None) -> Scan:
        """Scan the file, and compute only the tensors from elsewhere; see `Checkpoint.scan`."""
        if self._scan is None:
            own = self.own.scan(on_bytes)
            elsewhere = scan_tensors(self, on_bytes, names=self.fixed)
            self._scan = {name: elsewhere.get(name) or own[name] for name in self.tensors}
        return self._scan


def own_of(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint in a file, without tensors from elsewhere."""
    return checkpoint.own if isinstance(checkpoint, Fixed) else checkpoint
