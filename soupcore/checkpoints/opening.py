"""From a path to a checkpoint: which format it is, and whether it is one at all."""

import os
import re
from pathlib import Path

from natsort import natsorted

from soupcore.checkpoints.checkpoint import Checkpoint
from soupcore.checkpoints.not_weights import BEGINNING, check_beginning
from soupcore.checkpoints.safetensors_format import SafetensorsCheckpoint
from soupcore.checkpoints.sharded import ShardedCheckpoint, open_index
from soupcore.checkpoints.torch_format import TorchCheckpoint
from soupcore.errors import CheckpointError

INDEX_SUFFIX = ".safetensors.index.json"
INDEX_SUFFIXES = (INDEX_SUFFIX, ".bin.index.json")
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pt.tar", ".pth.tar")
_SUFFIXES = (".safetensors", *TORCH_SUFFIXES, *INDEX_SUFFIXES)
# Where Ultralytics, Lightning and Hugging Face's Trainer put the weights of a run, as patterns.
RUN_FOLDERS = ("weights", "checkpoints", "checkpoint-*")
_SHARD_NUMBER = re.compile(r"-\d+-of-(?P<total>\d+)(?P<suffix>\.(safetensors|bin))$", re.IGNORECASE)

# What training tools leave beside the weights: states of the optimizer, of the learning rate and of
# random numbers, and arguments (Hugging Face's Trainer and Accelerate).
_LEFTOVER = re.compile(
    r"(optimizer|scheduler|scaler|sampler)(_\d+)?\.(pt|bin)|rng_state(_\d+)?\.pth|training_args\.bin"
)


def suffix_of(path: Path) -> str:
    """Return the suffix of a file of weights, in lower case: `.pth.tar`; "" for other files."""
    name = path.name.lower()
    return next((end for end in _SUFFIXES if name.endswith(end) and name != end), "")


def stem_of(path: Path) -> str:
    """Return the name of a file of weights without the whole of its suffix."""
    return path.name[: len(path.name) - len(suffix_of(path))]


def is_checkpoint_name(path: Path) -> bool:
    """Whether a file's name says that it holds weights (a shard index counts, its shards too)."""
    return suffix_of(path) != ""


def is_leftover(path: Path) -> bool:
    """Whether a file is one that training tools leave beside the weights, by its exact name."""
    return _LEFTOVER.fullmatch(path.name) is not None


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a folder that hold weights by their names, sorted; shard indices too."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".")
        and is_checkpoint_name(entry)
        and not is_leftover(entry)
        and entry.is_file()
    )


def folders_of_run(folder: Path) -> list[Path]:
    """Return the folders that hold a run's weights: its own, or those in it, natural order."""
    if weight_files(folder):
        return [folder]
    inner = [below for pattern in RUN_FOLDERS for below in natsorted(folder.glob(pattern))]
    return [below for below in inner if below.is_dir() and weight_files(below)]


def index_of_shard(name: str) -> str:
    """Return the name of the index that a shard belongs to by its name; "" where it is none."""
    number = _SHARD_NUMBER.search(name)
    return f"{name[: number.start()]}{number['suffix']}.index.json" if number else ""


def open_checkpoint(path: str | Path, weights: str | None = None) -> Checkpoint:
    """Open a checkpoint by reading its header only. No code in it is executed.

    Args:
        path: A `.safetensors` file; a `.pt`, `.pth`, `.bin`, `.ckpt` or `.pth.tar` file that torch
            wrote (a state dict, a model, or a training run's checkpoint); a `*.index.json` of
            shards; or a folder with one checkpoint in it.
        weights: Which set of weights to open, where a file has several, by its name (see
            `Checkpoint.weight_sets`); the one to take by convention unless given.

    Raises:
        CheckpointError: The file is missing, damaged, or not a checkpoint.
    """
    checkpoint = _open(Path(path), weights)
    # A torch file looks for the name itself; it knows that of a set that is its only one, too.
    if weights and not isinstance(checkpoint, TorchCheckpoint):
        raise CheckpointError(f"{path} has one set of weights only, none named {weights!r}.")
    return checkpoint


def _open(path: Path, weights: str | None) -> Checkpoint:
    if path.is_dir():
        return _open_folder(path, weights)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.")
    if not is_checkpoint_name(path):
        raise CheckpointError(
            f"{path} is not a checkpoint by its name; expected {', '.join(_SUFFIXES)}."
        )
    if suffix_of(path) in INDEX_SUFFIXES:
        return open_index(path, _open_file)
    return _open_file(path, weights)


def _open_file(path: Path, weights: str | None = None) -> Checkpoint:
    # What a file is, its first bytes say; names are given by people and by download tools.
    with path.open("rb") as file:
        beginning = file.read(BEGINNING)
        size = file.seek(0, os.SEEK_END)
    header_size = int.from_bytes(beginning[:8], "little")
    if beginning[8:9] == b"{" and header_size <= size - 8:
        return SafetensorsCheckpoint(path)
    check_beginning(path, beginning)
    if suffix_of(path) == ".safetensors" and not beginning.startswith((b"PK\3\4", b"\x80")):
        return SafetensorsCheckpoint(path)
    try:
        return TorchCheckpoint(path, weights)
    except CheckpointError as error:
        if suffix_of(path) != ".safetensors":
            raise
        problem = f"{error.problem} (Whatever its name, it is no safetensors file.)"
        raise CheckpointError(problem, error.way_out) from None


def _open_folder(folder: Path, weights: str | None) -> Checkpoint:
    folders = folders_of_run(folder)
    if len(folders) > 1:
        raise _several_folders(folder, [below.name for below in folders])
    files = weight_files(folders[0]) if folders else []
    indices = [file for file in files if suffix_of(file) == INDEX_SUFFIX] or [
        file for file in files if suffix_of(file) in INDEX_SUFFIXES
    ]
    shards = [file for file in files if suffix_of(file) == ".safetensors"]
    if len(indices) == 1:
        return open_index(indices[0], _open_file)
    if shards and not indices:
        _check_complete(folder, [shard.name for shard in shards])
        if len(shards) == 1:
            return _open_file(shards[0], weights)
        return ShardedCheckpoint(folder, [_open_file(shard) for shard in shards])
    names = [file.name for file in files]
    if not indices:
        _check_no_shards(folder, names)
    if len(files) == 1:
        return _open_file(files[0], weights)
    if names == ["best.pt", "last.pt"]:  # a run of Ultralytics, which goes on with best.pt itself
        checkpoint = _open_file(files[0], weights)
        checkpoint.notes += ("best.pt was opened, and not last.pt, which lies beside it.",)
        return checkpoint
    raise _not_clear(folder, names)


def _several_folders(folder: Path, names: list[str]) -> CheckpointError:
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return CheckpointError(
        f"{folder} holds {len(names)} folders with weights ({shown}), so it is not clear what to "
        "open.",
        "Keep one of them there; or take this folder for a sweep of its own.",
    )


def _not_clear(folder: Path, names: list[str]) -> CheckpointError:
    if not names:
        is_empty = next(folder.iterdir(), None) is None
        problem = "is an empty folder" if is_empty else "is a folder that holds no file of weights"
        return CheckpointError(f"{folder} {problem}.", "Put a checkpoint there, or remove it.")
    shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return CheckpointError(
        f"{folder} holds {len(names)} files of weights ({shown}), so it is not clear what to open.",
        "Keep one of them there, or give each a folder of its own.",
    )


def _check_no_shards(folder: Path, names: list[str]) -> None:
    """Make sure that torch's files, which have no index, are no parts of one checkpoint."""
    for name in names:
        number = _SHARD_NUMBER.search(name)
        if number and int(number["total"]) > 1:
            raise CheckpointError(
                f"{folder} holds shards of a checkpoint ({name}, …) without their index, "
                f"{index_of_shard(name)}.",
                "Copy it beside them.",
            )


def _check_complete(folder: Path, shards: list[str]) -> None:
    """Make sure that shards without an index are all that their names say there are."""
    numbered = [match for shard in shards if (match := _SHARD_NUMBER.search(shard))]
    if any(int(match["total"]) != len(shards) for match in numbered):
        raise CheckpointError(
            f"{folder} holds {len(shards)} safetensors files and no index, but by its name "
            f"{numbered[0].string} is one of {int(numbered[0]['total'])}.",
            "Copy the missing ones.",
        )
