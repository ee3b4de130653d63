"""The pieces in which tensors are read, checked, mixed and written."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch

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


_spare: dict[torch.dtype, list[torch.Tensor]] = defaultdict(list)


@contextmanager
def scratch(dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Lend memory for a chunk, which the next one gets when this one is done with it.

    What is in it is lost at the end of the `with`: copy what is to stay. Memory fresh from the
    system costs as much time as what is done in it, and is not in the cache.
    """
    try:
        buffer = _spare[dtype].pop()
    except IndexError:
        with torch.inference_mode(False):  # else it could not be written to outside that mode
            buffer = torch.empty(CHUNK, dtype=dtype)
    try:
        yield buffer
    finally:
        _spare[dtype].append(buffer)
