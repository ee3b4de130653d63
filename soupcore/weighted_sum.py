"""Weighted sums Σ cᵢxᵢ of chunks of tensors.

Elements are multiplied and added one by one, with separate rounding. A matrix product may or may
not fuse the two operations, depending on the position of an element in the matrix, so the bits of a
soup would depend on how its tensors are cut into chunks. NumPy's element-wise operations use no
threads for chunks of any size, and convert float32 to float64 on the fly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from soupcore.checkpoints.chunks import scratch
from soupcore.checkpoints.dtypes import round_into

Array = npt.NDArray[np.floating[Any]]

# NumPy lacks bfloat16 and 8-bit floats, and is slow with float16.
_NUMPY_FLOATS = {torch.float32, torch.float64}

# Below this, numerator × float32 is exact in float64, so their sums are rarely rounded.
_LARGEST_EXACT_DENOMINATOR = 1 << 20


class WeightedSum:
    """Sums chunks of float tensors, given in the order of the coefficients.

    Adjacent terms with the same coefficient are added before they are multiplied. The sum is
    divided last, so that k equal tensors average to the same bits.

    Args:
        coefficients: The exact coefficients cᵢ.
        dtype: Dtype of the result.
        accumulate: Dtype in which float32 weights are summed. Half types are always summed in
            float32, float64 weights in float64. If it is not wider than the weights, differences
            from the first term are summed, which are 0 for equal terms and small for terms that
            were fine-tuned from one initialisation.
    """

    def __init__(
        self,
        coefficients: Sequence[Fraction],
        dtype: torch.dtype,
        accumulate: torch.dtype,
    ) -> None:
        self._dtype = dtype
        self._factors, self._divisor = _over_one_denominator(coefficients)
        self._coefficient_sum = float(sum(coefficients))
        real = dtype.to_real() if dtype.is_complex else dtype
        is_narrow = real.itemsize < torch.float32.itemsize
        self._wide = torch.float32 if is_narrow else torch.promote_types(real, accumulate)
        self._of_differences = self._wide == real

    def __call__(self, out: torch.Tensor, parts: Iterable[torch.Tensor]) -> None:
        """Sum one chunk.

        Args:
            out: The buffer: a 1-D contiguous CPU tensor of `dtype`, at most one chunk long.
            parts: The chunks of the terms, of the same length and of dtypes that `dtype` can
                represent. They may share a buffer, as each is used before the next is requested.
        """
        wide = self._wide
        if out.is_complex():
            wide = wide.to_complex()
            parts = (torch.view_as_real(part.to(self._dtype)).reshape(-1) for part in parts)
            out = torch.view_as_real(out).view(-1)
        with (
            scratch(wide) as total,
            scratch(wide) as term,
            scratch(wide) as other,
            np.errstate(all="ignore"),  # callers check for values that are not finite
        ):
            buffers = [buffer.view(self._wide)[: out.numel()] for buffer in (total, term, other)]
            target = out if out.dtype in _NUMPY_FLOATS else buffers[0]
            if self._of_differences:
                self._add_up_differences(parts, target.numpy(), *buffers)
            else:
                self._add_up(parts, target.numpy(), *buffers)
            if target is not out:
                round_into(out, target)

    def _add_up(
        self,
        parts: Iterable[torch.Tensor],
        target: Array,
        total: torch.Tensor,
        term: torch.Tensor,
        alike: torch.Tensor,
    ) -> None:
        sums = total.numpy()
        terms = zip(self._factors, parts, strict=True)
        for index, (factor, group) in enumerate(groupby(terms, itemgetter(0))):
            place = alike if index else total
            array = place.numpy()
            _put_into(place, next(group)[1])
            for _, part in group:
                np.add(array, _as_array(part, term), out=array)
            if factor != 1:
                np.multiply(array, factor, out=array)
            if index:
                np.add(sums, array, out=sums)
        self._divide(sums, target)

    def _add_up_differences(
        self,
        parts: Iterable[torch.Tensor],
        target: Array,
        total: torch.Tensor,
        term: torch.Tensor,
        origin: torch.Tensor,
    ) -> None:
        first, sums = origin.numpy(), total.numpy()
        if len(self._factors) == 1:
            sums.fill(0)
        for index, (part, factor) in enumerate(zip(parts, self._factors, strict=True)):
            array = _as_array(part, term)
            if index == 0:
                np.copyto(first, array)
                continue
            # For equal terms, the differences and their sum are 0, never −0.
            one, other = (first, array) if factor > 0 else (array, first)
            place = sums if index == 1 else term.numpy()
            np.subtract(one, other, out=place)
            if abs(factor) != 1:
                np.multiply(place, abs(factor), out=place)
            if index > 1:
                np.add(sums, place, out=sums)
        self._divide(sums, sums)
        if self._coefficient_sum != 1:
            np.multiply(first, self._coefficient_sum, out=first)
        np.subtract(first, sums, out=target)  # as 0 added to −0 would be 0

    def _divide(self, total: Array, target: Array) -> None:
        if self._divisor == 1:
            np.copyto(target, total, casting="same_kind")
        elif math.frexp(self._divisor)[0] == 0.5:  # a power of two: same bits, but faster
            np.multiply(total, 1 / self._divisor, out=target, casting="same_kind")
        else:
            np.divide(total, self._divisor, out=target, casting="same_kind")


def _as_array(part: torch.Tensor, place: torch.Tensor) -> Array:
    """Return a chunk as a NumPy array, converted into `place` if NumPy lacks its dtype."""
    if part.dtype not in _NUMPY_FLOATS:
        _put_into(place, part)
        part = place
    array: Array = part.numpy()
    return array


def _put_into(place: torch.Tensor, part: torch.Tensor) -> None:
    """Convert a chunk to the dtype of `place`."""
    if part.dtype in _NUMPY_FLOATS:
        np.copyto(place.numpy(), part.numpy())
    elif part.dtype == torch.bfloat16 and place.dtype == torch.float32:
        bits = place.view(torch.uint32).numpy()  # a bfloat16 is the upper half of a float32
        np.copyto(bits, part.view(torch.uint16).numpy())
        np.left_shift(bits, 16, out=bits)
    else:
        round_into(place, part)


def _over_one_denominator(coefficients: Sequence[Fraction]) -> tuple[list[float], float]:
    denominator = math.lcm(*(fraction.denominator for fraction in coefficients))
    if denominator <= _LARGEST_EXACT_DENOMINATOR:
        return [float(fraction * denominator) for fraction in coefficients], float(denominator)
    return [float(fraction) for fraction in coefficients], 1.0
