"""Files and folders that get their final name only once they are complete and on disk.

Until then they are called `.{name}.{16 hex digits}.part`, in the same folder. A writer holds a lock
on its file until its process ends, so any process can distinguish leftovers from files that are
still being written.

A new file has the permissions of its folder: in a private folder, only the owner may read it.
Writing a file that does not fit on its disk raises FullDiskError.
"""

import errno
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

from soupcore.display import in_words
from soupcore.errors import FullDiskError

_TEMPORARY = re.compile(r"\.(.+\.)?[0-9a-f]{16}\.part")

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SMALL = 1 << 16  # bytes


class NewFile:
    """A file that is being written and does not have its final name yet.

    A context manager: on exit it removes the file unless it was published, and it raises
    FullDiskError in place of the system's error if the disk is full.

    Args:
        path: Final path of the file. An existing file stays untouched until `publish` replaces it.

    Attributes:
        path: Final path of the file.
        file: The open file, for writing and reading.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary, descriptor = _create(path, _open_new)
        self.file: BinaryIO = os.fdopen(descriptor, "w+b")
        self._is_finished = False

    def finish(self) -> None:
        """Flush the file to disk, so that a power cut cannot truncate it."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self._is_finished = True

    def publish(self) -> None:
        """Give the file its final name. After `finish`, the name is flushed to disk too."""
        self.file.flush()
        os.replace(self._temporary, self.path)
        if self._is_finished:
            _sync_folder(self.path.parent)

    def __enter__(self) -> "NewFile":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._temporary.unlink(missing_ok=True)
        with suppress(OSError):  # the disk is full, and an earlier write has failed already
            self.file.close()
        if error is not None and is_full(error):
            raise full_disk(self.path) from error


@contextmanager
def new_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its final name if the context exits without an error.

    Args:
        path: Final path of the file. An existing file is replaced.
        durable: Flush to disk, so that the file survives a power cut and not only a killed process.
    """
    with NewFile(path) as new:
        yield new.file
        if durable:
            new.finish()
        new.publish()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Create a folder that gets its final name if the context exits without an error.

    The caller flushes the files in it to disk. If another process has created the folder `path` in
    the meantime, that one stays and the new one is removed.

    Args:
        path: Final path of the folder.

    Yields:
        Temporary path of the folder, to write its files to.
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
    """Create an empty file with the permissions of its folder, unless it exists."""
    with suppress(FileExistsError):
        os.close(_open_new(path))


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files of dead writers from a folder, but not from its subfolders."""
    for path in list(folder.iterdir()):
        if _TEMPORARY.fullmatch(path.name) and not path.is_symlink():
            _remove_if_dead(path)


def is_full(error: BaseException) -> bool:
    """Return whether an error means that a disk or a quota is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def full_disk(path: Path, needed: int | None = None) -> FullDiskError:
    """Return the error for a file that does not fit on its disk.

    Args:
        path: The file, or its folder.
        needed: Size of the file in bytes; None if unknown.
    """
    free = _free(path)
    problem = f"The disk is full: {path} cannot be written"
    if needed is not None:
        problem = f"Too little disk space: {path} needs {in_words(needed)}"
    return FullDiskError(
        f"{problem}, and {in_words(free)} are free. Free some space, or set STOCKPOT_WORKSPACE "
        "to a folder on another disk. `python -m soupcore.maintenance size` shows the size of the "
        "workspace, and `prune` removes data that is not needed."
    )


def check_space(path: Path, needed: int) -> None:
    """Check that a file fits on its disk, before it is computed.

    Args:
        path: The file, or its folder.
        needed: Size of the file in bytes.

    Raises:
        FullDiskError: There is less free space.
    """
    if needed > _free(path):
        raise full_disk(path, needed)


def has_no_space(path: Path) -> bool:
    """Return whether the disk of a file or folder has no space for even a small file."""
    return _free(path) < _SMALL


def reserve(file: BinaryIO, path: Path, nbytes: int) -> None:
    """Allocate a file's blocks on disk.

    Required before writing through a memory map, which kills the process if the disk is full.

    Args:
        file: The file, open for writing.
        path: Its path, for the error.
        nbytes: Its size in bytes.

    Raises:
        FullDiskError: There is less free space.
    """
    if not nbytes:
        return
    check_space(path, nbytes)  # some file systems fill the disk before they fail
    try:
        os.posix_fallocate(file.fileno(), 0, nbytes)
    except OSError as error:
        if is_full(error):
            raise full_disk(path, nbytes) from error
        raise


def _remove_if_dead(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # it just got its final name, or belongs to another user
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            path.unlink(missing_ok=True)
        elif stat.S_ISDIR(mode):
            shutil.rmtree(path, ignore_errors=True)
    except OSError:  # its writer is alive, or the file system does not support locks
        pass
    finally:
        os.close(descriptor)


def _create(path: Path, open_new: Callable[[Path], int]) -> tuple[Path, int]:
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        descriptor = open_new(temporary)
        with suppress(OSError):  # no support for locks: leftovers are never removed there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)  # another process removed it as a leftover before it was locked


def _open_new(path: Path) -> int:
    folder = path.parent.stat().st_mode
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600 | folder & 0o066)
    if folder & stat.S_ISGID:  # deliberately shared with its group, regardless of the umask
        os.fchmod(descriptor, 0o600 | folder & 0o060)
    return descriptor


def _open_new_folder(path: Path) -> int:
    while True:
        path.mkdir(mode=0o700)
        with suppress(FileNotFoundError):  # removed as a leftover before it was opened
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _free(path: Path) -> int:
    return shutil.disk_usage(path if path.is_dir() else path.parent).free
