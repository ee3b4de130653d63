"""NumPy's scalars in a pickle, as plain numbers.

A scalar is pickled as `scalar(dtype, bytes)`. The dtype is the delicate part: NumPy believes the
state that a pickle gives it, which can make it take bytes for addresses, so only the state that
NumPy itself writes for plain numbers counts as plain.
"""

import struct
from typing import Any

from soupcore.strict.values import Inert

SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
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
    """Return the value of a NumPy scalar; None where it is not a plain number."""
    match scalar.args:
        case (Inert() as dtype, bytes(content)) if form := _form(dtype):
            if struct.calcsize(form) == len(content):
                return struct.unpack(form, content)[0]
    return None


def is_plain_numpy(value: Inert) -> bool:
    """Whether something of NumPy's is a plain dtype, or a scalar or an array of one."""
    if value.path == "numpy.dtype":
        return _form(value) is not None
    if value.path in SCALARS:
        return number_of(value) is not None
    match value.state:
        case (1, tuple(), Inert() as dtype, bool(), bytes()) if value.path in _ARRAYS:
            return _form(dtype) is not None
    return False


def _form(dtype: Inert) -> str | None:
    """Return the dtype's form for `struct`; None where it is not one of plain numbers."""
    match dtype:
        case Inert(
            path="numpy.dtype",
            args=(str(code), *_),
            state=(3, "<" | "|" as order, None, None, None, -1, -1, 0),
        ) if code in _FORMS:
            return ("<" if order == "|" else order) + _FORMS[code]
    return None
