"""Free disk space: checks, and the errors where there is too little."""

import errno
import os
import shutil
from pathlib import Path
from typing import BinaryIO

from soupcore.errors import FullDiskError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SMALL = 1 << 16  # bytes


def in_words(nbytes: float) -> str:
    """Return a size in bytes with a unit, such as `1.5 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"


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


def _free(path: Path) -> int:
    return shutil.disk_usage(path if path.is_dir() else path.parent).free


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
