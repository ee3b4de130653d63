"""Files of arrays, each named after its content, so that damage shows.

A file's name holds the SHA-256 and the size of its bytes. A file that is missing or has another
size is noticed without reading it; changed bytes are noticed when a process first reads it.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from soupcore.errors import StoreError
from soupcore.new_files import new_file
from soupcore.workspace import private_folder

ARRAYS = "arrays"  # the folder in the workspace
# Files of earlier versions are named otherwise; of these, only what cannot be read is damaged.
_NAME = re.compile(r"(?P<sha256>[0-9a-f]{64})-(?P<size>[0-9]+)\.safetensors")

# `{path: size and times}` of the files that this process found to be whole.
_verified: dict[Path, tuple[int, int, int]] = {}


class DamagedArraysError(StoreError):
    """A file of arrays is missing or is not what was written.

    Attributes:
        problem: What is wrong with it, behind the word "it".
    """

    def __init__(self, path: Path, problem: str) -> None:
        self.problem = problem
        super().__init__(f"{path} {problem}. What it held has to be evaluated again.")


def write_arrays(
    folder: Path, arrays: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> str:
    """Write arrays to a new file and wait until it is on disk.

    Args:
        folder: The workspace folder.
        arrays: What to write.
        metadata: What goes into the file beside them.

    Returns:
        Path of the file, relative to the folder.
    """
    return write_content(folder, save(dict(arrays), dict(metadata)))


def write_content(folder: Path, content: bytes) -> str:
    """Write a file of arrays that is in memory already; see `write_arrays`."""
    relative = place_of(hashlib.sha256(content).hexdigest(), len(content))
    private_folder((folder / relative).parent)
    with new_file(folder / relative) as file:
        file.write(content)
    return str(relative)


def place_of(sha256: str, size: int) -> Path:
    """Return where the file with this content belongs, relative to the workspace folder."""
    return Path(ARRAYS) / sha256[:2] / f"{sha256}-{size}.safetensors"


def looks_whole(path: Path) -> bool:
    """Return whether a file is there and has its size, without reading it."""
    named = _NAME.fullmatch(path.name)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    return size == int(named["size"]) if named else size > 0


def read_array(path: Path, name: str, place: int | None = None) -> torch.Tensor:
    """Return one array of a file, or, of several that are stacked in it, the one at a place.

    Raises:
        DamagedArraysError: The file is missing, or is not what was written.
    """
    verify(path)
    try:
        with safe_open(path, framework="pt") as file:
            if place is None:
                tensor: torch.Tensor = file.get_tensor(name)
            else:
                tensor = file.get_slice(name)[place]
    except (OSError, SafetensorError) as error:
        raise DamagedArraysError(path, f"cannot be read ({error})") from error
    return tensor


def read_arrays(path: Path) -> dict[str, torch.Tensor]:
    """Return all arrays of a file.

    Raises:
        DamagedArraysError: The file is missing, or is not what was written.
    """
    verify(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedArraysError(path, f"cannot be read ({error})") from error


def verify(path: Path, *, again: bool = False) -> None:
    """Compare a file with its SHA-256, once in a process unless it changes.

    Args:
        path: The file; one of an earlier version, without a SHA-256 in its name, passes.
        again: Whether to read it even if this process has found it to be whole before.

    Raises:
        DamagedArraysError: The file is missing, or is not what was written.
    """
    named = _NAME.fullmatch(path.name)
    if named is None:
        return
    try:
        with path.open("rb") as file:
            status = path.stat()
            stamp = status.st_size, status.st_mtime_ns, status.st_ctime_ns
            if _verified.get(path) == stamp and not again:
                return
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedArraysError(path, f"cannot be read ({error.strerror})") from error
    if status.st_size != int(named["size"]) or digest != named["sha256"]:
        raise DamagedArraysError(path, "is damaged: its bytes are not those that were written")
    _verified[path] = stamp
