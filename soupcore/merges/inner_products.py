"""Inner products between checkpoints, tensor by tensor: what angles and norms are made of."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from soupcore.checkpoints import Checkpoint, are_known_alike
from soupcore.checkpoints.chunks import CHUNK
from soupcore.merges.remembered import remembered
from soupcore.merges.task_vectors import read_wide, wide_dtype

Matrix = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]

# Elements of all checkpoints together that are read before their products are taken.
_READ = 1 << 20

# Multiplications of one matrix product. OpenBLAS spreads more over its threads, and what the sum is
# in the last digits would depend on how many there are.
_PRODUCT = 1 << 18
_LARGEST = 16 << 10  # elements of each checkpoint in one product: those of a few stay in the cache


def inner_products(
    checkpoints: Sequence[Checkpoint], origin: Checkpoint | None = None
) -> dict[str, Matrix]:
    """Return ⟨θᵢ − θ₀, θⱼ − θ₀⟩ of each float tensor, as a symmetric matrix [k, k].

    One pass over the weights; products are summed in float64. Attention masks that are infinite,
    the same in all, have none.

    Args:
        checkpoints: θᵢ.
        origin: θ₀; 0 unless given.
    """
    digests = [checkpoint.digest for checkpoint in checkpoints]
    involved = [*checkpoints, origin] if origin else checkpoints

    def find() -> dict[str, Matrix]:
        products = _Products(checkpoints, origin)
        return {
            name: products.of(name)
            for name, info in checkpoints[0].tensors.items()
            if info.dtype.is_floating_point and not _is_mask(involved, name)
        }

    return remembered(["inner products", digests, origin.digest if origin else None], find)


def _is_mask(checkpoints: Sequence[Checkpoint], name: str) -> bool:
    """Return whether a tensor is the same in all and not finite, and so no weight."""
    known = checkpoints[0].known(name)
    return bool(known and known.nonfinite) and are_known_alike(checkpoints, name)


class _Products:
    """Takes the products of one tensor after another, all in the same memory.

    Memory fresh from the system for each tensor costs a third as much as the products.
    """

    def __init__(self, checkpoints: Sequence[Checkpoint], origin: Checkpoint | None) -> None:
        self._checkpoints = checkpoints
        self._origin = origin
        k = len(checkpoints)
        self._read = max(1, min(CHUNK, _READ // (k + 1)))
        self._length = min(_LARGEST, max(1, _PRODUCT // k**2))
        self._buffers: dict[torch.dtype, torch.Tensor] = {}
        # The first row stands again at the end, because OpenBLAS takes several times as long for
        # the product of a matrix with itself as for that of two.
        self._ring = np.empty((k + 1, self._length))

    def of(self, name: str) -> Matrix:
        """Return the products of a tensor."""
        k = len(self._checkpoints)
        dtypes = {wide_dtype(checkpoint.tensors[name].dtype) for checkpoint in self._checkpoints}
        dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        if dtype not in self._buffers:
            self._buffers[dtype] = torch.empty(1 + k, self._read, dtype=dtype)
        origins, *vectors = self._buffers[dtype]
        numbers = self._buffers[dtype].numpy()
        products = np.zeros((k, k))
        numel = self._checkpoints[0].tensors[name].numel
        for start in range(0, numel, self._read):
            count = min(self._read, numel - start)
            for row, checkpoint in zip(vectors, self._checkpoints, strict=True):
                read_wide(checkpoint, name, start, row[:count])
            if self._origin is not None:
                read_wide(self._origin, name, start, origins[:count])
            for begin in range(0, count, self._length):
                products += self._of(numbers[:, begin : min(begin + self._length, count)])
        products = np.roll(products, 1, axis=1)
        return np.tril(products) + np.tril(products, -1).T

    def _of(self, numbers: Floats) -> Matrix:
        """Return those of a few elements, at [i, j] that of i and j + 1.

        Args:
            numbers: The origin first, then the checkpoints, shape [1 + k, n].
        """
        rows = self._ring[:, : numbers.shape[1]]
        if self._origin is None:
            rows[:-1] = numbers[1:]
        else:  # in their own dtype, and only then widened
            np.subtract(numbers[1:], numbers[0], out=rows[:-1])
        rows[-1] = rows[0]
        products: Matrix = rows[:-1] @ rows[1:].T
        return products
