"""The pieces in which tensors are read, checked, mixed and written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from soupcore.checkpoints.checkpoint import Checkpoint

# Elements. From 32 Ki on, torch spreads an operation over its threads; for one on a few of these,
# starting the threads and waiting for them costs more than the operation does, and far more on a
# machine that is busy.
_UNTHREADED = 31 << 10

# Elements: large beside what Python takes to go from one to the next, small beside the cache.
CHUNK = 4 * _UNTHREADED


def ranges(numel: int) -> Iterator[tuple[int, int]]:
    """Cut a flattened tensor into chunks: the first element of each, and the one after its last."""
    return ((start, min(start + CHUNK, numel)) for start in range(0, numel, CHUNK))


def unthreaded(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return views of a chunk so small that torch works on each without threads."""
    return tensor.unsafe_split(_UNTHREADED)  # split, without its preparations for gradients


class BufferedReader:
    """Reads chunks of checkpoints, each into the place of the one before.

    A buffer that is used again is in the cache already. What a call returns is good until the next.
    """

    def __init__(self) -> None:
        self._buffers: dict[torch.dtype, torch.Tensor] = {}

    def __call__(self, checkpoint: Checkpoint, name: str, start: int, stop: int) -> torch.Tensor:
        """Read elements `start` to `stop`, a chunk of them at most, of the flattened tensor."""
        dtype = checkpoint.tensors[name].dtype
        if dtype not in self._buffers:
            self._buffers[dtype] = torch.empty(CHUNK, dtype=dtype)
        part = self._buffers[dtype][: stop - start]
        checkpoint.read_into(name, start, part)
        return part
