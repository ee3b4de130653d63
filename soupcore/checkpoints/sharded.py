"""Sharded checkpoints, the form in which Hugging Face saves large models."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import torch

from soupcore.checkpoints.bounded_json import parse_object
from soupcore.checkpoints.checkpoint import Checkpoint
from soupcore.checkpoints.recognition import INDEX_SUFFIXES, LARGEST_INDEX, suffix_of
from soupcore.errors import CheckpointError
from soupcore.safe_torch.refusal import WAIT


class ShardedCheckpoint(Checkpoint):
    """Several files that together hold one model."""

    def __init__(self, path: Path, shards: Sequence[Checkpoint]) -> None:
        self._shard_of: dict[str, Checkpoint] = {}
        self._shards = shards
        for shard in shards:
            for name in shard.tensors:
                if name in self._shard_of:
                    raise CheckpointError(
                        f"{path}: tensor {name!r} is in both "
                        f"{self._shard_of[name].path.name} and {shard.path.name}.",
                        "Keep only the shards of one checkpoint.",
                    )
                self._shard_of[name] = shard
        super().__init__(
            path,
            {name: info for shard in shards for name, info in shard.tensors.items()},
            shards[0].metadata,
            tuple(shard.path for shard in shards),
        )
        self.details = shards[0].details
        self.notes = tuple(chain.from_iterable(shard.notes for shard in shards))
        self.ties = tuple(chain.from_iterable(shard.ties for shard in shards))

    def read_elements(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read part of a tensor; see `Checkpoint.read_elements`."""
        return self._shard_of[name].read_elements(name, start, stop)

    def read_into(self, name: str, start: int, out: torch.Tensor) -> None:
        """Read part of a tensor into a buffer; see `Checkpoint.read_into`."""
        self._shard_of[name].read_into(name, start, out)

    @property
    def checksummed(self) -> frozenset[str]:
        """The checksummed tensors of all shards; see `Checkpoint.checksummed`."""
        return frozenset(chain.from_iterable(shard.checksummed for shard in self._shards))

    def check_integrity(
        self,
        on_bytes: Callable[[int], None] = lambda nbytes: None,
        checksums: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Verify the checksums of each shard; see `Checkpoint.check_integrity`."""
        for shard in self._shards:
            of_shard = {name: crc for name, crc in checksums.items() if name in shard.tensors}
            shard.check_integrity(on_bytes, of_shard)


def open_index(index: Path, open_shard: Callable[[Path], Checkpoint]) -> ShardedCheckpoint:
    """Open the shards that a `*.index.json` file lists.

    Args:
        index: The index, in Hugging Face's format.
        open_shard: Opens one shard.

    Raises:
        CheckpointError: The index is damaged, a shard is missing, or index and shards disagree.
    """
    weight_map = _read_weight_map(index)
    shard_names = sorted(set(weight_map.values()))
    for name in shard_names:
        _check_inside(index, name)
    shards = {name: open_shard(index.parent / name) for name in shard_names}
    checkpoint = ShardedCheckpoint(index, [*shards.values()])
    found = {(tensor, name) for name, shard in shards.items() for tensor in shard.tensors}
    if differing := weight_map.items() ^ found:
        tensor, name = min(differing)
        raise CheckpointError(
            f"{index}: the index and the shards disagree on tensor {tensor!r} in {name}.",
            "Copy or download them all again.",
        )
    return checkpoint


def _read_weight_map(index: Path) -> Mapping[str, str]:
    with index.open("rb") as file:
        content = file.read(LARGEST_INDEX + 1)
    if len(content) > LARGEST_INDEX:
        raise CheckpointError(
            f"{index} is larger than {LARGEST_INDEX} bytes, the limit for shard indices."
        )
    try:
        weight_map = parse_object(content).get("weight_map")
    except ValueError as error:
        raise CheckpointError(
            f"{index} is not a shard index: {error}.", "Copy or download it again."
        ) from None
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(name, str) for name in weight_map.values())
    ):
        raise CheckpointError(
            f"{index} is not a shard index: it has no weight_map of tensors and file names."
        )
    return weight_map


def _check_inside(index: Path, name: str) -> None:
    """Check that a shard is in the folder of its index.

    The index is untrusted, so neither a name in it nor a symbolic link may lead out of the folder.
    The exception is Hugging Face's cache, where all files are links to blobs.
    """
    if name in ("", ".", "..") or not name.isprintable() or any(mark in name for mark in "/\\"):
        raise CheckpointError(f"{index}: the shard {name!r} is not a plain file name.")
    if suffix_of(Path(name)) in INDEX_SUFFIXES:
        raise CheckpointError(f"{index}: the shard {name} is an index, not a file of weights.")
    shard = index.parent / name
    if not shard.is_file():
        raise CheckpointError(
            f"{index}: the shard {name} is missing.", f"Copy it beside the index. {WAIT}"
        )
    folder = index.parent.resolve()
    blobs = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else folder
    if shard.resolve().parent not in (folder, blobs):
        raise CheckpointError(
            f"{index}: the shard {name} is a link to a file outside of the folder.",
            "Copy the file into the folder.",
        )
