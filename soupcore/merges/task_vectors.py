"""Task vectors θᵢ − base (Ilharco et al. 2023, arXiv:2212.04089), piece by piece.

TIES and DARE set entries of each task vector to zero, combine the vectors entry by entry, and add λ
times the result to the base. The vectors are float32 (float64 if a checkpoint is), so differences
are rounded once. They are summed in float64, or in float32 for half types.
"""

import json
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from soupcore.checkpoints import Checkpoint, are_known_alike
from soupcore.errors import CheckpointError
from soupcore.merges.derived import Derived, NameOf
from soupcore.merges.grouped import Fixed
from soupcore.mixtures import Mixture

Floats = npt.NDArray[np.floating[Any]]
T = TypeVar("T")

# Elements of each vector at a time, few enough that torch uses no threads for them.
_PIECE = 31 << 10

_MOST = 4096  # remembered results; there may be one per tensor
_known: OrderedDict[str, Any] = OrderedDict()

Vote = Literal["magnitude", "count"]
Tie = Literal["majority", "positive"]


def read_wide(checkpoint: Checkpoint, name: str, start: int, out: torch.Tensor) -> None:
    """Read elements of any float dtype into a buffer of float32 or float64."""
    if checkpoint.tensors[name].dtype == out.dtype:
        checkpoint.read_into(name, start, out)
    else:
        out.copy_(checkpoint.read_elements(name, start, start + out.numel()))


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for differences of tensors of a dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def remembered(key: Any, find: Callable[[], T]) -> T:
    """Return the result of `find`, a pass over all weights, called once per key and process.

    A sweep over λ, for example, needs the same thresholds for every value.

    Args:
        key: A JSON value with everything that the result depends on, such as digests of weights.
        find: Computes the result.
    """
    text = json.dumps(key)
    if text in _known:
        _known.move_to_end(text)
    else:
        _known[text] = find()
        if len(_known) > _MOST:
            _known.popitem(last=False)
    result: T = _known[text]
    return result


class TaskVectorMerge(Derived):
    """base + λ·(a function of the task vectors, entry by entry).

    The result does not depend on the order of the ingredients. Tensors that are not floats come
    from the ingredient with the lowest digest. Tensors that no ingredient changed come from the
    base: their differences are 0, or NaN for attention masks with infinities.

    Args:
        base: The shared initialisation.
        ingredients: The fine-tuned checkpoints. Equal weights count as often as they occur.
        scale: λ.
        vote: How signs are elected: `magnitude`, by the sum of the entries, or `count`, by the
            number of positive and negative entries.
        tie: Sign for ties: `majority`, the majority sign over the whole vector (+ if that is a tie
            too), or `positive`.

    Raises:
        CheckpointError: The checkpoints have different tensors, or some are complex.
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
                    f"Tensor {name!r} of {self.path} is complex, so its entries have no sign. "
                    "Use a recipe that averages."
                )
        # Task vectors exclude tensors that take no part in the recipe.
        fixed = base.fixed if isinstance(base, Fixed) else frozenset()
        self.float_tensors = [
            name
            for name, info in tensors.items()
            if info.dtype.is_floating_point and name not in fixed
        ]

    @abstractmethod
    def _sparsify(self, name: str, start: int, vectors: torch.Tensor) -> None:
        """Set entries of task vectors [k, n] to zero; they start at element `start` of a tensor."""

    @abstractmethod
    def _combine(self, vectors: torch.Tensor, wide: npt.DTypeLike) -> Floats:
        """Combine sparse task vectors [k, n] into one vector [n] of dtype `wide`."""

    @cached_property
    def _factor(self) -> float:
        """Factor of the combined vector."""
        return float(self.scale)

    def to_json(self, name_of: NameOf) -> dict[str, Any]:
        """Return the description of the merge; see `Derived.to_json`."""
        return {
            "method": self.method,
            "base": name_of(self.base),
            "ingredients": [name_of(ingredient) for ingredient in self.ingredients],
            "scale": str(self.scale),
            "vote": self.vote,
            "tie": self.tie,
        }

    def copied_from(self, name: str) -> Checkpoint | None:
        """Return the source that the tensor `name` is copied from; None if it is computed."""
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
        with np.errstate(all="ignore"):  # readers check for values that are not finite
            for origin, vectors in self._sparse_vectors(name, start, out.numel()):
                merged = self._combine(vectors, wide)
                merged *= self._factor
                merged += origin.numpy()
                out[place : place + len(merged)].copy_(torch.from_numpy(merged))
                place += len(merged)

    def _sparse_vectors(
        self, name: str, start: int, count: int
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the base [n] and the sparsified task vectors [k, n], piece by piece.

        Each piece reuses the memory of the previous one.
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
        """Tensors that no ingredient changed, as far as the scans of the files show."""
        sources = (self.base, *self.ingredients)
        return frozenset(name for name in self.tensors if are_known_alike(sources, name))

    def _elected_mean(self, vectors: torch.Tensor, wide: npt.DTypeLike) -> Floats:
        """Return the mean of the entries with the elected sign; 0 if there are none."""
        votes = sum_of(vectors.sign() if self.vote == "count" else vectors, wide)
        mean, agreeing = _mean_of_sign(vectors, votes >= 0, wide)
        # The majority sign takes a pass over all weights, and is needed only for ties between
        # non-zero entries, which are rare.
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
    """Return the sum [n] of vectors [k, n] in the dtype `wide`."""
    first, *others = vectors.numpy()
    total: Floats = first.astype(wide)
    for vector in others:
        total += vector
    return total


def _mean_of_sign(
    vectors: torch.Tensor, is_positive: npt.NDArray[np.bool_], wide: npt.DTypeLike
) -> tuple[Floats, npt.NDArray[np.integer[Any]]]:
    """Return for each entry the mean of the values with the given sign, and their number."""
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
