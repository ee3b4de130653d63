"""The dtypes that a checkpoint may hold, by their names in the safetensors format."""

import math

import numpy as np
import torch

from soupcore.checkpoints.chunks import unthreaded

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

OUTPUT_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

# The bits of the smallest positive value that is not finite: infinity, or NaN if there is none.
_BEYOND_FINITE = {
    torch.float64: 0x7FF0_0000_0000_0000,
    torch.float32: 0x7F80_0000,
    torch.float16: 0x7C00,
    torch.bfloat16: 0x7F80,
    torch.float8_e4m3fn: 0x7F,
    torch.float8_e5m2: 0x7C,
}

# The largest magnitude that rounds to a finite one.
_LARGEST_E4M3 = 464


def output_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """Return the dtype for written floats by its name, or None to keep their dtypes.

    Raises:
        ValueError: It is not one of `OUTPUT_DTYPES`.
    """
    chosen = OUTPUT_DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if dtype is not None and chosen not in OUTPUT_DTYPES.values():
        raise ValueError(f"Weights are written as {', '.join(OUTPUT_DTYPES)}, not {dtype}.")
    return chosen


def common_dtype(one: torch.dtype, other: torch.dtype) -> torch.dtype | None:
    """Return the dtype that torch promotes the two to, or None if they cannot be promoted."""
    try:
        return one if one == other else torch.promote_types(one, other)
    except RuntimeError:  # 8-bit floats and unsigned integers promote with few other dtypes
        return None


def is_finite(tensor: torch.Tensor) -> torch.Tensor:
    """Return for each element whether it is finite, for any dtype."""
    return torch.isfinite(tensor.float() if tensor.dtype.itemsize == 1 else tensor)


def all_finite(tensor: torch.Tensor) -> bool:
    """Return whether all elements of a contiguous CPU tensor are finite, for any dtype."""
    if tensor.numel() == 0 or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    real = tensor.dtype.to_real() if tensor.dtype.is_complex else tensor.dtype
    beyond, sign = _BEYOND_FINITE.get(real), 1 << (8 * real.itemsize - 1)
    if beyond is None:
        return bool(is_finite(tensor).all())
    # Floats of one sign have the same order as their bits read as integers. The maximum as signed
    # integers is that of the positive floats, the maximum as unsigned integers that of the negative
    # ones. Two maxima are faster than a test of each element.
    bits = raw_bytes(tensor)
    return bool(
        np.frombuffer(bits, f"i{real.itemsize}").max() < beyond
        and np.frombuffer(bits, f"u{real.itemsize}").max() < beyond | sign
    )


def round_into(out: torch.Tensor, numbers: torch.Tensor) -> None:
    """Convert a chunk to the dtype of `out`. Values out of its range become infinite or NaN."""
    for target, source in zip(unthreaded(out), unthreaded(numbers), strict=True):
        if out.dtype == torch.float8_e4m3fn:  # torch would saturate to the largest finite value
            source = torch.where(source.abs() > _LARGEST_E4M3, math.nan, source)
        target.copy_(source)


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """Return a view of the bytes of a contiguous CPU tensor of any dtype."""
    return tensor.view(-1).view(torch.uint8).numpy().data
