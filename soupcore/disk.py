"""Space on disk: whether there is enough, and what to say if there is not."""

import errno
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from soupcore.errors import FullDiskError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SMALL = 1 << 16  # bytes


def in_words(nbytes: float) -> str:
    """Return a size in bytes as people write it: `1.5 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"


def is_full(error: BaseException) -> bool:
    """Return whether an error says that a disk or a quota is full."""
    return isinstance(error, OSError) and error.errno in _FULL


def full_disk(path: Path, needed: int | None = None) -> FullDiskError:
    """Return the error that says that a file does not fit on its disk.

    Args:
        path: The file, or its folder.
        needed: Bytes that it takes; None if that is not known.
    """
    free = _free(path)
    problem = f"The disk is full: {path} cannot be written"
    if needed is not None:
        problem = f"The disk is too small: {path} takes {in_words(needed)}"
    return FullDiskError(
        f"{problem}, and {in_words(free)} are free. Free some space, or set STOCKPOT_WORKSPACE "
        "to a folder on another disk. `python -m soupcore.maintenance size` shows what the "
        "workspace takes, and `prune` removes what is not needed."
    )


def check_space(path: Path, needed: int) -> None:
    """Check that a file fits on its disk, before the work that makes it.

    Args:
        path: The file, or its folder.
        needed: Bytes that it takes.

    Raises:
        FullDiskError: There is less space than that.
    """
    if needed > _free(path):
        raise full_disk(path, needed)


def has_no_space(path: Path) -> bool:
    """Return whether the disk of a file or folder has no room for the next small file."""
    return _free(path) < _SMALL


def _free(path: Path) -> int:
    return shutil.disk_usage(path if path.is_dir() else path.parent).free


def reserve(file: BinaryIO, path: Path, nbytes: int) -> None:
    """Have the disk set a file's blocks aside.

    Writing through a memory map needs that: where the disk is full, it would kill the process.

    Args:
        file: The file, open for writing.
        path: What to call it in the error.
        nbytes: Its size.

    Raises:
        FullDiskError: There is less space than that.
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
