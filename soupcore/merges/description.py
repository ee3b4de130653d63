"""From the description of a merge to the merge, and from a merge to what it is computed from."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from soupcore.checkpoints import Checkpoint
from soupcore.errors import CheckpointError
from soupcore.merges.dare import Dare
from soupcore.merges.derived import Derived
from soupcore.merges.grouped import Grouped
from soupcore.merges.ties import Ties

_METHODS = {merge.method: merge for merge in (Grouped, Ties, Dare)}


def merge_from_json(body: Mapping[str, Any], checkpoint_of: Callable[[str], Checkpoint]) -> Derived:
    """Make the merge again that `Derived.to_json` described.

    Args:
        body: The description.
        checkpoint_of: Gives a source by its name.

    Raises:
        CheckpointError: There is no such method.
    """
    merge = _METHODS.get(body["method"])
    if merge is None:
        raise CheckpointError(
            f"This version of Stockpot knows no merge {body['method']!r}; it knows "
            f"{', '.join(_METHODS)}. Take the version that made the soup."
        )
    return merge.from_json(body, checkpoint_of)


def with_sources(checkpoints: Iterable[Checkpoint]) -> dict[str, Checkpoint]:
    """Return checkpoints and all that they are computed from: `{digest: checkpoint}`."""
    found: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        found[checkpoint.digest] = checkpoint
        if isinstance(checkpoint, Derived):
            found |= with_sources(checkpoint.sources)
    return found
