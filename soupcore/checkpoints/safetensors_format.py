"""Block-wise reading of safetensors files.

The `safetensors` package does not expose byte ranges, but soups of large models have to be
streamed. The format is simple: an unsigned 64-bit header length, a JSON header, then the tensors'
bytes without gaps (https://huggingface.co/docs/safetensors). `soupcore.writers.safetensors` writes
it.
"""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from soupcore.checkpoints.bounded_json import parse_object
from soupcore.checkpoints.checkpoint import Checkpoint, TensorInfo, check_not_placeholder
from soupcore.checkpoints.dtypes import DTYPES, raw_bytes
from soupcore.checkpoints.files import WeightFile
from soupcore.errors import CheckpointError
from soupcore.safe_torch.metadata import LONGEST_TEXT, MOST_DETAILS, Plain, plain_value
from soupcore.safe_torch.names import MARKER
from soupcore.safe_torch.refusal import INCOMPLETE

_LARGEST_HEADER = 50_000_000  # bytes, enough for some hundred thousand tensors
_LONGEST_NAME = 1_000
_MOST_METADATA = 100_000  # entries; tools write at most a few per tensor
_MOST_DIMENSIONS = 64  # as in torch
_LARGEST_SIZE = 1 << 63


class SafetensorsCheckpoint(Checkpoint):
    """One safetensors file.

    Raises:
        CheckpointError: The file is missing, empty or truncated, or contradicts its header.
    """

    def __init__(self, path: Path) -> None:
        check_not_placeholder(path)
        self._file = WeightFile(path)
        opened = self._file.descriptor()
        header, data_start = _read_header(opened.number, path)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or not all(
            isinstance(value, str) for value in metadata.values()
        ):
            raise CheckpointError(
                f"{path}: __metadata__ is not an object of strings.", "Save the file again."
            )
        if len(metadata) > _MOST_METADATA:
            raise CheckpointError(
                f"{path}: __metadata__ has {len(metadata):,} entries; at most {_MOST_METADATA:,} "
                "are supported.",
                "Save the file again without them.",
            )
        tensors, self._offsets = _check_layout(
            header, data_start, os.fstat(opened.number).st_size, path
        )
        super().__init__(path, tensors, metadata, (path,))
        self._file.check_unchanged()  # ensures that the stamp belongs to the opened file
        self.details = _details(metadata)

    def read_elements(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read part of a tensor; see `Checkpoint.read_elements`."""
        block = torch.empty(stop - start, dtype=self.tensors[name].dtype)
        self.read_into(name, start, block)
        return block

    def read_into(self, name: str, start: int, out: torch.Tensor) -> None:
        """Read part of a tensor into a buffer; see `Checkpoint.read_into`."""
        offset = self._offsets[name] + start * out.itemsize
        self._file.read_into(raw_bytes(out), offset, f"tensor {name!r}")


def _why_not_averaged(dtype: object) -> tuple[str, str]:
    """Return the end of a sentence that begins with the tensor and its dtype, and the solution."""
    if dtype in ("F8_E8M0", "F6_E2M3", "F6_E3M2", "F4"):
        # Averaging quantized values and scales separately does not average the weights.
        return (
            "so it is part of a block-quantized model, which cannot be averaged.",
            "Average the checkpoints it was quantized from, or dequantize it to bfloat16 first.",
        )
    return "which cannot be averaged.", "Save it as float32, float16 or bfloat16."


def _details(metadata: Mapping[str, str]) -> dict[str, Plain]:
    """Return the metadata's plain values on the training run; JSON objects are omitted."""
    details: dict[str, Plain] = {}
    if MARKER in metadata:  # a soup, whose other metadata is copied from its first ingredient
        return details
    for key, text in metadata.items():
        short = max(len(key), len(text)) <= LONGEST_TEXT
        if key != "format" and key.isprintable() and short:
            value = plain_value(_number_or_text(text))
            if isinstance(value, Plain) and value is not None:
                details[key] = value
    return dict(list(details.items())[:MOST_DETAILS])


def _number_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read_header(file: int, path: Path) -> tuple[dict[str, Any], int]:
    size = os.fstat(file).st_size
    prefix = os.pread(file, 8, 0)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
    if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
        raise CheckpointError(
            f"{path} is not a complete safetensors file (its header length is {length} bytes, the "
            f"file has {size}).",
            INCOMPLETE,
        )
    try:
        return parse_object(os.pread(file, length, 8)), 8 + length
    except ValueError as error:
        raise CheckpointError(
            f"{path} has a damaged safetensors header: {error}.", "Copy or download it again."
        ) from None


def _check_layout(
    header: dict[str, Any], data_start: int, size: int, path: Path
) -> tuple[dict[str, TensorInfo], dict[str, int]]:
    entries = []
    for name, entry in header.items():
        if not 0 < len(name) <= _LONGEST_NAME:
            raise CheckpointError(
                f"{path} has a tensor whose name has {len(name)} characters; 1 to {_LONGEST_NAME} "
                "are supported.",
                "Save it under another name.",
            )
        try:
            dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            numbers = [*shape, begin, end]
        except (TypeError, KeyError, ValueError):
            raise CheckpointError(
                f"{path}: the header's entry for {name!r} lacks dtype, shape or data_offsets."
            ) from None
        if not all(type(number) is int and 0 <= number < _LARGEST_SIZE for number in numbers):
            raise CheckpointError(
                f"{path}: the shape or data_offsets of tensor {name!r} are not all non-negative "
                "integers. The file is damaged.",
                "Copy or download it again.",
            )
        if len(shape) > _MOST_DIMENSIONS:
            raise CheckpointError(
                f"{path}: tensor {name!r} has {len(shape)} dimensions; torch supports up to "
                f"{_MOST_DIMENSIONS}."
            )
        if not isinstance(dtype, str) or dtype not in DTYPES:
            why, way_out = _why_not_averaged(dtype)
            raise CheckpointError(
                f"{path}: tensor {name!r} has dtype {str(dtype)[:40]}, {why}", way_out
            )
        info = TensorInfo(tuple(shape), DTYPES[dtype])
        if end - begin != info.nbytes:
            raise CheckpointError(
                f"{path}: tensor {name!r} of shape {shape} and dtype {dtype} needs {info.nbytes} "
                f"bytes, but its header gives {end - begin}. The file is damaged.",
                "Copy or download it again.",
            )
        entries.append((begin, end, name, info))
    entries.sort(key=lambda entry: entry[:2])
    expected = 0
    for begin, end, name, _ in entries:
        if begin != expected:
            raise CheckpointError(f"{path}: tensor {name!r} overlaps another or leaves a gap.")
        expected = end
    if data_start + expected != size:
        raise CheckpointError(
            f"{path} has {size} bytes, but its header describes {data_start + expected}: the file "
            "was truncated or extended.",
            INCOMPLETE,
        )
    tensors = {name: info for _, _, name, info in entries}
    return tensors, {name: data_start + begin for begin, _, name, _ in entries}
