"""Task vectors θᵢ − base (Ilharco et al. 2023, arXiv:2212.04089), piece by piece.

TIES and DARE make a few entries of each task vector zero, combine the rest entry by entry and add
λ times that to the base. The vectors are float32 (float64 where a checkpoint is), which rounds the
difference once; they are summed in float64, those of half types in float32.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from soupcore.checkpoints import Checkpoint, are_known_alike
from soupcore.errors import CheckpointError
from soupcore.merges.derived import Derived, NameOf
from soupcore.mixtures import Mixture

Floats = npt.NDArray[np.floating[Any]]

# Elements of each vector at a time: so few that torch does not wake its threads for them.
_PIECE = 31 << 10

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
    from the first of them, by digest. Those that no ingredient changed come from the base: the
    differences would be 0, but for NaN where an attention mask is infinite.

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
    def _sparsify(self, name: str, start: int, vectors: torch.Tensor) -> None:
        """Set entries of task vectors [k, n], which begin at `start` of a tensor, to zero."""

    @abstractmethod
    def _combine(self, vectors: torch.Tensor, wide: npt.DTypeLike) -> Floats:
        """Combine sparse task vectors [k, n] into one [n] of the dtype `wide`."""

    @cached_property
    def _factor(self) -> float:
        """What the combined vector is multiplied by."""
        return float(self.scale)

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

    def copied_from(self, name: str) -> Checkpoint | None:
        """Return the source that the tensor `name` is copied from, None where it is computed."""
        if not self.tensors[name].dtype.is_floating_point:
            return self.ingredients[0]
        return self.base if name in self._unchanged else None

    def read_into(self, name: str, start: int, out: torch.Tensor) -> None:
        """Compute part of a tensor into a buffer; see `Checkpoint.read_into`."""
        copied = self.copied_from(name)
        if copied is not None:
            out.copy_(copied.read_elements(name, start, start + out.numel()))
            return
        wide = _sum_dtype(out.dtype)
        place = 0
        with np.errstate(all="ignore"):  # what is not finite is told by whoever reads it
            for origin, vectors in self._sparse_vectors(name, start, out.numel()):
                merged = self._combine(vectors, wide)
                merged *= self._factor
                merged += origin.numpy()
                out[place : place + len(merged)].copy_(torch.from_numpy(merged))
                place += len(merged)

    def _sparse_vectors(
        self, name: str, start: int, count: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Give the base [n] and the task vectors [k, n], entries dropped, piece by piece.

        Each piece takes the place of the one before.
        """
        dtype = wide_dtype(self.tensors[name].dtype)
        sources = (self.base, *self.ingredients)
        buffer = torch.empty(len(sources), min(_PIECE, count), dtype=dtype)
        for begin in range(start, start + count, _PIECE):
            rows = buffer[:, : min(_PIECE, start + count - begin)]
            for row, checkpoint in zip(rows, sources, strict=True):
                read_wide(checkpoint, name, begin, row)
            for row in rows[1:]:
                row.sub_(rows[0])
            self._sparsify(name, begin, rows[1:])
            yield rows[0], rows[1:]

    @cached_property
    def _unchanged(self) -> frozenset[str]:
        """Tensors that no ingredient changed, as far as is known without reading them."""
        sources = (self.base, *self.ingredients)
        return frozenset(name for name in self.tensors if are_known_alike(sources, name))

    def _elected_mean(self, vectors: torch.Tensor, wide: npt.DTypeLike) -> Floats:
        """Return the mean of the entries that have the elected sign, 0 where none has."""
        votes = sum_of(vectors.sign() if self.vote == "count" else vectors, wide)
        mean, agreeing = _mean_of_sign(vectors, votes >= 0, wide)
        # Few entries have votes on both sides that are equal. Only for these is it worth knowing
        # which sign most entries have.
        is_contested = (votes == 0) & (agreeing > 0)
        if self.tie == "majority" and is_contested.any() and not self._most_are_positive:
            mean, _ = _mean_of_sign(vectors, votes > 0, wide)
        return mean

    @cached_property
    def _most_are_positive(self) -> bool:
        balance = 0
        for name in set(self.float_tensors) - self._unchanged:
            info = self.tensors[name]
            for _, vectors in self._sparse_vectors(name, 0, info.numel):
                ballots = vectors.sign() if self.vote == "count" else vectors
                votes = sum_of(ballots, _sum_dtype(info.dtype))
                balance += int((votes > 0).sum()) - int((votes < 0).sum())
        return balance >= 0


def sum_of(vectors: torch.Tensor, wide: npt.DTypeLike) -> Floats:
    """Return the sum of vectors [k, n] as [n], in the dtype `wide`."""
    first, *others = vectors.numpy()
    total: Floats = first.astype(wide)
    for vector in others:
        total += vector
    return total


def _mean_of_sign(
    vectors: torch.Tensor, is_positive: npt.NDArray[np.bool_], wide: npt.DTypeLike
) -> tuple[Floats, npt.NDArray[np.integer[Any]]]:
    """Return for each entry the mean of those that have a sign, and how many these are."""
    sign = torch.from_numpy(is_positive).to(vectors.dtype).mul_(2).sub_(1)
    turned = torch.empty_like(sign)
    total = np.zeros(len(sign), dtype=wide)
    agreeing = np.zeros(len(sign), dtype=np.min_scalar_type(len(vectors)))
    for vector in vectors:
        torch.mul(vector, sign, out=turned)
        agreeing += turned.numpy() > 0
        total += turned.clamp_(min=0).numpy()
    total /= np.maximum(agreeing, 1)
    total *= sign.numpy()
    return total, agreeing


def _sum_dtype(dtype: torch.dtype) -> type[np.floating[Any]]:
    return np.float64 if dtype.itemsize >= 4 else np.float32
