"""Files that get their name only when they are whole and on disk.

Until then they are called `.{name}.{16 hex digits}.part` and lie beside the place they are for. A
writer holds a lock on its file as long as it lives, however it ends, so what is left of a dead one
can be told from what a living one writes, in any process.
"""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.part")


class NewFile:
    """A file that is being written and has no name yet.

    As a context it sees to it that nothing is left behind of a file that was not published.

    Args:
        path: Where the file will be; one that is there is replaced then, and not touched before.

    Attributes:
        path: The same.
        file: What to write to. It can be read, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary, descriptor = _create(path)
        self.file: BinaryIO = os.fdopen(descriptor, "w+b")
        self._is_finished = False

    def finish(self) -> None:
        """Wait until all that was written is on disk, so that not even a power cut halves it."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self._is_finished = True

    def publish(self) -> None:
        """Give the file its name; where `finish` was called, wait until that is on disk too."""
        self.file.flush()
        os.replace(self._temporary, self.path)
        if self._is_finished:
            _sync_folder(self.path.parent)

    def __enter__(self) -> "NewFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.unlink(missing_ok=True)
        with suppress(OSError):  # a full disk, which the writer has heard of before
            self.file.close()


@contextmanager
def new_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Give a file to write to, and the file its name when all went well.

    Args:
        path: Where the file will be; one that is there is replaced.
        durable: Whether it is whole after a power cut too, not only after a kill.
    """
    with NewFile(path) as new:
        yield new.file
        if durable:
            new.finish()
        new.publish()


def remove_leftovers(folder: Path) -> None:
    """Remove from a folder, not from those in it, what writers left that died before the end."""
    for path in list(folder.iterdir()):
        if _TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            _remove_if_dead(path)


def _remove_if_dead(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # it just got its name, or belongs to someone else
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:  # its writer is alive, or the file system has no locks and we cannot know
        pass
    finally:
        os.close(descriptor)


def _create(path: Path) -> tuple[Path, int]:
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        with suppress(OSError):  # a file system without locks: nothing will be removed there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # taken for a leftover before it was locked


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
