"""Σ cᵢθᵢ with separate coefficients for each group of tensors.

Soups learned per layer or tensor, Model Stock, SLERP, and WiSE-FT that keeps the trained head have
this form and differ only in how the coefficients are computed. Coefficients are exact fractions, so
the weights depend only on their values.

A checkpoint with some of its tensors taken from elsewhere has this form too (`Fixed`). If only some
tensors take part in a recipe, all ingredients get the same values in the others. Any combination of
such ingredients whose coefficients sum to 1 has these values too, so recipes need not know which
tensors take part. A base that lacks the head of its fine-tunes is completed in the same way.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.digest import Scan, TensorScan, scan_tensors
from soupcore.errors import CheckpointError
from soupcore.merges.derived import Derived, NameOf
from soupcore.mixtures import Mixture, check_have

_OWN = "own"  # label of the tensors that a `Fixed` checkpoint has itself


@dataclass(frozen=True)
class Group:
    """Tensors with the same coefficients."""

    tensors: tuple[str, ...]
    mixture: Mixture


class Grouped(Derived):
    """A mixture with separate coefficients for each group of tensors.

    Tensors that are not floats come from the source with the largest coefficient of their group,
    as in a `Mixture`.

    Args:
        groups: `{label: Group}`. Every tensor that all sources have is in exactly one group. The
            sources of a group have the tensors of this group.

    Raises:
        CheckpointError: A tensor is in no group, in several groups, or missing in a source.
    """

    method = "grouped"

    def __init__(self, groups: Mapping[str, Group]) -> None:
        sources = {d: s for group in groups.values() for d, s in group.mixture.sources.items()}
        ordered = [sources[digest] for digest in sorted(sources)]
        counts = Counter(name for group in groups.values() for name in group.tensors)
        shared = set.intersection(*({*source.tensors} for source in ordered))
        if missing := shared - counts.keys():
            raise CheckpointError(f"Tensor {min(missing)!r} is in no group; put it in one group.")
        for name, count in counts.items():
            if count > 1:
                raise CheckpointError(f"Tensor {name!r} is in {count} groups; put it in only one.")
        for group in groups.values():
            check_have(group.mixture.sources.values(), group.tensors)
        self.groups = dict(groups)
        self._mixture_of = {
            name: group.mixture for group in groups.values() for name in group.tensors
        }
        in_files = dict.fromkeys(name for source in ordered for name in source.tensors)
        in_order = [name for name in in_files if name in counts]
        super().__init__(ordered, {name: self._mixture_of[name].info(name) for name in in_order})

    def to_json(self, name_of: NameOf) -> dict[str, Any]:
        """Return the coefficients of each group; see `Derived.to_json`."""
        return {
            "method": self.method,
            "groups": {
                label: {
                    "tensors": sorted(group.tensors),
                    "coefficients": {
                        name_of(group.mixture.sources[digest]): str(coefficient)
                        for digest, coefficient in group.mixture.coefficients.items()
                    },
                }
                for label, group in self.groups.items()
            },
        }

    @classmethod
    def from_json(
        cls, body: Mapping[str, Any], checkpoint_of: Callable[[str], Checkpoint]
    ) -> "Grouped":
        """Recreate the merge from the JSON of `to_json`."""
        return cls(
            {
                label: Group(
                    tuple(group["tensors"]),
                    Mixture(
                        (checkpoint_of(name), Fraction(text))
                        for name, text in group["coefficients"].items()
                    ),
                )
                for label, group in body["groups"].items()
            }
        )

    def copied_from(self, name: str) -> Checkpoint | None:
        """Return the source that the tensor is copied from; see `Mixture.copied_from`."""
        return self._mixture_of[name].copied_from(name)

    def read_into(self, name: str, start: int, out: torch.Tensor) -> None:
        """Mix part of a tensor into a buffer; see `Checkpoint.read_into`."""
        self._mixture_of[name].mix_into(name, out, start)


def as_mixed(mixture: Mixture) -> Mixture:
    """Return the underlying mixture of a point that consists of one soup used as a checkpoint.

    The soup thus has the same key, and one evaluation, whether it is used as an ingredient or not.
    """
    if [*mixture.coefficients.values()] == [1]:
        (source,) = mixture.sources.values()
        if isinstance(source, Grouped) and len(source.groups) == 1:
            (group,) = source.groups.values()
            return as_mixed(group.mixture)
    return mixture


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
