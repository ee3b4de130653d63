"""NumPy scalars and arrays in a pickle, as plain numbers and tensors.

A scalar is pickled as `scalar(dtype, bytes)`. The dtype is critical: NumPy trusts its pickled
state, which can make NumPy interpret bytes as addresses. Only the state that NumPy itself writes
for plain numbers counts as plain.
"""

import struct
from math import prod
from typing import Any

from soupcore.safe_torch.machine import Machine
from soupcore.safe_torch.refusal import COPY
from soupcore.safe_torch.tensors import Storage, Tensor, Unusable
from soupcore.safe_torch.values import Blob, Inert

IN_PICKLE = "pickle:"  # prefix of the keys of storages inside the pickle itself
SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
_FROM_BUFFER = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
_CONVERT = "Load it, and save {name: torch.from_numpy(array)} with torch.save."
_DTYPES = {
    "f8": "float64",
    "f4": "float32",
    "f2": "float16",
    "i8": "int64",
    "i4": "int32",
    "i2": "int16",
    "i1": "int8",
    "u8": "uint64",
    "u4": "uint32",
    "u2": "uint16",
    "u1": "uint8",
    "b1": "bool",
}
_FORMS = {
    "f8": "d",
    "f4": "f",
    "f2": "e",
    "i8": "q",
    "i4": "i",
    "i2": "h",
    "i1": "b",
    "u8": "Q",
    "u4": "I",
    "u2": "H",
    "u1": "B",
    "b1": "?",
}


def number_of(scalar: Inert) -> Any:
    """Return the value of a NumPy scalar; None if it is not a plain number."""
    match scalar.args:
        case (Inert() as dtype, bytes(content)) if form := _form(dtype):
            if struct.calcsize(form) == len(content):
                return struct.unpack(form, content)[0]
    return None


def is_plain_numpy(value: Inert) -> bool:
    """Return whether a NumPy object is a plain dtype, or a scalar or array of one."""
    if value.path == "numpy.dtype":
        return _form(value) is not None
    if value.path in SCALARS:
        return number_of(value) is not None
    match value.state:
        case (1, tuple(), Inert() as dtype, bool(), bytes() | Blob()) if value.path in _ARRAYS:
            return _form(dtype) is not None
    return False


class Arrays:
    """Describes arrays inside the pickle as tensors.

    Args:
        machine: The machine that read the pickle.

    Attributes:
        places: `{storage key: (offset in the file, nbytes, None)}` of the arrays found.
    """

    def __init__(self, machine: Machine) -> None:
        self.places: dict[str, tuple[int, int, int | None]] = {}
        self._machine = machine

    def tensor_of(self, value: Any) -> Tensor | Unusable | None:
        """Return an array of plain numbers as a tensor; None for anything else."""
        match value:
            case Inert(
                path=path, state=(int(), tuple(shape), Inert() as dtype, in_columns, content)
            ):
                known = path in _ARRAYS
            case Inert(path=path, args=(content, Inert() as dtype, tuple(shape), order)):
                known, in_columns = path in _FROM_BUFFER, order == "F"
            case _:
                return None
        code = dtype.args[0] if dtype.path == "numpy.dtype" and dtype.args else None
        if not known or code not in _DTYPES:
            return None
        if _form(dtype) is None:
            return Unusable("is a NumPy array with an unusual dtype", _CONVERT)
        place = self._machine.place_of(content)
        if place is None:
            return Unusable(
                "is a NumPy array whose bytes are pickled as text or compressed", _CONVERT
            )
        offset, nbytes = place
        if not all(type(size) is int and size >= 0 for size in shape) or nbytes != prod(
            shape
        ) * struct.calcsize(_FORMS[code]):
            return Unusable("has a size that contradicts its shape; the file is damaged", COPY)
        storage = Storage(f"{IN_PICKLE}{offset}", _DTYPES[code], nbytes)
        self.places[storage.key] = (offset, nbytes, None)
        stride = _stride(shape[::-1])[::-1] if in_columns is True else _stride(shape)
        return Tensor(storage, storage.dtype, 0, shape, stride)


def _stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a contiguous array in row-major order."""
    return tuple(prod(shape[at + 1 :]) for at in range(len(shape)))


def _form(dtype: Inert) -> str | None:
    """Return the dtype's format for `struct`; None if it is not a dtype of plain numbers."""
    match dtype:
        case Inert(
            path="numpy.dtype",
            args=(str(code), *_),
            state=(3, "<" | "|" as order, None, None, None, -1, -1, 0),
        ) if code in _FORMS:
            return ("<" if order == "|" else order) + _FORMS[code]
    return None
