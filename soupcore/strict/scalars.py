"""Tensors of one element, such as a metric that a run kept as one, as plain numbers."""

import struct
from collections.abc import Collection, Mapping
from typing import Any, BinaryIO

from soupcore.strict.tensors import Tensor

MOST_SCALARS = 200

_FORMS = {
    "float64": "<d",
    "float32": "<f",
    "float16": "<e",
    "int64": "<q",
    "int32": "<i",
    "int16": "<h",
    "int8": "<b",
    "uint8": "<B",
    "bool": "<?",
}


class Scalars:
    """Reads such tensors from a file, a few bytes each and not many of them.

    Args:
        file: The file, seekable.
        places: `{key: (offset in the file, …)}` of its storages.
        weights: Tensors that are none.
    """

    def __init__(
        self,
        file: BinaryIO,
        places: Mapping[str, tuple[int, int, int | None]],
        weights: Collection[Any],
    ) -> None:
        self._file = file
        self._places = places
        self._weights = weights
        self._read = 0

    def number_of(self, tensor: Tensor) -> int | float | bool | None:
        """Return the one element; None where there are more, or it is no plain number."""
        form = _FORMS.get("float32" if tensor.dtype == "bfloat16" else tensor.dtype)
        if tensor in self._weights or not form or tensor.negative or tensor.problem():
            return None
        if any(size != 1 for size in tensor.shape) or self._read == MOST_SCALARS:
            return None
        self._read += 1
        self._file.seek(self._places[tensor.storage.key][0] + tensor.offset * tensor.nbytes)
        content = self._file.read(tensor.nbytes)
        if tensor.dtype == "bfloat16":  # the upper half of a float32
            content = bytes(2) + content
        (number,) = struct.unpack(form, content)
        return number  # type: ignore[no-any-return]
