"""Hold out some examples of the select split for reporting.

Scores on the examples used for selection are optimistic. A task without a test split can hold out
some of its validation data for an unbiased score.
"""

import hashlib
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.tasks.description import Role
from soupcore.tasks.task import Part, Split


class HeldOut(Part):
    """Some examples of a split with another role.

    Args:
        whole: The split.
        n: Number of examples.
        seed: The same seed chooses the same examples.
        role: Role of the new split.
    """

    def __init__(self, whole: Split, n: int, seed: int, role: Role) -> None:
        super().__init__(whole, n, seed)
        self.role = role


class Rest(Part):
    """The examples of a split that are not held out.

    Args:
        held_out: The held-out examples.
    """

    def __init__(self, held_out: Part) -> None:
        super().__init__(held_out.whole, len(held_out.whole) - len(held_out))
        self._held_out = held_out

    @cached_property
    def rows(self) -> Tensor:
        """Indices of the examples in the whole split, ascending, int64, shape [n]."""
        is_rest = torch.ones(len(self.whole), dtype=torch.bool)
        is_rest[self._held_out.rows] = False
        return is_rest.nonzero().flatten()

    @cached_property
    def digest(self) -> str:
        """Identity of the data: 64 hex digits over the whole and the held-out part."""
        return hashlib.sha256(f"rest {self._held_out.digest}".encode()).hexdigest()


def hold_out(
    splits: Mapping[str, Split], share: float, seed: int = 0, name: str = "report"
) -> dict[str, Split]:
    """Hold out a part of the select split for reporting.

    If targets are classes, both parts are stratified: each class has its share of the whole split,
    to within one example.

    Args:
        splits: The splits of a task, with `select` and without `report` among their roles.
        share: Share of the examples to hold out, between 0 and 1; rounded to a whole number of
            examples, at least one.
        seed: The same seed chooses the same examples.
        name: Name of the new split.

    Returns:
        The splits, with a smaller select split and the new split.

    Raises:
        TaskError: There is a report split or no select split, or the share leaves no examples.
    """
    reports = [each for each, split in splits.items() if split.role == "report"]
    selects = [each for each, split in splits.items() if split.role == "select"]
    if reports or name in splits:
        raise TaskError(
            f"There already is a report split, {[*reports, name][0]!r}, so none can be held out. "
            "Remove one of the two."
        )
    if len(selects) != 1:
        raise TaskError("Holding out examples needs exactly one split with the role 'select'.")
    whole = splits[selects[0]]
    if not 0 < share < 1 or len(whole) < 2:
        raise TaskError(
            "The share to hold out must be between 0 and 1, of at least two examples; "
            f"it is {share!r} of {len(whole)}."
        )
    n = min(max(1, round(share * len(whole))), len(whole) - 1)
    held_out = HeldOut(whole, n, seed, "report")
    return {**splits, selects[0]: Rest(held_out), name: held_out}
