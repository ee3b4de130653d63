"""Holding out some examples of the select split, to report on.

Scores on the examples that recipes choose on are optimistic. A task without a test split can give
up some of its validation data for an unbiased score.
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
    """Some examples of a split, for another role.

    Args:
        whole: The split.
        n: How many of its examples.
        seed: The same seed chooses the same examples.
        role: What they are for.
    """

    def __init__(self, whole: Split, n: int, seed: int, role: Role) -> None:
        super().__init__(whole, n, seed)
        self.role = role


class Rest(Part):
    """The examples of a split that are not held out.

    Args:
        held_out: The others.
    """

    def __init__(self, held_out: Part) -> None:
        super().__init__(held_out.whole, len(held_out.whole) - len(held_out))
        self._held_out = held_out

    @cached_property
    def rows(self) -> Tensor:
        """Which examples of the whole these are, ascending, int64, shape [n]."""
        is_rest = torch.ones(len(self.whole), dtype=torch.bool)
        is_rest[self._held_out.rows] = False
        return is_rest.nonzero().flatten()

    @cached_property
    def digest(self) -> str:
        """Identity of the data: 64 hex digits over those of the whole and of the others."""
        return hashlib.sha256(f"rest {self._held_out.digest}".encode()).hexdigest()


def hold_out(
    splits: Mapping[str, Split], share: float, seed: int = 0, name: str = "report"
) -> dict[str, Split]:
    """Hold out a part of the select split to report on.

    Where targets are classes, both parts have of each class the share that the whole has, to within
    one example.

    Args:
        splits: The splits of a task, with `select` and without `report` among their roles.
        share: Which share of the examples is held out, between 0 and 1; rounded to a whole number
            of examples, at least one.
        seed: The same seed chooses the same examples.
        name: Name of the new split.

    Returns:
        The splits, the select split smaller, and the new one.

    Raises:
        TaskError: There is a report split or none to choose on, or the share leaves no examples.
    """
    reports = [each for each, split in splits.items() if split.role == "report"]
    selects = [each for each, split in splits.items() if split.role == "select"]
    if reports or name in splits:
        raise TaskError(
            f"There is a split {[*reports, name][0]!r} to report on, so none can be held out. "
            "Leave out one of the two."
        )
    if len(selects) != 1:
        raise TaskError("Holding out examples needs exactly one split with the role 'select'.")
    whole = splits[selects[0]]
    if not 0 < share < 1 or len(whole) < 2:
        raise TaskError(
            f"The share to hold out is between 0 and 1, of at least two examples; it is {share!r} "
            f"of {len(whole)}."
        )
    n = min(max(1, round(share * len(whole))), len(whole) - 1)
    held_out = HeldOut(whole, n, seed, "report")
    return {**splits, selects[0]: Rest(held_out), name: held_out}
