"""Inner products between checkpoints, tensor by tensor: what angles and norms are made of."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.chunks import CHUNK
from soupcore.merges.remembered import remembered
from soupcore.merges.task_vectors import read_wide, wide_dtype

Matrix = npt.NDArray[np.float64]


def inner_products(
    checkpoints: Sequence[Checkpoint], origin: Checkpoint | None = None
) -> dict[str, Matrix]:
    """Return ⟨θᵢ − θ₀, θⱼ − θ₀⟩ of each float tensor, as a symmetric matrix [k, k].

    One pass over the weights; products are summed in float64.

    Args:
        checkpoints: θᵢ.
        origin: θ₀; 0 unless given.
    """
    digests = [checkpoint.digest for checkpoint in checkpoints]

    def find() -> dict[str, Matrix]:
        return {
            name: _of_tensor(checkpoints, origin, name)
            for name, info in checkpoints[0].tensors.items()
            if info.dtype.is_floating_point
        }

    return remembered(["inner products", digests, origin.digest if origin else None], find)


def _of_tensor(checkpoints: Sequence[Checkpoint], origin: Checkpoint | None, name: str) -> Matrix:
    numel = checkpoints[0].tensors[name].numel
    products = torch.zeros(len(checkpoints), len(checkpoints), dtype=torch.float64)
    dtypes = {wide_dtype(checkpoint.tensors[name].dtype) for checkpoint in checkpoints}
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    for start in range(0, numel, CHUNK):
        count = min(CHUNK, numel - start)
        rows = torch.empty(len(checkpoints), count, dtype=dtype)
        for row, checkpoint in zip(rows, checkpoints, strict=True):
            read_wide(checkpoint, name, start, row)
        if origin is not None:
            center = torch.empty(count, dtype=dtype)
            read_wide(origin, name, start, center)
            for row in rows:
                row.sub_(center)
        vectors = rows.double()
        products += vectors @ vectors.T
    return products.numpy()
