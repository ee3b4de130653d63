"""The chunks in which tensors are read, checked, mixed and written."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Elements. From 32 Ki elements on, torch distributes an operation over its threads. For chunks of
# this size, synchronising the threads takes longer than the operation itself, and much longer on a
# busy machine.
_UNTHREADED = 31 << 10

# Elements. Large enough to hide Python's overhead per chunk, and small enough to stay in the cache.
CHUNK = 4 * _UNTHREADED


def ranges(numel: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of each chunk of a flattened tensor."""
    return ((start, min(start + CHUNK, numel)) for start in range(0, numel, CHUNK))


def unthreaded(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return views of a chunk that are too small for torch to use threads."""
    return tensor.unsafe_split(_UNTHREADED)  # split without the overhead for autograd


_spare: dict[torch.dtype, list[torch.Tensor]] = defaultdict(list)


@contextmanager
def scratch(dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Provide a reusable buffer for a chunk.

    The buffer is only valid within the context, so copy its contents to keep them. Allocating new
    memory would take as long as the operations on it, and new memory is not in the cache.
    """
    try:
        buffer = _spare[dtype].pop()
    except IndexError:
        with torch.inference_mode(False):  # inference tensors cannot be written outside that mode
            buffer = torch.empty(CHUNK, dtype=dtype)
    try:
        yield buffer
    finally:
        _spare[dtype].append(buffer)
