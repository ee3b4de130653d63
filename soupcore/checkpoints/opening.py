"""From a path to a checkpoint: which format it is, and whether it is one at all."""

import re
from pathlib import Path

from soupcore.checkpoints.checkpoint import Checkpoint
from soupcore.checkpoints.safetensors_format import SafetensorsCheckpoint
from soupcore.checkpoints.sharded import ShardedCheckpoint, open_index
from soupcore.checkpoints.torch_format import TorchCheckpoint
from soupcore.errors import CheckpointError

INDEX_SUFFIX = ".safetensors.index.json"
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")

# What training tools leave beside the weights: states of the optimizer, of the learning rate and of
# random numbers, and arguments (Hugging Face's Trainer and Accelerate).
_LEFTOVER = re.compile(
    r"(optimizer|scheduler|scaler|sampler)(_\d+)?\.(pt|bin)|rng_state(_\d+)?\.pth|training_args\.bin"
)

_BEGINNING = 512  # bytes
# First bytes of what is no checkpoint but may bear the name of one, what it is, and the way out.
_OTHER_KINDS = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the weights",
        "Run `git lfs pull` in its folder.",
    ),
    (b"\x1f\x8b", "packed with gzip", "Unpack it."),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "Unpack it."),
    (b"Rar!", "a RAR archive", "Unpack it."),
    (b"\x89HDF", "an HDF5 file", "Convert the weights to safetensors."),
    (b"GGUF", "a GGUF file, whose weights are quantized", "Take the file it was converted from."),
)


def is_checkpoint_name(path: Path) -> bool:
    """Whether a file's name says that it holds weights (a shard index counts, its shards too)."""
    return path.name.endswith(INDEX_SUFFIX) or path.suffix in (".safetensors", *TORCH_SUFFIXES)


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


def open_checkpoint(path: str | Path, weights: str | None = None) -> Checkpoint:
    """Open a checkpoint by reading its header only. No code in it is executed.

    Args:
        path: A `.safetensors` file, a `.pt`/`.pth`/`.bin`/`.ckpt` file that holds a plain state
            dict, a `*.safetensors.index.json`, or a folder with one checkpoint in it.
        weights: Which set of weights to open, where a file has several, by its name (see
            `Checkpoint.weight_sets`); the one to take by convention unless given.

    Raises:
        CheckpointError: The file is missing, damaged, or not a checkpoint.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, weights)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist.")
    if path.name.endswith(INDEX_SUFFIX):
        return open_index(path)
    if path.suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise CheckpointError(
            f"{path} is not a checkpoint by its name; expected .safetensors, {INDEX_SUFFIX} or "
            f"{', '.join(TORCH_SUFFIXES)}."
        )
    return _open_file(path, weights)


def _open_file(path: Path, weights: str | None) -> Checkpoint:
    # What a file is, its first bytes say; names are given by people and by download tools.
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
    if not beginning:
        raise CheckpointError(f"{path} is empty.", "Copy or download it again.")
    for signature, what, way_out in _OTHER_KINDS:
        if beginning.startswith(signature):
            raise CheckpointError(f"{path} is {what}.", way_out)
    if beginning.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(
            f"{path} is a web page, not the weights: the download was answered with an error or a "
            "login page.",
            "Open it in a browser to see which, and download it again.",
        )
    if beginning[257:262] == b"ustar":
        raise CheckpointError(
            f"{path} is a tar archive.",
            "If a checkpoint was packed into it, unpack it; if torch before 0.1.10 wrote it, load "
            "it with torch and save it again.",
        )
    is_safetensors = beginning[8:9] == b"{"  # after the length of its header
    is_torch = beginning.startswith((b"PK\3\4", b"\x80"))
    if is_safetensors or (path.suffix == ".safetensors" and not is_torch):
        return SafetensorsCheckpoint(path)
    return TorchCheckpoint(path, weights)


def _open_folder(folder: Path, weights: str | None) -> Checkpoint:
    files = weight_files(folder)
    indices = [file for file in files if file.name.endswith(INDEX_SUFFIX)]
    shards = [file for file in files if file.suffix == ".safetensors"]
    if len(indices) == 1:
        return open_index(indices[0])
    if len(shards) == 1 and not indices:
        return SafetensorsCheckpoint(shards[0])
    if shards and not indices:
        return ShardedCheckpoint(folder, [SafetensorsCheckpoint(shard) for shard in shards])
    if len(files) == 1:
        return _open_file(files[0], weights)
    names = f" ({', '.join(file.name for file in files[:3])}, …)" if files else ""
    raise CheckpointError(
        f"{folder} holds {len(files)} files of weights{names}, so it is not clear what to open.",
        "Keep the files of one checkpoint in a folder.",
    )
