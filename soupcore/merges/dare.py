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

_WORDS = 1 << 16  # values that the random word of an entry has


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
        self._streams: dict[str, list[Any]] = {}

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
        if name not in self._streams:
            self._streams[name] = [_stream(self.seed, *who, name) for who in self._identities]
        generator = np.random.PCG64DXSM(0)
        for vector, stream in zip(vectors.numpy(), self._streams[name], strict=True):
            generator.state = stream
            vector *= _random_words(generator, start, len(vector)) >= self._limit

    @cached_property
    def _identities(self) -> list[list[Any]]:
        # The same weights twice are two ingredients, and each has entries of its own dropped.
        digests = [ingredient.digest for ingredient in self.ingredients]
        return [[digest, digests[:index].count(digest)] for index, digest in enumerate(digests)]

    @cached_property
    def _limit(self) -> np.uint16:
        return np.uint16(round(self.drop * _WORDS))

    @cached_property
    def _factor(self) -> float:
        # All entries are rescaled alike, so once, after they are combined.
        kept = Fraction(_WORDS - int(self._limit), _WORDS)
        shares = len(self.ingredients) if self.combine == "mean" else 1
        return float(self.scale / (shares * kept))

    def _combine(self, vectors: torch.Tensor, wide: npt.DTypeLike) -> Floats:
        if self.combine == "ties":
            return self._elected_mean(vectors, wide)
        return sum_of(vectors, wide)


def _stream(*identity: Any) -> Any:
    """Return the beginning of a stream of random numbers of its own for anything JSON can say."""
    digest = hashlib.sha256(json.dumps(identity).encode()).digest()
    state, increment = (int.from_bytes(half, "little") for half in (digest[:16], digest[16:]))
    return {
        "bit_generator": "PCG64DXSM",
        "state": {"state": state, "inc": increment | 1},
        "has_uint32": 0,
        "uinteger": 0,
    }


def _random_words(generator: np.random.PCG64DXSM, start: int, count: int) -> npt.NDArray[np.uint16]:
    """Return the words of entries from `start` on, four to each number from the stream's beginning.

    The generator jumps to any place of its stream, which NumPy promises not to change.
    """
    skipped = start % 4
    generator.advance(start // 4)
    raw = generator.random_raw(-(-(skipped + count) // 4))
    return raw.astype("<u8", copy=False).view("<u2")[skipped : skipped + count]
