"""Files of arrays, named after their content so that damage is detected.

The name of a file contains the SHA-256 and the number of its bytes. A missing or truncated file is
detected without reading it. Changed bytes are detected when a process first reads the file.
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
# Earlier versions named their files differently. These have no digest to compare with, so they
# count as damaged only if they cannot be read.
_NAME = re.compile(r"(?P<sha256>[0-9a-f]{64})-(?P<size>[0-9]+)\.safetensors")

# `{path: size and times}` of the files that this process has verified.
_verified: dict[Path, tuple[int, int, int]] = {}


class DamagedArraysError(StoreError):
    """A file of arrays is missing, or its bytes have changed.

    Attributes:
        problem: The problem, as a predicate whose subject is the file.
    """

    def __init__(self, path: Path, problem: str) -> None:
        self.problem = problem
        super().__init__(f"{path} {problem}. Its contents have to be evaluated again.")


def write_arrays(
    folder: Path, arrays: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> str:
    """Write arrays to a new file and wait until it is on disk.

    Args:
        folder: The workspace folder.
        arrays: The arrays, by name.
        metadata: Strings to store in the header of the file.

    Returns:
        Path of the file, relative to the folder.
    """
    return write_content(folder, save(dict(arrays), dict(metadata)))


def write_content(folder: Path, content: bytes) -> str:
    """Write the serialised bytes of a file of arrays; see `write_arrays`."""
    relative = place_of(hashlib.sha256(content).hexdigest(), len(content))
    private_folder((folder / relative).parent)
    with new_file(folder / relative) as file:
        file.write(content)
    return str(relative)


def place_of(sha256: str, size: int) -> Path:
    """Return the path of the file with this content, relative to the workspace folder."""
    return Path(ARRAYS) / sha256[:2] / f"{sha256}-{size}.safetensors"


def looks_whole(path: Path) -> bool:
    """Return whether a file exists and has the size in its name, without reading it."""
    named = _NAME.fullmatch(path.name)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return False
    return size == int(named["size"]) if named else size > 0


def read_array(path: Path, name: str, place: int | None = None) -> torch.Tensor:
    """Return one array of a file, or one row of an array in which several are stacked.

    Args:
        path: The file.
        name: Name of the array.
        place: Index along the first dimension; None for the whole array.

    Raises:
        DamagedArraysError: The file is missing, or its bytes have changed.
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
        DamagedArraysError: The file is missing, or its bytes have changed.
    """
    verify(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedArraysError(path, f"cannot be read ({error})") from error


def verify(path: Path, *, again: bool = False) -> None:
    """Compare a file with its SHA-256, once per process unless the file changes.

    Args:
        path: The file. Files of earlier versions, without a SHA-256 in their names, pass.
        again: Read the file even if this process has verified it before.

    Raises:
        DamagedArraysError: The file is missing, or its bytes have changed.
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
