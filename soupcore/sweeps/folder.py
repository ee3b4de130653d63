"""Which checkpoints a folder holds, and what they are called."""

from pathlib import Path

from natsort import natsorted

from soupcore.checkpoints.digest import stamp
from soupcore.checkpoints.opening import (
    INDEX_SUFFIXES,
    RUN_FOLDERS,
    folders_of_run,
    index_of_shard,
    is_leftover,
    stem_of,
    suffix_of,
    weight_files,
)
from soupcore.errors import SweepError

_LOOKED_AT = ("*", "*/*", *(f"*/{inner}/*" for inner in RUN_FOLDERS))


def find_checkpoints(folder: Path) -> dict[str, Path]:
    """Return the checkpoints in a folder by the names they will have, in natural order.

    Sub-folders with files of weights are among them; which of the files is meant may not be clear.

    Raises:
        SweepError: The folder does not exist, or two checkpoints would have the same name.
    """
    _check_is_folder(folder)
    found: dict[str, Path] = {}
    for path in natsorted(_candidates(folder), key=lambda path: (_name(path), path.name)):
        name = _name(path)
        if name in found:
            raise SweepError(
                f"{folder} holds {found[name].name} and {path.name}, both named {name!r}; "
                "rename or remove one."
            )
        found[name] = path
    return found


def find_leftovers(folder: Path) -> list[str]:
    """Return the files that training tools left beside the weights, relative to the folder."""
    files = [file for pattern in _LOOKED_AT for file in folder.glob(pattern) if is_leftover(file)]
    return natsorted(file.relative_to(folder).as_posix() for file in files)


def folder_signature(folder: str | Path) -> str:
    """Return a text that changes when a file in the folder, or in one below it, changes."""
    folder = Path(folder)
    _check_is_folder(folder)
    files = [file for pattern in _LOOKED_AT for file in folder.glob(pattern) if file.is_file()]
    return stamp(sorted(files))


def _check_is_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise SweepError(f"{folder} is not a folder.")


def _name(path: Path) -> str:
    return path.name if path.is_dir() else stem_of(path)


def _candidates(folder: Path) -> list[Path]:
    files = weight_files(folder)
    indices = {file.name for file in files if suffix_of(file) in INDEX_SUFFIXES}
    shards_apart = [
        file for file in files if file.name in indices or index_of_shard(file.name) not in indices
    ]
    # Whether what a sub-folder holds is clear shows when it is opened, and is told then.
    runs = [
        entry
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".") and folders_of_run(entry)
    ]
    return shards_apart + runs
