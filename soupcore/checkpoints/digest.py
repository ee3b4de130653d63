"""Scans of checkpoints: digests and checks that read every byte once.

The digest of a tensor is the SHA-256 of its bytes. The digest of a checkpoint is the SHA-256 of its
sorted `name, dtype, shape, digest` lines, with canonical names (`soupcore.checkpoints.names`).
Scans are cached in the workspace by path, weight set and stamp of the files (see
`soupcore.checkpoints.files`), because a sweep of large files takes minutes to read.
"""

from __future__ import annotations

import hashlib
import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from isal import isal_zlib

from soupcore.checkpoints.chunks import ranges, scratch
from soupcore.checkpoints.dtypes import DTYPE_NAMES, all_finite, is_finite, raw_bytes
from soupcore.checkpoints.files import NO_CACHE, Stamp, open_cache, stamp_of
from soupcore.checkpoints.names import canonical_names, clean
from soupcore.errors import CheckpointError

if TYPE_CHECKING:
    from soupcore.checkpoints.checkpoint import Checkpoint, TensorInfo

_VERSION = 2  # of the stamp's format; entries of other versions are ignored
_CACHE = "scans.sqlite"
_TABLE = (
    "tensor_scans (path TEXT, weights TEXT, stamp TEXT, found TEXT, PRIMARY KEY (path, weights))"
)
_SAMPLES = 64  # values of a matrix that a scan keeps, to test whether two matrices are related


@dataclass(frozen=True)
class TensorScan:
    """The result of reading every byte of a tensor.

    Attributes:
        digest: SHA-256 of its bytes, in hex.
        nonfinite: Number of NaN or infinite elements.
        sample: For float tensors with two dimensions or more: evenly spaced elements, scaled to
            −127…127, one byte each, as Base64. Empty for others.
    """

    digest: str
    nonfinite: int = 0
    sample: str = ""

    @property
    def values(self) -> torch.Tensor:
        """The sample as numbers, shape [n]."""
        return torch.frombuffer(bytearray(b64decode(self.sample)), dtype=torch.int8).float()


Scan = Mapping[str, TensorScan]
"""The scan of a checkpoint: `{tensor: TensorScan}`."""


def scan(checkpoint: Checkpoint, on_bytes: Callable[[int], None]) -> Scan:
    """Read every byte of a checkpoint and cache the scan.

    Args:
        checkpoint: The checkpoint.
        on_bytes: Called with the number of bytes read since the last call; it may raise to stop.

    Raises:
        CheckpointError: A checksum in the file is wrong, or the file changed in the meantime.
    """
    checksums = dict.fromkeys(checkpoint.checksummed, 0)

    def checksum(name: str, block: memoryview) -> None:
        if name in checksums:
            checksums[name] = isal_zlib.crc32(block, checksums[name])

    found = scan_tensors(checkpoint, on_bytes, checksum)
    try:
        # Bytes that are read only for checksums do not count as progress, but can be cancelled.
        checkpoint.check_integrity(lambda nbytes: on_bytes(0), checksums)
    except CheckpointError as error:
        checkpoint.check_unchanged()
        _remember(checkpoint, {"problem": [error.problem, error.way_out]})
        raise
    checkpoint.check_unchanged()
    remember_scan(checkpoint, found)
    return found


def remember_scan(checkpoint: Checkpoint, found: Scan) -> None:
    """Store the scan of the files of a checkpoint for `cached_scan`."""
    _remember(checkpoint, {"tensors": {name: astuple(tensor) for name, tensor in found.items()}})


def scan_tensors(
    checkpoint: Checkpoint,
    on_bytes: Callable[[int], None],
    on_block: Callable[[str, memoryview], None] = lambda name, block: None,
    names: Iterable[str] | None = None,
) -> Scan:
    """Read every tensor once and return the scan; see `scan`.

    Args:
        checkpoint: The checkpoint.
        on_bytes: Called with the number of bytes read since the last call; it may raise to stop.
        on_block: Called with the name of a tensor and its bytes, block by block.
        names: The tensors to read; by default, all.
    """
    wanted = checkpoint.tensors if names is None else names
    return {name: _scan_tensor(checkpoint, name, on_bytes, on_block) for name in wanted}


def cached_scan(checkpoint: Checkpoint) -> Scan | None:
    """Return the cached scan of the same, unchanged files, or None.

    Raises:
        CheckpointError: The earlier scan found that the files are damaged.
    """
    row = None
    with suppress(*NO_CACHE), open_cache(_CACHE, _TABLE) as connection:
        row = connection.execute(
            "SELECT found FROM tensor_scans WHERE path = ? AND weights = ? AND stamp = ?",
            (*_key(checkpoint), checkpoint.stamp),
        ).fetchone()
    cached = json.loads(row[0]) if row else {}
    if "problem" in cached:
        raise CheckpointError(*cached["problem"])
    scans = {name: TensorScan(*tensor) for name, tensor in cached.get("tensors", {}).items()}
    # Another version of Stockpot may have read other tensors from the same file.
    return scans if scans.keys() == checkpoint.tensors.keys() else None


def weights_digest(tensors: Mapping[str, TensorInfo], scan: Scan) -> str:
    """Return the digest of a checkpoint from the scans of its tensors."""
    lines = [
        [canonical, DTYPE_NAMES[tensors[name].dtype], list(tensors[name].shape), scan[name].digest]
        for name, canonical in canonical_names(tensors).items()
    ]
    return hashlib.sha256(json.dumps(sorted(lines)).encode()).hexdigest()


def stamp(files: Iterable[Path]) -> str:
    """Return path and stamp of each file as JSON; see `soupcore.checkpoints.files`.

    Raises:
        OSError: A file is missing or cannot be read.
    """
    return json.dumps([_VERSION, *([os.path.realpath(file), *_stamp(file)] for file in files)])


def _stamp(path: Path) -> Stamp:
    number = os.open(path, os.O_RDONLY)
    try:
        return stamp_of(number)
    finally:
        os.close(number)


def _scan_tensor(
    checkpoint: Checkpoint,
    name: str,
    on_bytes: Callable[[int], None],
    on_block: Callable[[str, memoryview], None],
) -> TensorScan:
    info = checkpoint.tensors[name]
    sha = hashlib.sha256()
    nonfinite = 0
    is_matrix = info.dtype.is_floating_point and len(info.shape) > 1
    # An odd step does not stay in one column of a matrix whose sides are powers of 2.
    step = info.numel // _SAMPLES | 1
    sampled = []
    with scratch(info.dtype) as buffer:
        for start, stop in ranges(info.numel):
            block = buffer[: stop - start]
            checkpoint.read_into(name, start, block)
            sha.update(raw_bytes(block))
            on_block(name, raw_bytes(block))
            if not all_finite(block):
                nonfinite += block.numel() - int(is_finite(block).sum())
            if is_matrix:
                sampled.append(block[-start % step :: step].float())
            on_bytes(block.nbytes)
    sample = _scaled_to_bytes(torch.cat(sampled)) if sampled else b""
    return TensorScan(sha.hexdigest(), nonfinite, b64encode(sample).decode())


def _scaled_to_bytes(values: torch.Tensor) -> bytes:
    values = values.nan_to_num(0, 0, 0)
    largest = float(values.abs().max()) or 1.0
    return bytes(raw_bytes((values / largest * 127).round().to(torch.int8)))


def _remember(checkpoint: Checkpoint, found: dict[str, Any]) -> None:
    with suppress(*NO_CACHE), open_cache(_CACHE, _TABLE) as connection:
        connection.execute(
            "INSERT OR REPLACE INTO tensor_scans VALUES (?, ?, ?, ?)",
            (*_key(checkpoint), checkpoint.stamp, json.dumps(found)),
        )


def _key(checkpoint: Checkpoint) -> tuple[str, str]:
    return clean(str(checkpoint.path.resolve())), checkpoint.scan_name
