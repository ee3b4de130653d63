"""Write safetensors files, chunk by chunk: one file, or several shards and an index.

The `safetensors` package needs all tensors in memory to write a file, but soups of large models
have to be streamed. The format is simple: an unsigned 64-bit header length, a JSON header, then the
tensors' bytes without gaps (https://huggingface.co/docs/safetensors). The tests load every written
file with that package.

Names, order and index of shards follow `save_pretrained` of transformers, so `from_pretrained`
finds a folder with `model.safetensors.index.json` in it:
https://huggingface.co/docs/transformers/big_models#sharded-checkpoints
"""

import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import torch

from soupcore.checkpoints.checkpoint import TensorInfo
from soupcore.checkpoints.dtypes import DTYPE_NAMES, raw_bytes
from soupcore.errors import CheckpointError
from soupcore.new_files import NewFile, new_file

MOST_SHARDS = 500  # all are open until the last one is complete
_ALIGNMENT = 8


def write_safetensors(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    chunks: Callable[[str], Iterable[torch.Tensor]],
    metadata: Mapping[str, str],
    on_bytes: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Write a safetensors file, header first, then chunk by chunk.

    Memory does not depend on the size of the model. The file appears under its name only when it is
    complete and on disk, with mode 0644 minus the umask.

    Args:
        path: Path of the file; an existing file is replaced.
        tensors: `{name: TensorInfo}` of the file.
        chunks: `chunks(name)` yields the tensor's elements in order, as 1-D tensors of its dtype.
        metadata: Text to store in the header.
        on_bytes: Called with the number of bytes written since the last call; raise in it to stop,
            which removes all new files.

    Raises:
        CheckpointError: The chunks of a tensor have a wrong number of elements.
    """
    with new_file(Path(path)) as file:
        _write_into(file, tensors, chunks, metadata, on_bytes)


def split_into_shards(tensors: Mapping[str, TensorInfo], shard_size: int) -> list[list[str]]:
    """Distribute tensors to shards in their order.

    Args:
        tensors: `{name: TensorInfo}`.
        shard_size: Maximum size of the tensors in a shard in bytes; a larger tensor gets its own
            shard.

    Raises:
        CheckpointError: There would be more than `MOST_SHARDS` shards.
    """
    shards: list[list[str]] = [[]]
    size = 0
    for name, info in tensors.items():
        if shards[-1] and size + info.nbytes > shard_size:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += info.nbytes
    if len(shards) > MOST_SHARDS:
        raise CheckpointError(
            f"A size of {shard_size:,} bytes gives {len(shards)} shards; the limit is "
            f"{MOST_SHARDS}. Choose larger shards."
        )
    return shards


def write_sharded(
    path: Path,
    tensors: Mapping[str, TensorInfo],
    chunks: Callable[[str], Iterable[torch.Tensor]],
    metadata: Mapping[str, str],
    shard_size: int,
    on_bytes: Callable[[int], None] = lambda nbytes: None,
) -> list[Path]:
    """Write `model-00001-of-00003.safetensors` and so on, and `model.safetensors.index.json`.

    The files get their names when all of them are complete and on disk, the index last. An earlier
    model of the same name is removed just before that. So an index never refers to missing shards
    or to shards of another model.

    Args:
        path: Path for a single file: `folder/model.safetensors`. It is used if one shard suffices.
        tensors: `{name: TensorInfo}` of all files.
        chunks: `chunks(name)` yields the tensor's elements in order, as 1-D tensors of its dtype.
        metadata: Text to store in the header of each shard.
        shard_size: Maximum size of the tensors in a shard in bytes; a larger tensor gets its own
            shard.
        on_bytes: Called with the number of bytes written since the last call; raise in it to stop,
            which removes all new files.

    Returns:
        The files, the index last.

    Raises:
        CheckpointError: There would be too many shards, or the chunks of a tensor have a wrong
            number of elements.
    """
    shards = split_into_shards(tensors, shard_size)
    if len(shards) == 1:
        write_safetensors(path, tensors, chunks, metadata, on_bytes)
        return [path]
    files = [
        path.with_name(f"{path.stem}-{number:05d}-of-{len(shards):05d}.safetensors")
        for number in range(1, len(shards) + 1)
    ]
    index = path.with_name(f"{path.stem}.safetensors.index.json")
    with ExitStack() as stack:
        pending = []
        for file, names in zip(files, shards, strict=True):
            new = stack.enter_context(NewFile(file))
            _write_into(
                new.file, {name: tensors[name] for name in names}, chunks, metadata, on_bytes
            )
            new.finish()
            pending.append(new)
        new_index = stack.enter_context(NewFile(index))
        new_index.file.write(_index(tensors, dict(zip(files, shards, strict=True))))
        new_index.finish()
        _remove_earlier(index, path.stem)
        for new in (*pending, new_index):
            new.publish()
    return [*files, index]


def _write_into(
    file: BinaryIO,
    tensors: Mapping[str, TensorInfo],
    chunks: Callable[[str], Iterable[torch.Tensor]],
    metadata: Mapping[str, str],
    on_bytes: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Write the safetensors format to an open file; see `write_safetensors`."""
    names = _aligned_order(tensors)
    file.write(_header_bytes(names, tensors, metadata))
    for name in names:
        written = 0
        for chunk in chunks(name):
            raw = raw_bytes(chunk.contiguous())
            file.write(raw)
            written += chunk.numel()
            on_bytes(len(raw))
        _check_count(name, written, tensors[name].numel)


def _check_count(name: str, written: int, expected: int) -> None:
    if written != expected:
        raise CheckpointError(
            f"Tensor {name!r} yielded {written} elements instead of {expected}; "
            "nothing was written."
        )


def _aligned_order(tensors: Mapping[str, TensorInfo]) -> list[str]:
    # Loaders map tensors in place, so each has to start at a multiple of its element size. If the
    # given order achieves this, it is kept. Otherwise tensors are sorted by element size, widest
    # first, as in the safetensors package; the sort is stable.
    end = 0
    for info in tensors.values():
        if end % info.dtype.itemsize:
            return sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
        end += info.nbytes
    return list(tensors)


def _header_bytes(
    names: list[str], tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str]
) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        info = tensors[name]
        header[name] = {
            "dtype": DTYPE_NAMES[info.dtype],
            "shape": list(info.shape),
            "data_offsets": [end, end + info.nbytes],
        }
        end += info.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text


def _index(tensors: Mapping[str, TensorInfo], shards: Mapping[Path, list[str]]) -> bytes:
    body = {
        "metadata": {"total_size": sum(info.nbytes for info in tensors.values())},
        "weight_map": {name: file.name for file, names in shards.items() for name in names},
    }
    return (json.dumps(body, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _remove_earlier(index: Path, stem: str) -> None:
    # The index first: no loader accepts shards without one, including ours.
    if not index.exists():
        return
    index.unlink()
    shard = re.compile(rf"{re.escape(stem)}-\d+-of-\d+\.safetensors")
    for path in list(index.parent.iterdir()):
        if shard.fullmatch(path.name):
            path.unlink()
