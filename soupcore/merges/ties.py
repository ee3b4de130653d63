"""TIES: trim, elect signs, merge (Yadav et al. 2023, arXiv:2306.01708, Algorithm 1)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from soupcore.checkpoints import Checkpoint
from soupcore.merges.derived import NameOf
from soupcore.merges.remembered import remembered
from soupcore.merges.selection import kth_largest
from soupcore.merges.task_vectors import Floats, TaskVectorMerge, Tie, Vote, read_wide, wide_dtype

Trim = Literal["global", "tensor"]

_BLOCK = 1 << 15  # entries of a task vector at a time
_SAMPLE = 1 << 19  # approximate size of the sample for guesses; smaller vectors need none
_SPARSE = 16  # the sample has at most 1/16 of all entries
_RUN = 512  # consecutive entries in the sample


class Ties(TaskVectorMerge):
    """base + λ·(mean of the largest entries of the task vectors that have the elected sign).

    Args:
        base, ingredients, scale, vote, tie: See `TaskVectorMerge`.
        density: Fraction of the entries of each task vector that is kept, in (0, 1]: the
            ⌊density·n⌋ of n entries with the largest magnitudes, and all as large as the smallest
            of these. Zeros do not count as kept.
        trim: Whether the fraction applies to the whole task vector (`global`) or to each `tensor`.
    """

    method = "ties"

    def __init__(
        self,
        base: Checkpoint,
        ingredients: Sequence[Checkpoint],
        *,
        density: Fraction,
        trim: Trim,
        scale: Fraction,
        vote: Vote,
        tie: Tie,
    ) -> None:
        super().__init__(base, ingredients, scale=scale, vote=vote, tie=tie)
        self.density = density
        self.trim = trim
        self._thresholds: dict[str, list[float]] = {}

    def to_json(self, name_of: NameOf) -> dict[str, Any]:
        """Return the description of the merge; see `Derived.to_json`."""
        return super().to_json(name_of) | {"density": str(self.density), "trim": self.trim}

    @classmethod
    def from_json(
        cls, body: Mapping[str, Any], checkpoint_of: Callable[[str], Checkpoint]
    ) -> "Ties":
        """Recreate the merge from the JSON of `to_json`."""
        return cls(
            checkpoint_of(body["base"]),
            [checkpoint_of(name) for name in body["ingredients"]],
            density=Fraction(body["density"]),
            trim=body["trim"],
            scale=Fraction(body["scale"]),
            vote=body["vote"],
            tie=body["tie"],
        )

    def _sparsify(self, name: str, start: int, vectors: torch.Tensor) -> None:
        group = "" if self.trim == "global" else name
        if group not in self._thresholds:
            self._thresholds[group] = self._find(self.float_tensors if group == "" else [name])
        for vector, threshold in zip(vectors, self._thresholds[group], strict=True):
            if threshold:
                torch.hardshrink(vector, _just_below(threshold, vector.dtype), out=vector)

    def _combine(self, vectors: torch.Tensor, wide: npt.DTypeLike) -> Floats:
        return self._elected_mean(vectors, wide)

    def _find(self, names: Sequence[str]) -> list[float]:
        """Return the smallest magnitude to keep in each task vector, over these tensors."""
        if self.density == 1:
            return [0.0] * len(self.ingredients)
        n = sum(self.tensors[name].numel for name in names)
        rank = max(1, int(self.density * n))
        dtype = np.float64 if any(self._is_double(name) for name in names) else np.float32

        def find() -> list[float]:
            guesses = self._guesses(names, n, rank, dtype) if n > _SAMPLE else None
            every = partial(self._magnitudes, names, dtype, _BLOCK, _BLOCK)
            return kth_largest(every, [rank] * len(self.ingredients), dtype, guesses)

        sources = [source.digest for source in self.sources]
        return remembered(["thresholds", str(self.density), names, sources], find)

    def _guesses(
        self, names: Sequence[str], n: int, rank: int, dtype: npt.DTypeLike
    ) -> list[float]:
        """Return the thresholds of a sample of evenly spaced short runs."""
        samples: list[list[Floats]] = [[] for _ in self.ingredients]
        for row, run in self._magnitudes(names, dtype, _RUN, _RUN * max(_SPARSE, n // _SAMPLE)):
            samples[row].append(run.copy())
        guesses = []
        for sample in map(np.concatenate, samples):
            place = len(sample) - max(1, rank * len(sample) // n)
            guesses.append(float(np.partition(sample, place)[place]))
        return guesses

    def _is_double(self, name: str) -> bool:
        return self.tensors[name].dtype == torch.float64

    def _magnitudes(
        self, names: Sequence[str], dtype: npt.DTypeLike, length: int, distance: int
    ) -> Iterator[tuple[int, Floats]]:
        """Yield runs of `length` magnitudes of each task vector, `distance` entries apart."""
        for name in names:
            info = self.tensors[name]
            for start in range(0, info.numel, distance):
                count = min(length, info.numel - start)
                buffers = torch.empty(2, count, dtype=wide_dtype(info.dtype))
                origin, vector = buffers.numpy()
                if name in self._unchanged:
                    vector.fill(0)
                    for row in range(len(self.ingredients)):
                        yield row, vector.astype(dtype, copy=False)
                    continue
                read_wide(self.base, name, start, buffers[0])
                for row, ingredient in enumerate(self.ingredients):
                    read_wide(ingredient, name, start, buffers[1])
                    with np.errstate(all="ignore"):
                        vector -= origin
                    yield row, np.abs(vector, out=vector).astype(dtype, copy=False)


def _just_below(threshold: float, dtype: torch.dtype) -> float:
    """Return the largest number of a dtype that is below the threshold."""
    number = (np.float64 if dtype == torch.float64 else np.float32)(threshold)
    return float(number if number < threshold else np.nextafter(number, 0, dtype=number.dtype))
