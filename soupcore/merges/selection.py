"""The exact k-th largest of more numbers than fit in memory, in a few passes.

Non-negative floats have the same order as their bits read as integers. If a guess is close, one
pass suffices: it counts each of the 262,144 floats around the guess, and all larger numbers.
Otherwise each pass counts one 16-bit digit and thereby narrows down the leading digits of the
answer: two passes for float32, four for float64 (a radix select, most significant digit first).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Magnitudes = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]
Pieces = Callable[[], Iterable[tuple[int, Magnitudes]]]

_DIGIT = 16  # bits
_VALUES = 1 << _DIGIT
_NEAR = 1 << 18  # floats around a guess: 1.6 to 3.1 % of a float32 on either side
_PENDING = 1 << 18  # numbers collected before they are counted


def kth_largest(
    pieces: Pieces,
    ranks: Sequence[int],
    dtype: npt.DTypeLike,
    guesses: Sequence[float] | None = None,
) -> list[float]:
    """Return the k-th largest number of each of several long rows.

    Args:
        pieces: Called once per pass; yields all numbers in pieces, as `(row, numbers)`. They must
            be neither negative nor NaN.
        ranks: k for each row; 1 is the largest.
        dtype: Dtype of the numbers, float32 or float64.
        guesses: A number close to each answer, to save passes.
    """
    integer = np.int32 if np.dtype(dtype) == np.float32 else np.int64
    if guesses is not None:
        near = _near(pieces, ranks, np.array(guesses, dtype=dtype).view(integer))
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


def _near(pieces: Pieces, ranks: Sequence[int], guesses: Integers) -> Integers | None:
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
