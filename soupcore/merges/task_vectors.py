"""Task vectors θᵢ − base (Ilharco et al. 2023, arXiv:2212.04089), piece by piece.

TIES and DARE make a few entries of each task vector zero, combine the rest entry by entry and add
λ times that to the base. The vectors are float32 (float64 where a checkpoint is), which rounds the
difference once; they are summed in float64, those of half types in float32.
"""

from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from soupcore.checkpoints import Checkpoint
from soupcore.errors import CheckpointError
from soupcore.merges.derived import Derived, NameOf
from soupcore.mixtures import CHUNK, Mixture

Floats = npt.NDArray[np.floating[Any]]

Vote = Literal["magnitude", "count"]
Tie = Literal["majority", "positive"]


def read_wide(checkpoint: Checkpoint, name: str, start: int, out: torch.Tensor) -> None:
    """Read elements into a buffer of float32 or float64, whatever their own dtype."""
    if checkpoint.tensors[name].dtype == out.dtype:
        checkpoint.read_into(name, start, out)
    else:
        out.copy_(checkpoint.read_elements(name, start, start + out.numel()))


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that differences of tensors of a dtype are taken in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class TaskVectorMerge(Derived):
    """base + λ·(a function of the task vectors, entry by entry).

    The result does not depend on the order of the ingredients. Tensors that are not floats come
    from the first of them, by digest.

    Args:
        base: The shared initialisation.
        ingredients: What was fine-tuned from it; the same weights twice count twice.
        scale: λ.
        vote: How the sign of an entry is elected where signs are: `magnitude`, by the sum of the
            entries; `count`, by how many are positive and how many negative.
        tie: The sign where the votes are equal: `majority`, the sign that most entries of the
            whole vector have (+ where even these are equal); `positive`, +.

    Raises:
        CheckpointError: The checkpoints do not hold the same tensors, or some are complex.
    """

    def __init__(
        self,
        base: Checkpoint,
        ingredients: Sequence[Checkpoint],
        *,
        scale: Fraction,
        vote: Vote = "magnitude",
        tie: Tie = "majority",
    ) -> None:
        self.base = base
        self.ingredients = sorted(ingredients, key=lambda ingredient: ingredient.digest)
        self.scale = scale
        self.vote = vote
        self.tie = tie
        tensors = Mixture((checkpoint, 1) for checkpoint in (*ingredients, base)).tensors
        super().__init__([*self.ingredients, base], tensors)
        for name, info in tensors.items():
            if info.dtype.is_complex:
                raise CheckpointError(
                    f"Tensor {name!r} of {self.path} is complex and its entries have no sign; "
                    "choose a recipe that averages."
                )
        self.float_tensors = [
            name for name, info in tensors.items() if info.dtype.is_floating_point
        ]

    @abstractmethod
    def _sparsify(self, name: str, start: int, vectors: Floats) -> None:
        """Set entries of task vectors [k, n], which begin at `start` of a tensor, to zero."""

    @abstractmethod
    def _combine(self, vectors: Floats, wide: npt.DTypeLike) -> Floats:
        """Combine sparse task vectors [k, n] into one [n] of the dtype `wide`."""

    def to_json(self, name_of: NameOf) -> dict[str, Any]:
        """Return what the merge is made of; see `Derived.to_json`."""
        return {
            "method": self.method,
            "base": name_of(self.base),
            "ingredients": [name_of(ingredient) for ingredient in self.ingredients],
            "scale": str(self.scale),
            "vote": self.vote,
            "tie": self.tie,
        }

    def _compute(self, name: str, start: int, out: torch.Tensor) -> None:
        if not out.dtype.is_floating_point:
            out.copy_(self.ingredients[0].read_elements(name, start, start + out.numel()))
            return
        wide = np.float64 if out.dtype.itemsize >= 4 else np.float32
        with np.errstate(all="ignore"):  # what is not finite is told by whoever reads it
            origin, vectors = self._sparse_vectors(name, start, out.numel())
            merged = self._combine(vectors, wide)
            merged *= float(self.scale)
            merged += origin
        out.copy_(torch.from_numpy(merged))

    def _sparse_vectors(self, name: str, start: int, count: int) -> tuple[Floats, Floats]:
        origin, vectors = self._vectors(name, start, count)
        self._sparsify(name, start, vectors)
        return origin, vectors

    def _vectors(self, name: str, start: int, count: int) -> tuple[Floats, Floats]:
        dtype = wide_dtype(self.tensors[name].dtype)
        rows = torch.empty(1 + len(self.ingredients), count, dtype=dtype)
        for row, checkpoint in zip(rows, (self.base, *self.ingredients), strict=True):
            read_wide(checkpoint, name, start, row)
        origin, *vectors = rows.numpy()
        for vector in vectors:
            vector -= origin
        return origin, rows[1:].numpy()

    def _elected_mean(self, vectors: Floats, wide: npt.DTypeLike) -> Floats:
        """Return the mean of the entries that have the elected sign, 0 where none has."""
        sign = self._elected_signs(vectors, wide)
        total, agreeing = np.zeros_like(sign), np.zeros_like(sign)
        for vector in vectors:
            turned = vector * sign
            agreeing += turned > 0
            total += np.maximum(turned, 0, out=turned)
        total /= np.maximum(agreeing, 1, out=agreeing)
        total *= sign
        return total

    def _elected_signs(self, vectors: Floats, wide: npt.DTypeLike) -> Floats:
        votes = self._votes(vectors, wide)
        tied = votes == 0
        # Few entries are tied with votes on both sides, and only for them the whole is counted.
        tied_sign = 1.0
        if self.tie == "majority" and (tied & np.any(vectors, axis=0)).any():
            tied_sign = self._majority
        signs: Floats = np.where(tied, tied_sign, np.sign(votes)).astype(wide)
        return signs

    def _votes(self, vectors: Floats, wide: npt.DTypeLike) -> Floats:
        votes = np.zeros(vectors.shape[1], dtype=wide)
        for vector in vectors:
            votes += np.sign(vector) if self.vote == "count" else vector
        return votes

    @cached_property
    def _majority(self) -> float:
        balance = 0
        for name in self.float_tensors:
            info = self.tensors[name]
            wide = np.float64 if info.dtype.itemsize >= 4 else np.float32
            for start in range(0, info.numel, CHUNK):
                _, vectors = self._sparse_vectors(name, start, min(CHUNK, info.numel - start))
                votes = self._votes(vectors, wide)
                balance += int((votes > 0).sum()) - int((votes < 0).sum())
        return 1.0 if balance >= 0 else -1.0
