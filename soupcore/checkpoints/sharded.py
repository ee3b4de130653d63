"""A checkpoint spread over several safetensors files, as Hugging Face saves large models."""

import json
from pathlib import Path

import torch

from soupcore.checkpoints.checkpoint import Checkpoint
from soupcore.checkpoints.safetensors_format import SafetensorsCheckpoint
from soupcore.errors import CheckpointError


class ShardedCheckpoint(Checkpoint):
    """Several safetensors files that together hold one model."""

    def __init__(self, path: Path, shards: list[SafetensorsCheckpoint]) -> None:
        self._shard_of: dict[str, SafetensorsCheckpoint] = {}
        for shard in shards:
            for name in shard.tensors:
                if name in self._shard_of:
                    raise CheckpointError(
                        f"{path}: tensor {name!r} stands in both "
                        f"{self._shard_of[name].path.name} and {shard.path.name}.",
                        "Keep the shards of one checkpoint only.",
                    )
                self._shard_of[name] = shard
        super().__init__(
            path,
            {name: info for shard in shards for name, info in shard.tensors.items()},
            shards[0].metadata,
            tuple(shard.path for shard in shards),
        )

    def read_elements(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read part of a tensor; see `Checkpoint.read_elements`."""
        return self._shard_of[name].read_elements(name, start, stop)


def open_index(index: Path) -> ShardedCheckpoint:
    """Open the shards that a `*.safetensors.index.json` file lists.

    Raises:
        CheckpointError: The index is damaged, a shard is missing, or the two disagree.
    """
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        shard_names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{index} is not a shard index ({error!r}).", "Copy or download it again."
        ) from None
    for name in shard_names:
        # The index is data from elsewhere: it must not lead out of its own folder.
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index}: the shard {name!r} is not a plain file name.")
        if not (index.parent / name).is_file():
            raise CheckpointError(
                f"{index}: the shard {name} is missing.", "Copy it beside the index."
            )
    checkpoint = ShardedCheckpoint(
        index, [SafetensorsCheckpoint(index.parent / name) for name in shard_names]
    )
    if differing := set(weight_map) ^ set(checkpoint.tensors):
        raise CheckpointError(
            f"{index}: the index and the shards disagree on tensor {min(differing)!r}.",
            "Copy or download both again.",
        )
    return checkpoint
