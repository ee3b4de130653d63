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

_WORDS = 1 << 16  # number of values of the random word of an entry


class Dare(TaskVectorMerge):
    """base + λ·(a combination of task vectors with entries dropped and the rest rescaled).

    Whether an entry is dropped depends only on the seed, the ingredient's digest, the tensor's name
    and the entry's position, and not on file names or on how the tensor is read.

    Args:
        base, ingredients, scale, vote, tie: See `TaskVectorMerge`.
        drop: p in [0, 1), rounded to a multiple of 2⁻¹⁶. Each entry becomes 0 with probability p,
            and the others are divided by 1 − p.
        seed: Any integer.
        combine: `mean` of the vectors; `sum`, as in task arithmetic; or `ties`, the mean of the
            entries with the elected sign.
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
        """Return the description of the merge; see `Derived.to_json`."""
        own = {"drop": str(self.drop), "seed": self.seed, "combine": self.combine}
        return super().to_json(name_of) | own

    @classmethod
    def from_json(
        cls, body: Mapping[str, Any], checkpoint_of: Callable[[str], Checkpoint]
    ) -> "Dare":
        """Recreate the merge from the JSON of `to_json`."""
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
        # Ingredients with equal weights get different masks, by their number of occurrence.
        digests = [ingredient.digest for ingredient in self.ingredients]
        return [[digest, digests[:index].count(digest)] for index, digest in enumerate(digests)]

    @cached_property
    def _limit(self) -> np.uint16:
        return np.uint16(round(self.drop * _WORDS))

    @cached_property
    def _factor(self) -> float:
        # All entries have the same scale, so they are rescaled once, after they are combined.
        kept = Fraction(_WORDS - int(self._limit), _WORDS)
        shares = len(self.ingredients) if self.combine == "mean" else 1
        return float(self.scale / (shares * kept))

    def _combine(self, vectors: torch.Tensor, wide: npt.DTypeLike) -> Floats:
        if self.combine == "ties":
            return self._elected_mean(vectors, wide)
        return sum_of(vectors, wide)


def _stream(*identity: Any) -> Any:
    """Return the initial state of a random stream, unique for each JSON value."""
    digest = hashlib.sha256(json.dumps(identity).encode()).digest()
    state, increment = (int.from_bytes(half, "little") for half in (digest[:16], digest[16:]))
    return {
        "bit_generator": "PCG64DXSM",
        "state": {"state": state, "inc": increment | 1},
        "has_uint32": 0,
        "uinteger": 0,
    }


# The annotation is text, because `numpy.random` takes long to import and only DARE needs it.
def _random_words(
    generator: "np.random.PCG64DXSM", start: int, count: int
) -> npt.NDArray[np.uint16]:
    """Return the random words of entries from `start` on; each number of the stream has four.

    The generator can jump to any position of its stream, and NumPy guarantees that the stream does
    not change between versions.
    """
    skipped = start % 4
    generator.advance(start // 4)
    raw = generator.random_raw(-(-(skipped + count) // 4))
    return raw.astype("<u8", copy=False).view("<u2")[skipped : skipped + count]
