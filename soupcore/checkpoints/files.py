"""Files that are known for long and open only while they are read.

A sweep of a hundred models in twenty shards each is two thousand files, and a process may have
some hundreds open. So the ones read last stay open, the others are opened again when they are read,
and a file opened again must be the same one.

What is cached about a file is kept with its stamp: device, inode, size, both times of change, and a
hash of some of its bytes. The time of the last status change (ctime) tells of other bytes under an
old modification time, as `rsync --inplace -t` and `cp -p` leave them. It is not certain either: a
restored disk image or a network file system may bring any ctime with it, and two changes within one
tick of the clock have the same. So some blocks of the content are compared too, or all of it where
the file is small.
"""

import hashlib
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from soupcore.errors import CheckpointError

_MOST_OPEN = 64
_READ_AT_ONCE = 128 << 10  # bytes; more would not stay in the cache until they are used
_BLOCK = 4 << 10  # bytes of a file that are hashed at a time
_BLOCKS = 8  # of them: the first, the last, and others spread evenly between
_TICK = 20_000_000  # nanoseconds; the clocks of file systems are no coarser than that


class Identity(NamedTuple):
    """What the file system says of a file; times are in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int  # the last change of content, name or rights, which programs cannot set


class Stamp(NamedTuple):
    """What tells whether a file still has the bytes that it had.

    Attributes:
        identity: What the file system says of it.
        probe: Hash of some of its blocks, in hex; of all bytes where it has 32 KiB or less.
    """

    identity: Identity
    probe: str


def stamp_of(number: int) -> Stamp:
    """Return the stamp of an open file.

    A large file that was changed a moment ago could be changed again within the same tick of the
    clock, where the probe may miss it. So this waits until the tick is over, 20 ms at most.
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


class WeightFile:
    """A file to read from at any place, by any thread.

    Args:
        path: Where it is. It is opened at once.

    Attributes:
        identity: What the file system said of it when it was first opened.

    Raises:
        CheckpointError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        opened = _Descriptor(path)
        self.identity = _identity(opened.number)
        _keep(id(self), opened)
        weakref.finalize(self, _open.pop, id(self), None)

    def descriptor(self) -> "_Descriptor":
        """Return the open file; it stays open while the caller holds what is returned.

        Raises:
            CheckpointError: Another file is in its place, or none.
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
        """Make sure that the open file is still what it was when it was first opened.

        Raises:
            CheckpointError: It was written to, or another file is in its place.
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
            CheckpointError: It is not the one that was opened.
        """
        found = stamp_of(self.descriptor().number)
        if found.identity != self.identity:
            raise self._changed()
        return found

    def _changed(self) -> CheckpointError:
        return CheckpointError(f"{self.path} was changed while it was read. Open it again.")

    def read_into(self, buffer: memoryview, offset: int, what: str = "the weights") -> None:
        """Fill a buffer with the bytes that start at `offset`; `what` names them in errors.

        Raises:
            CheckpointError: The file ends before, or is not the one that was opened.
        """
        opened = self.descriptor()
        done = 0
        while done < len(buffer):
            count = os.preadv(opened.number, [buffer[done:]], offset + done)
            if count == 0:
                raise CheckpointError(
                    f"{self.path} ended inside {what}: it was cut short while open. "
                    "Copy the file again."
                )
            done += count

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Give the bytes from `start` to `stop` in pieces, each of them good until the next one.

        Raises:
            CheckpointError: See `read_into`.
        """
        buffer = memoryview(bytearray(min(stop - start, _READ_AT_ONCE)))
        while start < stop:
            piece = buffer[: stop - start]
            self.read_into(piece, start)
            yield piece
            start += len(piece)


class _Descriptor:
    """An open file, closed when neither the cache nor a reader has it any more.

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


# By id of the WeightFile, the one read last at the end.
_open: OrderedDict[int, _Descriptor] = OrderedDict()
_lock = threading.Lock()


def _keep(key: int, opened: _Descriptor) -> None:
    with _lock:
        _open[key] = opened
        while len(_open) > _MOST_OPEN:
            _open.popitem(last=False)
