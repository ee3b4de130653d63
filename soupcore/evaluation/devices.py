"""Which device to compute on, and how to make it give the same numbers each time."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


def choose_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; `auto` is CUDA, else Apple's MPS, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


@contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """Make a device the current one, with convolutions that repeat exactly, in full float32."""
    exactly = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with exactly, torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        yield
