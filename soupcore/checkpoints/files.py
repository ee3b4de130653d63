"""Checkpoint files that are opened on demand, their stamps, and the caches of their contents.

A sweep of a hundred models with twenty shards each has two thousand files, but a process can only
have some hundreds open. The most recently read files stay open. The others are opened again when
they are read, and a reopened file must be the same file.

Cache entries about a file include its stamp: device, inode, size, mtime, ctime, and a hash of some
of its bytes. The time of the last status change (ctime) detects new content under an old mtime, as
`rsync --inplace -t` and `cp -p` leave it. ctime is not reliable either: a restored disk image or a
network file system may set any ctime, and two changes within one tick of the clock have the same.
So the stamp also covers some blocks of the content, or all of it if the file is small.
"""

import hashlib
import os
import platform
import sqlite3
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from soupcore.errors import CheckpointError, StoreError
from soupcore.workspace import workspace_file

_MOST_OPEN = 64
_READ_AT_ONCE = 128 << 10  # bytes; more would not stay in the CPU's cache until they are used
_BLOCK = 4 << 10  # size of the blocks in the probe, in bytes
_BLOCKS = 8  # number of blocks in the probe: the first, the last, and others evenly spaced
_TICK = 20_000_000  # nanoseconds; the clocks of file systems are not coarser than this

#: Errors of a missing or damaged workspace. Without a cache, files are read each time.
NO_CACHE = (OSError, StoreError, sqlite3.Error)


class Identity(NamedTuple):
    """Status of a file from the file system; times are in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int  # ctime: last change of content, name or permissions; programs cannot set it


class Stamp(NamedTuple):
    """Fingerprint of a file to detect changes.

    Attributes:
        identity: Status of the file.
        probe: Hash of some of its blocks, in hex; of all bytes if it has 32 KiB or less.
    """

    identity: Identity
    probe: str


def stamp_of(number: int) -> Stamp:
    """Return the stamp of an open file.

    A large file that has just changed could change again within the same tick of the clock, and the
    probe may miss that. So this waits until the tick is over, at most 20 ms.
    """
    identity = _identity(number)
    if identity.size > _BLOCKS * _BLOCK and 0 <= time.time_ns() - identity.changed < _TICK:
        time.sleep(_TICK / 1e9)
        identity = _identity(number)
    return Stamp(identity, _probe(number, identity.size))


def _probe(number: int, size: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    if size <= _BLOCKS * _BLOCK:
        digest.update(os.pread(number, size, 0))
    else:
        for index in range(_BLOCKS):
            digest.update(os.pread(number, _BLOCK, index * (size - _BLOCK) // (_BLOCKS - 1)))
    return digest.hexdigest()


@contextmanager
def open_cache(name: str, table: str) -> Iterator[sqlite3.Connection]:
    """Open a cache in the workspace for one transaction, creating it if it is missing.

    Args:
        name: Name of its SQLite file.
        table: Its table, as in `CREATE TABLE`.

    Raises:
        OSError, StoreError, sqlite3.Error: The workspace or the file cannot be used.
    """
    # No write-ahead log: switching to it at each connection does not wait for other processes.
    with closing(sqlite3.connect(workspace_file(name), timeout=30)) as connection, connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        yield connection


class WeightFile:
    """A file for random access from any thread.

    Args:
        path: The file. It is opened immediately.

    Attributes:
        identity: Status of the file when it was first opened.

    Raises:
        CheckpointError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        opened = _Descriptor(path)
        self.identity = _identity(opened.number)
        _keep(id(self), opened)
        weakref.finalize(self, _open.pop, id(self), None)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path, so that another process or machine opens its own file."""
        return _opened_elsewhere, (self.path, self.identity)

    def descriptor(self) -> "_Descriptor":
        """Return the open file; it stays open while the caller holds a reference to the result.

        Raises:
            CheckpointError: The file was replaced or removed.
        """
        with _lock:
            if opened := _open.get(id(self)):
                _open.move_to_end(id(self))
                return opened
        opened = _Descriptor(self.path)
        if _identity(opened.number) != self.identity:
            raise CheckpointError(f"{self.path} was changed after it was opened. Reload the sweep.")
        _keep(id(self), opened)
        return opened

    def check_unchanged(self) -> None:
        """Check that the file is unchanged since it was first opened.

        Raises:
            CheckpointError: It was changed, replaced or removed.
        """
        try:
            in_place = _as_identity(self.path.stat())
        except OSError:
            in_place = None
        if not _identity(self.descriptor().number) == self.identity == in_place:
            raise self._changed()

    def stamp(self) -> Stamp:
        """Return the stamp of the file.

        Raises:
            CheckpointError: It was changed since it was opened.
        """
        current = stamp_of(self.descriptor().number)
        if current.identity != self.identity:
            raise self._changed()
        return current

    def _changed(self) -> CheckpointError:
        return CheckpointError(f"{self.path} was changed while it was read. Open it again.")

    def read_into(self, buffer: memoryview, offset: int, part: str = "the weights") -> None:
        """Fill a buffer with the bytes from `offset` on.

        Args:
            buffer: The buffer.
            offset: The first byte.
            part: Name of the part of the file, for errors.

        Raises:
            CheckpointError: The file ends too early, or was replaced.
        """
        opened = self.descriptor()
        done = 0
        while done < len(buffer):
            count = os.preadv(opened.number, [buffer[done:]], offset + done)
            if count == 0:
                raise CheckpointError(
                    f"{self.path} ended inside {part}: it was truncated while open. "
                    "Copy the file again."
                )
            done += count

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes from `start` to `stop` in pieces, each valid until the next one.

        Raises:
            CheckpointError: See `read_into`.
        """
        buffer = memoryview(bytearray(min(stop - start, _READ_AT_ONCE)))
        while start < stop:
            piece = buffer[: stop - start]
            self.read_into(piece, start)
            yield piece
            start += len(piece)


def _opened_elsewhere(path: Path, identity: Identity) -> WeightFile:
    """Open the file that another process, perhaps on another machine, has open.

    Raises:
        CheckpointError: There is no such file here, or it is another one.
    """
    file = WeightFile(path)
    # Numbers of devices and inodes differ between machines that share a folder.
    if (file.identity.size, file.identity.modified) != (identity.size, identity.modified):
        raise CheckpointError(
            f"{path} on {platform.node()} differs from the file of this name where it was opened. "
            "All machines need the same files."
        )
    return file


class _Descriptor:
    """An open file, closed when neither the cache nor a reader refers to it any more.

    Attributes:
        number: The file descriptor.
    """

    def __init__(self, path: Path) -> None:
        self.number = -1
        try:
            self.number = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be opened ({error.strerror}).") from None

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


def _identity(number: int) -> Identity:
    return _as_identity(os.fstat(number))


def _as_identity(status: os.stat_result) -> Identity:
    return Identity(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


# Open descriptors by the id of their WeightFile, in the order of last use.
_open: OrderedDict[int, _Descriptor] = OrderedDict()
_lock = threading.Lock()


def _keep(key: int, opened: _Descriptor) -> None:
    with _lock:
        _open[key] = opened
        while len(_open) > _MOST_OPEN:
            _open.popitem(last=False)
