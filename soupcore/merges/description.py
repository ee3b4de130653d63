"""From the description of a merge to the merge."""

from collections.abc import Callable, Mapping
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
