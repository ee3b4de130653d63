"""The dtypes that a checkpoint may hold, under the names the safetensors format gives them."""

import cmath

import torch

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
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

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def common_dtype(one: torch.dtype, other: torch.dtype) -> torch.dtype | None:
    """Return the dtype that torch promotes the two to; None where it promotes them to none."""
    try:
        return one if one == other else torch.promote_types(one, other)
    except RuntimeError:  # 8-bit floats and unsigned integers go with few others
        return None


def is_finite(tensor: torch.Tensor) -> torch.Tensor:
    """Return for each element whether it is finite, any dtype."""
    return torch.isfinite(tensor.float() if tensor.dtype.itemsize == 1 else tensor)


def all_finite(tensor: torch.Tensor) -> bool:
    """Return whether all elements are finite, any dtype."""
    if tensor.numel() == 0 or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    # A sum is finite only where every term is, and is found faster than by looking at each.
    total = tensor.float().sum() if tensor.dtype.itemsize < 4 else tensor.sum()
    return cmath.isfinite(total.item()) or bool(is_finite(tensor).all())


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """Return a view of the bytes of a contiguous CPU tensor, any dtype."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
