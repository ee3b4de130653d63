"""Files that are known for long and open only while they are read.

A sweep of a hundred models in twenty shards each is two thousand files, and a process may have
some hundreds open. So the ones read last stay open, the others are opened again when they are read,
and a file opened again must be the same one.
"""

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from soupcore.errors import CheckpointError

_MOST_OPEN = 64
_READ_AT_ONCE = 128 << 10  # bytes; more would not stay in the cache until they are used


class WeightFile:
    """A file to read from at any place, by any thread.

    Args:
        path: Where it is. It is opened at once.

    Attributes:
        identity: Device, inode, size in bytes and time of change when it was first opened.

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
        if _identity(self.descriptor().number) != self.identity:
            raise CheckpointError(f"{self.path} was changed while it was read. Open it again.")

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


def _identity(number: int) -> tuple[int, ...]:
    status = os.fstat(number)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


# By id of the WeightFile, the one read last at the end.
_open: OrderedDict[int, _Descriptor] = OrderedDict()
_lock = threading.Lock()


def _keep(key: int, opened: _Descriptor) -> None:
    with _lock:
        _open[key] = opened
        while len(_open) > _MOST_OPEN:
            _open.popitem(last=False)
