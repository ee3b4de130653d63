"""The disk usage of a workspace by kind of data."""

import os
from dataclasses import dataclass
from pathlib import Path

from soupcore.remote.cache import REMOTE
from soupcore.store.arrays import ARRAYS

# Kinds of folders and files in a workspace, by the beginning of their names.
_KINDS = {
    ARRAYS: "results of evaluations",
    "soups": "weights of soups",
    "decoded": "decoded data",
    "uploads": "uploads",
    REMOTE: "cache of remote checkpoints",
    "stockpot.sqlite.damaged": "damaged databases",
    "stockpot.sqlite": "database",
    "scans.sqlite": "cache of checkpoint scans",
    "contents.sqlite": "cache of checkpoint scans",
}
_OTHER = "logs and other files"


@dataclass(frozen=True)
class Size:
    """The disk usage of one kind of data.

    Attributes:
        files: Number of files.
        nbytes: Total size in bytes.
    """

    files: int
    nbytes: int

    def __add__(self, other: "Size") -> "Size":
        return Size(self.files + other.files, self.nbytes + other.nbytes)


def sizes(folder: Path) -> dict[str, Size]:
    """Return the disk usage of a workspace folder by kind, the largest first.

    It reads the size of every file, which takes 0.1 s for 10,000 files.
    """
    found: dict[str, Size] = {}
    for entry in sorted(folder.iterdir()):
        kind = next((kind for name, kind in _KINDS.items() if entry.name.startswith(name)), _OTHER)
        found[kind] = found.get(kind, Size(0, 0)) + _size(entry)
    return dict(sorted(found.items(), key=lambda item: -item[1].nbytes))


def _size(entry: Path) -> Size:
    if not entry.is_dir():
        return _size_of_file(entry)
    total = Size(0, 0)
    for folder, _, files in os.walk(entry):
        for name in files:
            total += _size_of_file(Path(folder) / name)
    return total


def _size_of_file(path: Path) -> Size:
    try:
        return Size(1, path.lstat().st_size)
    except FileNotFoundError:  # removed in the meantime
        return Size(0, 0)
