"""TIES: trim, elect signs, merge (Yadav et al. 2023, arXiv:2306.01708, Algorithm 1).

Trimming needs the k-th largest magnitude of a task vector, exactly, although the vector may not fit
in memory (see `kth_largest`). A guess from a sample usually saves all passes but one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from soupcore.checkpoints import Checkpoint
from soupcore.merges.derived import NameOf
from soupcore.merges.task_vectors import (
    Floats,
    TaskVectorMerge,
    Tie,
    Vote,
    read_wide,
    remembered,
    wide_dtype,
)

Trim = Literal["global", "tensor"]
Integers = npt.NDArray[np.integer[Any]]

_BLOCK = 1 << 15  # entries of a task vector at a time
_SAMPLE = 1 << 19  # approximate size of the sample for guesses; smaller vectors need none
_SPARSE = 16  # the sample has at most 1/16 of all entries
_RUN = 512  # consecutive entries in the sample

_DIGIT = 16  # bits
_VALUES = 1 << _DIGIT
_NEAR = 1 << 18  # floats around a guess: 1.6 to 3.1 % of a float32 on either side
_PENDING = 1 << 18  # numbers collected before they are counted


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
            self._thresholds[group] = self._find_thresholds(
                self.float_tensors if group == "" else [name]
            )
        for vector, threshold in zip(vectors, self._thresholds[group], strict=True):
            if threshold:
                torch.hardshrink(vector, _just_below(threshold, vector.dtype), out=vector)

    def _combine(self, vectors: torch.Tensor, wide: npt.DTypeLike) -> Floats:
        return self._elected_mean(vectors, wide)

    def _find_thresholds(self, names: Sequence[str]) -> list[float]:
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


def kth_largest(
    pieces: Callable[[], Iterable[tuple[int, Floats]]],
    ranks: Sequence[int],
    dtype: npt.DTypeLike,
    guesses: Sequence[float] | None = None,
) -> list[float]:
    """Return the k-th largest number of each of several long rows, in a few passes.

    Non-negative floats have the same order as their bits read as integers. If a guess is close, one
    pass suffices: it counts each of the 262,144 floats around the guess, and all larger numbers.
    Otherwise each pass counts one 16-bit digit and thereby narrows down the leading digits of the
    answer: two passes for float32, four for float64 (a radix select, most significant digit first).

    Args:
        pieces: Called once per pass; yields all numbers in pieces, as `(row, numbers)`. They must
            be neither negative nor NaN.
        ranks: k for each row; 1 is the largest.
        dtype: Dtype of the numbers, float32 or float64.
        guesses: A number close to each answer, to save passes.
    """
    integer = np.int32 if np.dtype(dtype) == np.float32 else np.int64
    if guesses is not None:
        near = _largest_near(pieces, ranks, np.array(guesses, dtype=dtype).view(integer))
        if near is not None:
            return [float(value) for value in near.view(dtype)]
    width = 8 * np.dtype(integer).itemsize
    known = np.zeros(len(ranks), dtype=integer)  # the digits found so far
    left = list(ranks)
    for shift in range(width - _DIGIT, -1, -_DIGIT):
        digits = [_Counts(_VALUES) for _ in ranks]
        for row, numbers in pieces():
            integers: Integers = numbers.view(integer)
            if shift + _DIGIT < width:
                integers = integers[integers >> (shift + _DIGIT) == known[row]]
            digits[row].add((integers >> shift) & (_VALUES - 1))
        for row, counts in enumerate(digits):
            digit, left[row] = counts.largest(left[row])
            known[row] = (int(known[row]) << _DIGIT) | digit
    return [float(value) for value in known.view(dtype)]


def _just_below(threshold: float, dtype: torch.dtype) -> float:
    """Return the largest number of a dtype that is below the threshold."""
    number = (np.float64 if dtype == torch.float64 else np.float32)(threshold)
    return float(number if number < threshold else np.nextafter(number, 0, dtype=number.dtype))


def _largest_near(
    pieces: Callable[[], Iterable[tuple[int, Floats]]], ranks: Sequence[int], guesses: Integers
) -> Integers | None:
    """Return the answers as integers if all of them are close to the guesses, else None."""
    lowest = np.maximum(guesses, _NEAR // 2) - _NEAR // 2
    counts = [_Counts(_NEAR) for _ in ranks]
    above = [0 for _ in ranks]
    for row, numbers in pieces():
        places = numbers.view(lowest.dtype) - lowest[row]
        above[row] += int(np.count_nonzero(places >= _NEAR))
        # Read as unsigned, negative differences are large too.
        counts[row].add(places[places.view(f"u{places.itemsize}") < _NEAR])
    for row, rank in enumerate(ranks):
        if not above[row] < rank <= above[row] + counts[row].total:
            return None
        lowest[row] += counts[row].largest(rank - above[row])[0]
    return lowest


class _Counts:
    """Counts of each value from 0 up to a limit in a row of integers."""

    def __init__(self, limit: int) -> None:
        self._counts = np.zeros(limit, dtype=np.int64)
        self._pending: list[Integers] = []
        self._n_pending = 0

    def add(self, integers: Integers) -> None:
        self._pending.append(integers)
        self._n_pending += len(integers)
        if self._n_pending >= _PENDING:
            self._count()

    @property
    def total(self) -> int:
        """Number of integers added."""
        return int(self._counts.sum()) + self._n_pending

    def largest(self, rank: int) -> tuple[int, int]:
        """Return the value of the given rank, and its rank among equal values."""
        self._count()
        from_the_top = np.cumsum(self._counts[::-1])
        place = int(np.searchsorted(from_the_top, rank))
        above = int(from_the_top[place - 1]) if place else 0
        return len(self._counts) - 1 - place, rank - above

    def _count(self) -> None:
        if self._pending:
            integers = np.concatenate(self._pending)
            self._counts += np.bincount(integers, minlength=len(self._counts))
        self._pending, self._n_pending = [], 0
