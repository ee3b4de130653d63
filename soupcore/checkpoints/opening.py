"""From a path to a checkpoint: which format it is, and whether it is one at all."""

from pathlib import Path

from soupcore.checkpoints.checkpoint import Checkpoint
from soupcore.checkpoints.safetensors_format import SafetensorsCheckpoint
from soupcore.checkpoints.sharded import ShardedCheckpoint, open_index
from soupcore.checkpoints.torch_format import TorchCheckpoint
from soupcore.errors import CheckpointError

INDEX_SUFFIX = ".safetensors.index.json"
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")

_BEGINNING = 512  # bytes
# First bytes of what is no checkpoint but may bear the name of one, what it is, and the way out.
_OTHER_KINDS = (
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the weights",
        "run `git lfs pull` in its folder",
    ),
    (b"\x1f\x8b", "packed with gzip", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\x89HDF", "an HDF5 file", "convert the weights to safetensors"),
    (b"GGUF", "a GGUF file, whose weights are quantized", "take the file it was converted from"),
)


def is_checkpoint_name(path: Path) -> bool:
    """Whether a file's name says that it holds weights (a shard index counts, its shards too)."""
    return path.name.endswith(INDEX_SUFFIX) or path.suffix in (".safetensors", *TORCH_SUFFIXES)


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
        return _open_folder(path)
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
        raise CheckpointError(f"{path} is empty; copy or download it again.")
    for signature, what, way_out in _OTHER_KINDS:
        if beginning.startswith(signature):
            raise CheckpointError(f"{path} is {what}; {way_out}.")
    if beginning.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(
            f"{path} is a web page, not the weights: the download was answered with an error or a "
            "login page. Open it in a browser to see which, and download it again."
        )
    if beginning[257:262] == b"ustar":
        raise CheckpointError(
            f"{path} is a tar archive. If a checkpoint was packed into it, unpack it; if torch "
            "before 0.1.10 wrote it, load it with torch and save it again."
        )
    is_safetensors = beginning[8:9] == b"{"  # after the length of its header
    is_torch = beginning.startswith((b"PK\3\4", b"\x80"))
    if is_safetensors or (path.suffix == ".safetensors" and not is_torch):
        return SafetensorsCheckpoint(path)
    return TorchCheckpoint(path, weights)


def _open_folder(folder: Path) -> Checkpoint:
    indices = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    if len(indices) == 1:
        return open_index(indices[0])
    shards = sorted(folder.glob("*.safetensors"))
    if shards and not indices:
        if len(shards) == 1:
            return SafetensorsCheckpoint(shards[0])
        return ShardedCheckpoint(folder, [SafetensorsCheckpoint(shard) for shard in shards])
    raise CheckpointError(
        f"{folder} holds {len(indices)} shard indices and {len(shards)} safetensors files; "
        "name the one to open."
    )
