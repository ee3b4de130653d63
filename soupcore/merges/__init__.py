"""Merges that are not one mixture for all tensors: checkpoints computed while they are read."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from soupcore.checkpoints import Checkpoint
from soupcore.errors import CheckpointError
from soupcore.merges.dare import Dare
from soupcore.merges.derived import Derived
from soupcore.merges.grouped import Fixed, Group, Grouped, as_mixed, own_of
from soupcore.merges.lora import LowRank, MergedAdapter
from soupcore.merges.ties import Ties

__all__ = [
    "Dare",
    "Derived",
    "Fixed",
    "Group",
    "Grouped",
    "LowRank",
    "MergedAdapter",
    "Ties",
    "as_mixed",
    "merge_from_json",
    "own_of",
    "with_sources",
]

_METHODS = {merge.method: merge for merge in (Grouped, Fixed, MergedAdapter, Ties, Dare)}


def merge_from_json(body: Mapping[str, Any], checkpoint_of: Callable[[str], Checkpoint]) -> Derived:
    """Recreate a merge from the JSON of `Derived.to_json`.

    Args:
        body: The description.
        checkpoint_of: Returns a source by its name.

    Raises:
        CheckpointError: The method is unknown.
    """
    merge = _METHODS.get(body["method"])
    if merge is None:
        raise CheckpointError(
            f"Unknown merge method {body['method']!r}; this version of Stockpot supports "
            f"{', '.join(_METHODS)}. Use the version that made the soup."
        )
    return merge.from_json(body, checkpoint_of)


def with_sources(checkpoints: Iterable[Checkpoint]) -> dict[str, Checkpoint]:
    """Return checkpoints and, recursively, all of their sources: `{digest: checkpoint}`."""
    by_digest: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        by_digest[checkpoint.digest] = checkpoint
        if isinstance(checkpoint, Derived):
            by_digest |= with_sources(checkpoint.sources)
    return by_digest
