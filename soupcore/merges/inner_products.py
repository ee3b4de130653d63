"""Inner products between checkpoints, tensor by tensor: what angles and norms are made of."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from soupcore.checkpoints import Checkpoint, are_known_alike
from soupcore.merges.remembered import remembered
from soupcore.merges.task_vectors import read_wide, wide_dtype

Matrix = npt.NDArray[np.float64]

_PIECE = 31 << 10  # elements of each checkpoint at a time
_PRODUCT = 8 << 10  # of these for one product: from 10,000 on, OpenBLAS spreads it over threads


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
    products = np.zeros((k, k))
    dtypes = {wide_dtype(checkpoint.tensors[name].dtype) for checkpoint in checkpoints}
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    buffer = torch.empty(len(checkpoints), min(_PIECE, numel), dtype=dtype)
    center = torch.empty(min(_PIECE, numel), dtype=dtype)
    wide = np.empty(buffer.shape)
    for start in range(0, numel, _PIECE):
        count = min(_PIECE, numel - start)
        rows = buffer[:, :count]
        for row, checkpoint in zip(rows, checkpoints, strict=True):
            read_wide(checkpoint, name, start, row)
        if origin is not None:
            read_wide(origin, name, start, center[:count])
            for row in rows:
                row.sub_(center[:count])
        wide[:, :count] = rows.numpy()
        for begin in range(0, count, _PRODUCT):
            vectors = wide[:, begin : min(begin + _PRODUCT, count)]
            for i in range(k):
                products[i, : i + 1] += np.vecdot(vectors[i], vectors[: i + 1])
    return products + np.tril(products, -1).T
