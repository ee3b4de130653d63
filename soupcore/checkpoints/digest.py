"""Reading every byte of a checkpoint once: its digest, and the values that are not finite.

A tensor's digest is the SHA-256 of its bytes; a checkpoint's is the SHA-256 of its sorted
`name, dtype, shape, digest` lines. What a scan found is kept in the workspace by path, inode, size
and time of change of the files, because a sweep of large files takes minutes to read.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soupcore.checkpoints.chunks import BufferedReader, ranges
from soupcore.checkpoints.dtypes import DTYPE_NAMES, all_finite, is_finite, raw_bytes
from soupcore.workspace import workspace_folder

if TYPE_CHECKING:
    from soupcore.checkpoints.checkpoint import Checkpoint


@dataclass(frozen=True)
class Scan:
    """What reading every byte of a checkpoint tells.

    Attributes:
        digest: Identity of the weights, 64 hex digits.
        nonfinite: `{tensor: count}` of NaN or infinite elements, only where there are any.
    """

    digest: str
    nonfinite: dict[str, int]


def scan(checkpoint: Checkpoint, on_bytes: Callable[[int], None]) -> Scan:
    """Read every byte of a checkpoint and remember what was found.

    Args:
        checkpoint: What to read.
        on_bytes: Called with the number of bytes read since the last call; it may raise to stop.
    """
    read = BufferedReader()
    lines = []
    nonfinite = {}
    for name in sorted(checkpoint.tensors):
        info = checkpoint.tensors[name]
        sha = hashlib.sha256()
        bad = 0
        for start, stop in ranges(info.numel):
            chunk = read(checkpoint, name, start, stop)
            sha.update(raw_bytes(chunk))
            if not all_finite(chunk):
                bad += chunk.numel() - int(is_finite(chunk).sum())
            on_bytes(chunk.nbytes)
        if bad:
            nonfinite[name] = bad
        lines.append([name, DTYPE_NAMES[info.dtype], list(info.shape), sha.hexdigest()])
    found = Scan(hashlib.sha256(json.dumps(lines).encode()).hexdigest(), nonfinite)
    checkpoint.check_unchanged()
    with closing(_connect()) as connection, connection:
        connection.execute(
            "INSERT OR REPLACE INTO scans VALUES (?, ?, ?, ?)",
            (str(checkpoint.path.resolve()), checkpoint.stamp, found.digest, json.dumps(nonfinite)),
        )
    return found


def cached_scan(checkpoint: Checkpoint) -> Scan | None:
    """Return what an earlier scan of the same, unchanged files found, if any."""
    with closing(_connect()) as connection:
        row = connection.execute(
            "SELECT digest, nonfinite FROM scans WHERE path = ? AND stamp = ?",
            (str(checkpoint.path.resolve()), checkpoint.stamp),
        ).fetchone()
    return Scan(row[0], json.loads(row[1])) if row else None


def stamp(files: Iterable[Path]) -> str:
    """Return path, inode, size and time of change of each file, as text.

    The inode tells files apart that were copied or unpacked with equal times and then renamed.
    """
    stats = [(str(file.resolve()), file.stat()) for file in files]
    return json.dumps([[path, s.st_ino, s.st_size, s.st_mtime_ns] for path, s in stats])


def _connect() -> sqlite3.Connection:
    connection = sqlite3.connect(workspace_folder() / "scans.sqlite", timeout=30)
    # No write-ahead log: switching to it at each connection does not wait for other processes.
    connection.execute(
        "CREATE TABLE IF NOT EXISTS scans"
        " (path TEXT PRIMARY KEY, stamp TEXT, digest TEXT, nonfinite TEXT)"
    )
    return connection
