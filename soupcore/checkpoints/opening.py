"""From a path to a checkpoint: which format it is, and whether it is one at all."""

from pathlib import Path

from soupcore.checkpoints.checkpoint import Checkpoint
from soupcore.checkpoints.safetensors_format import SafetensorsCheckpoint
from soupcore.checkpoints.sharded import ShardedCheckpoint, open_index
from soupcore.checkpoints.torch_format import TorchCheckpoint
from soupcore.errors import CheckpointError

INDEX_SUFFIX = ".safetensors.index.json"
TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")


def is_checkpoint_name(path: Path) -> bool:
    """Whether a file's name says that it holds weights (a shard index counts, its shards too)."""
    return path.name.endswith(INDEX_SUFFIX) or path.suffix in (".safetensors", *TORCH_SUFFIXES)


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a checkpoint by reading its header only. No code in it is executed.

    Args:
        path: A `.safetensors` file, a `.pt`/`.pth`/`.bin`/`.ckpt` file that holds a plain state
            dict, a `*.safetensors.index.json`, or a folder with one checkpoint in it.

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
    return (SafetensorsCheckpoint if path.suffix == ".safetensors" else TorchCheckpoint)(path)


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
