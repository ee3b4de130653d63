"""Detect new and changed checkpoints in a folder by the status of files, without reading them.

Training or copying may write a large file for minutes. A file counts as settled once two
consecutive listings agree on its size and time of change.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from natsort import natsorted

from soupcore.checkpoints.file_names import is_checkpoint_name, is_leftover

_DEEPEST = 6  # levels of subfolders
_MOST_ENTRIES = 20_000  # maximum number of entries in a listing


class Status(NamedTuple):
    """Size of a file in bytes, and its time of change in nanoseconds."""

    size: int
    modified: int


Listing = Mapping[str, Status]
"""The checkpoints in a folder and its subfolders, by path relative to the folder."""


@dataclass(frozen=True)
class Changes:
    """The checkpoints that changed after a listing.

    Attributes:
        settled: New, changed and removed ones that were the same in the last two listings.
        unsettled: Those that are being written, with their current sizes in bytes.
    """

    settled: tuple[str, ...]
    unsettled: Mapping[str, int]


def list_checkpoints(folder: str | Path) -> Listing:
    """List the files in a folder that are checkpoints by name; empty if it cannot be read.

    Links to folders are not followed, since they may leave the folders that may be read.
    """
    found: dict[str, Status] = {}
    for count, entry in enumerate(_entries(str(folder), 0)):
        if count >= _MOST_ENTRIES:
            break
        path = Path(entry.path)
        if not is_checkpoint_name(path) or is_leftover(path):
            continue
        try:
            status = entry.stat()
        except OSError:  # removed meanwhile, or a link to nothing
            continue
        if stat.S_ISREG(status.st_mode):
            name = path.relative_to(folder).as_posix()
            found[name] = Status(status.st_size, status.st_mtime_ns)
    return found


def changes(before: Listing, last: Listing, now: Listing) -> Changes:
    """Return what changed after a listing.

    Args:
        before: The listing to compare with, such as that of the displayed sweep.
        last: The listing before `now`.
        now: The current listing.
    """
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    settled = [name for name in names if last.get(name) == now.get(name)]
    unsettled = {name: now[name].size for name in natsorted({*names} & now.keys() - {*settled})}
    return Changes(tuple(natsorted(settled)), unsettled)


def _entries(folder: str, depth: int) -> Iterator[os.DirEntry[str]]:
    """Yield the files in a folder and its subfolders, except hidden ones."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return
    for entry in visible:
        if not entry.is_dir(follow_symlinks=False):
            yield entry
        elif depth < _DEEPEST:
            yield from _entries(entry.path, depth + 1)
