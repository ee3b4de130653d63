"""DARE: drop entries of task vectors at random, rescale (Yu et al. 2023, arXiv:2311.03099)."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from soupcore.checkpoints import Checkpoint
from soupcore.merges.derived import NameOf
from soupcore.merges.task_vectors import Floats, TaskVectorMerge, Tie, Vote, sum_of

Combine = Literal["mean", "sum", "ties"]

# Both are part of the result: entries that one counter of the generator decides on, and how many
# values the random word of an entry has.
_BLOCK = 1 << 15
_WORDS = 1 << 16


class Dare(TaskVectorMerge):
    """base + λ·(a combination of task vectors with entries dropped and the rest rescaled).

    Which entries are dropped depends on the seed, the ingredient's digest, the tensor's name and
    the entry's position, and on nothing else: not on names of files or how the tensor is read.

    Args:
        base, ingredients, scale, vote, tie: See `TaskVectorMerge`.
        drop: p in [0, 1): each entry becomes 0 with this probability; the others are divided by
            1 − p. It is rounded to a multiple of 2⁻¹⁶.
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

    def _sparsify(self, name: str, start: int, vectors: torch.Tensor) -> None:
        if not self._limit:
            return
        for vector, identity in zip(vectors.numpy(), self._identities, strict=True):
            key = hashlib.sha256(json.dumps([self.seed, identity, name]).encode()).digest()
            vector *= self._kept(int.from_bytes(key[:16], "little"), start, len(vector))

    @cached_property
    def _identities(self) -> list[list[Any]]:
        # The same weights twice are two ingredients, and each has entries of its own dropped.
        digests = [ingredient.digest for ingredient in self.ingredients]
        return [[digest, digests[:index].count(digest)] for index, digest in enumerate(digests)]

    def _kept(self, key: int, start: int, count: int) -> npt.NDArray[np.bool_]:
        stop = start + count
        pieces = [
            _words(key, block)[max(0, start - block * _BLOCK) : stop - block * _BLOCK]
            for block in range(start // _BLOCK, -(-stop // _BLOCK))
        ]
        words = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        return words >= self._limit

    @cached_property
    def _limit(self) -> np.uint16:
        return np.uint16(round(self.drop * _WORDS))

    def _combine(self, vectors: torch.Tensor, wide: npt.DTypeLike) -> Floats:
        if self.combine == "ties":
            combined = self._elected_mean(vectors, wide)
        else:
            combined = sum_of(vectors, wide)
        shares = len(vectors) if self.combine == "mean" else 1
        # All entries are rescaled alike, so once, after they are combined.
        combined *= _WORDS / (shares * (_WORDS - int(self._limit)))
        return combined


def _words(key: int, block: int) -> npt.NDArray[np.uint16]:
    # Philox (Salmon et al. 2011) gives the numbers of any block without those before it, and its
    # stream is one that NumPy promises not to change.
    generator = np.random.Philox(key=key, counter=[0, 0, 0, block])
    return generator.random_raw(_BLOCK // 4).astype("<u8", copy=False).view("<u2")
