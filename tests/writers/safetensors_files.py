"""Weights written as safetensors, in one file or in shards."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from soupcore.writers.safetensors import write_safetensors, write_sharded
from tests.helpers import infos


def write(
    path: Path,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    shard_size: int | None = None,
    pieces: int = 1,
    on_bytes: Callable[[int], None] = lambda nbytes: None,
) -> list[Path]:
    """Write each tensor in pieces, and return the files."""

    def chunks(name: str) -> tuple[Tensor, ...]:
        return state[name].flatten().tensor_split(pieces)

    if shard_size is None:
        write_safetensors(path, infos(state), chunks, metadata or {}, on_bytes)
        return [path]
    return write_sharded(path, infos(state), chunks, metadata or {}, shard_size, on_bytes)
