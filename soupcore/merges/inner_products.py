"""Inner products between checkpoints, tensor by tensor: what angles and norms are made of."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from soupcore.checkpoints import Checkpoint, are_known_alike
from soupcore.checkpoints.chunks import CHUNK
from soupcore.merges.remembered import remembered
from soupcore.merges.task_vectors import read_wide, wide_dtype

Matrix = npt.NDArray[np.float64]

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
        return {
            name: _of_tensor(checkpoints, origin, name)
            for name, info in checkpoints[0].tensors.items()
            if info.dtype.is_floating_point and not _is_mask(involved, name)
        }

    return remembered(["inner products", digests, origin.digest if origin else None], find)


def _is_mask(checkpoints: Sequence[Checkpoint], name: str) -> bool:
    """Return whether a tensor is the same in all and not finite, and so no weight."""
    known = checkpoints[0].known(name)
    return bool(known and known.nonfinite) and are_known_alike(checkpoints, name)


def _of_tensor(checkpoints: Sequence[Checkpoint], origin: Checkpoint | None, name: str) -> Matrix:
    numel = checkpoints[0].tensors[name].numel
    k = len(checkpoints)
    dtypes = {wide_dtype(checkpoint.tensors[name].dtype) for checkpoint in checkpoints}
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    read = max(1, min(numel, CHUNK, _READ // (k + 1)))
    buffer = torch.empty(1 + k, read, dtype=dtype)
    origins, *vectors = buffer
    length = min(_LARGEST, max(1, _PRODUCT // k**2))
    # The first row stands again at the end, because OpenBLAS takes several times as long for the
    # product of a matrix with itself as for that of two.
    ring = np.empty((k + 1, length))
    products = np.zeros((k, k))
    for start in range(0, numel, read):
        count = min(read, numel - start)
        for row, checkpoint in zip(vectors, checkpoints, strict=True):
            read_wide(checkpoint, name, start, row[:count])
        if origin is not None:
            read_wide(origin, name, start, origins[:count])
        for begin in range(0, count, length):
            numbers = buffer[:, begin : min(begin + length, count)].numpy()
            if origin is not None:
                np.subtract(numbers[1:], numbers[0], out=numbers[1:])
            rows = ring[:, : numbers.shape[1]]
            rows[:-1] = numbers[1:]
            rows[-1] = rows[0]
            products += rows[:-1] @ rows[1:].T  # at [i, j]: of i and j + 1
    products = np.roll(products, 1, axis=1)
    return np.tril(products) + np.tril(products, -1).T
