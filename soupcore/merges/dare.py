"""DARE: drop entries of task vectors at random, rescale (Yu et al. 2023, arXiv:2311.03099)."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from soupcore.checkpoints import Checkpoint
from soupcore.merges.derived import NameOf
from soupcore.merges.task_vectors import Floats, TaskVectorMerge, Tie, Vote

Combine = Literal["mean", "sum", "ties"]

_BLOCK = 1 << 15  # entries that one counter of the generator decides on: part of the result


class Dare(TaskVectorMerge):
    """base + λ·(a combination of task vectors with entries dropped and the rest rescaled).

    Which entries are dropped depends on the seed, the ingredient's digest, the tensor's name and
    the entry's position, and on nothing else: not on names of files or how the tensor is read.

    Args:
        base, ingredients, scale, vote, tie: See `TaskVectorMerge`.
        drop: p in [0, 1): each entry becomes 0 with this probability; the others are divided by
            1 − p. It is taken to the next multiple of 2⁻³².
        seed: Any integer.
        combine: `mean` of the vectors; their `sum`, as in task arithmetic; `ties`, the mean of the
            entries that have the elected sign.
    """

    method = "dare"

    def __init__(
        self,
        base: Checkpoint,
        ingredients: Sequence[Checkpoint],
        *,
        drop: Fraction,
        seed: int,
        combine: Combine,
        scale: Fraction,
        vote: Vote,
        tie: Tie,
    ) -> None:
        super().__init__(base, ingredients, scale=scale, vote=vote, tie=tie)
        self.drop = drop
        self.seed = seed
        self.combine = combine

    def to_json(self, name_of: NameOf) -> dict[str, Any]:
        """Return what the merge is made of; see `Derived.to_json`."""
        own = {"drop": str(self.drop), "seed": self.seed, "combine": self.combine}
        return super().to_json(name_of) | own

    @classmethod
    def from_json(
        cls, body: Mapping[str, Any], checkpoint_of: Callable[[str], Checkpoint]
    ) -> "Dare":
        """Make the merge again that `to_json` described."""
        return cls(
            checkpoint_of(body["base"]),
            [checkpoint_of(name) for name in body["ingredients"]],
            drop=Fraction(body["drop"]),
            seed=body["seed"],
            combine=body["combine"],
            scale=Fraction(body["scale"]),
            vote=body["vote"],
            tie=body["tie"],
        )

    def _sparsify(self, name: str, start: int, vectors: Floats) -> None:
        if not self.drop:
            return
        rescale = vectors.dtype.type(float(1 / (1 - self.drop)))
        for vector, identity in zip(vectors, self._identities, strict=True):
            key = hashlib.sha256(json.dumps([self.seed, identity, name]).encode()).digest()
            vector *= self._kept(int.from_bytes(key[:16], "little"), start, len(vector))
            vector *= rescale

    @cached_property
    def _identities(self) -> list[list[Any]]:
        # The same weights twice are two ingredients, and each has entries of its own dropped.
        digests = [ingredient.digest for ingredient in self.ingredients]
        return [[digest, digests[:index].count(digest)] for index, digest in enumerate(digests)]

    def _kept(self, key: int, start: int, count: int) -> npt.NDArray[np.bool_]:
        limit = np.uint32(min(math.ceil(self.drop * (1 << 32)), (1 << 32) - 1))
        stop = start + count
        kept = [
            _random_words(key, block)[max(0, start - block * _BLOCK) : stop - block * _BLOCK]
            >= limit
            for block in range(start // _BLOCK, -(-stop // _BLOCK))
        ]
        return kept[0] if len(kept) == 1 else np.concatenate(kept)

    def _combine(self, vectors: Floats, wide: npt.DTypeLike) -> Floats:
        if self.combine == "ties":
            return self._elected_mean(vectors, wide)
        total = np.zeros(vectors.shape[1], dtype=wide)
        for vector in vectors:
            total += vector
        if self.combine == "mean":
            total /= len(vectors)
        return total


def _random_words(key: int, block: int) -> npt.NDArray[np.uint32]:
    # Philox (Salmon et al. 2011) gives the numbers of any block without those before it, and its
    # stream is one that NumPy promises not to change.
    generator = np.random.Philox(key=key, counter=[0, 0, 0, block])
    return generator.random_raw(_BLOCK // 2).astype("<u8", copy=False).view("<u4")
