"""Knowing that memory ran out, which each allocator says in its own way."""

import torch

# The CPU's allocator; CUDA's driver; its libraries, which ask for memory themselves.
_TEXTS = ("DefaultCPUAllocator", "out of memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the CPU or on an accelerator."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)
    )


def in_words(nbytes: float) -> str:
    """Return a size in bytes as people write it: `1.5 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} GB"
