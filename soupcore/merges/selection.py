"""The k-th largest of more numbers than fit in memory, exactly, in a few passes over them.

A float that is not negative, read as an integer, keeps its order. Each pass counts one digit of 16
bits of these integers and so narrows the answer down to the numbers that begin with the same
digits: two passes for float32, four for float64 (a radix select, most significant digit first).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Magnitudes = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.integer[Any]]

_DIGIT = 16  # bits
_PENDING = 1 << 18  # numbers gathered before they are counted


def kth_largest(
    pieces: Callable[[], Iterable[tuple[int, Magnitudes]]],
    ranks: Sequence[int],
    dtype: npt.DTypeLike,
) -> list[float]:
    """Return for several long rows of numbers the k-th largest of each.

    Args:
        pieces: Gives all numbers, `(row, numbers)` piece by piece, each time it is called; none is
            negative or NaN.
        ranks: k for each row; 1 is the largest.
        dtype: float32 or float64, that of the numbers.
    """
    integer = np.int32 if np.dtype(dtype) == np.float32 else np.int64
    width = 8 * np.dtype(integer).itemsize
    known = np.zeros(len(ranks), dtype=integer)  # the digits found so far
    left = list(ranks)
    for shift in range(width - _DIGIT, -1, -_DIGIT):
        digits = [_Digits(shift) for _ in ranks]
        for row, numbers in pieces():
            integers: Integers = numbers.view(integer)
            if shift + _DIGIT < width:
                integers = integers[integers >> (shift + _DIGIT) == known[row]]
            digits[row].add(integers)
        for row, counted in enumerate(digits):
            digit, left[row] = counted.largest(left[row])
            known[row] = (int(known[row]) << _DIGIT) | digit
    return [float(value) for value in known.view(dtype)]


class _Digits:
    """How often each value of one digit stands in a row of integers."""

    def __init__(self, shift: int) -> None:
        self._shift = shift
        self._counts = np.zeros(1 << _DIGIT, dtype=np.int64)
        self._pending: list[Integers] = []
        self._n_pending = 0

    def add(self, integers: Integers) -> None:
        self._pending.append((integers >> self._shift) & ((1 << _DIGIT) - 1))
        self._n_pending += len(integers)
        if self._n_pending >= _PENDING:
            self._count()

    def largest(self, rank: int) -> tuple[int, int]:
        """Return the digit of the number of this rank, and its rank among those with that digit."""
        self._count()
        from_the_top = np.cumsum(self._counts[::-1])
        place = int(np.searchsorted(from_the_top, rank))
        above = int(from_the_top[place - 1]) if place else 0
        return len(self._counts) - 1 - place, rank - above

    def _count(self) -> None:
        if self._pending:
            joined = np.concatenate(self._pending)
            self._counts += np.bincount(joined, minlength=len(self._counts))
        self._pending, self._n_pending = [], 0
