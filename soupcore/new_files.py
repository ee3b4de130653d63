"""Files and folders that get their name only when they are whole and on disk.

Until then they are called `.{name}.{16 hex digits}.part` and lie beside the place they are for. A
writer holds a lock on its file as long as it lives, however it ends, so what is left of a dead one
can be told from what a living one writes, in any process.

A new file is as open to others as its folder: in a private folder only its owner may read it.
"""

import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from soupcore.disk import full_disk, is_full

_TEMPORARY = re.compile(r"\.(.+\.)?[0-9a-f]{16}\.part")


class NewFile:
    """A file that is being written and has no name yet.

    As a context it sees to it that nothing is left behind of a file that was not published, and
    raises FullDiskError where the disk was full.

    Args:
        path: Where the file will be; one that is there is replaced then, and not touched before.

    Attributes:
        path: The same.
        file: What to write to. It can be read, too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary, descriptor = _create(path, _open_new)
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

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._temporary.unlink(missing_ok=True)
        with suppress(OSError):  # a full disk, which the writer has heard of before
            self.file.close()
        if error is not None and is_full(error):
            raise full_disk(self.path) from error


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


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder to fill, and its name when all went well; it is not in the way of another.

    What is in it must be on disk by then. If there is a folder of that name already in the end,
    because another process was faster, that one stays.

    Args:
        path: Where the folder will be.

    Yields:
        Where it is until then.
    """
    temporary, descriptor = _create(path, _open_new_folder)
    try:
        yield temporary
        os.fsync(descriptor)
        try:
            temporary.rename(path)
        except OSError:
            if not path.is_dir():
                raise
        _sync_folder(path.parent)
    except OSError as error:
        if is_full(error):
            raise full_disk(path) from error
        raise
    finally:
        os.close(descriptor)
        shutil.rmtree(temporary, ignore_errors=True)


def create_private(path: Path) -> None:
    """Create an empty file that is as open to others as its folder, unless there is one."""
    with suppress(FileExistsError):
        os.close(_open_new(path))


def remove_leftovers(folder: Path) -> None:
    """Remove from a folder, not from those in it, what writers left that died before the end."""
    for path in list(folder.iterdir()):
        if _TEMPORARY.fullmatch(path.name) and not path.is_symlink():
            _remove_if_dead(path)


def _remove_if_dead(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # it just got its name, or belongs to someone else
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            path.unlink(missing_ok=True)
        elif stat.S_ISDIR(mode):
            shutil.rmtree(path, ignore_errors=True)
    except OSError:  # its writer is alive, or the file system has no locks and we cannot know
        pass
    finally:
        os.close(descriptor)


def _create(path: Path, open_new: Callable[[Path], int]) -> tuple[Path, int]:
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        descriptor = open_new(temporary)
        with suppress(OSError):  # a file system without locks: nothing will be removed there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # taken for a leftover before it was locked


def _open_new(path: Path) -> int:
    folder = path.parent.stat().st_mode
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600 | folder & 0o066)
    if folder & stat.S_ISGID:  # shared with its group on purpose, whatever the umask
        os.fchmod(descriptor, 0o600 | folder & 0o060)
    return descriptor


def _open_new_folder(path: Path) -> int:
    while True:
        path.mkdir(mode=0o700)
        with suppress(FileNotFoundError):  # taken for a leftover before it was opened
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
