"""Some examples of a split: a random part, and a part held out for reporting."""

import hashlib
from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.tasks.decoding import rows_on_disk
from soupcore.tasks.description import Role, part_digest
from soupcore.tasks.examples import Examples, Leaf, take
from soupcore.tasks.splits import Shown, Split


class Part(Split):
    """Some examples of a split, drawn at random when first needed.

    If targets are classes (one integer per example), the part is stratified: each class, and each
    group within a class, has its share of the whole, to within one example. Otherwise all examples
    are equally likely.

    Args:
        whole: The split.
        n: Number of examples, fewer than all.
        seed: The same seed chooses the same examples.

    Attributes:
        whole: The split.
    """

    def __init__(self, whole: Split, n: int, seed: int = 0) -> None:
        self.role = whole.role
        self.prepare = whole.prepare
        self.whole = whole
        self._n = n
        self._seed = seed

    def load(
        self, on_examples: Callable[[int, int], None] = lambda done, total: None
    ) -> tuple[Examples, Examples]:
        """Return inputs and targets of the part, in the order of the whole.

        Args:
            on_examples: As for the whole, which is decoded first if needed.
        """
        self.whole.load(on_examples)
        return self._chosen

    @property
    def is_loaded(self) -> bool:
        """Whether `load` has nothing to decode."""
        return self.whole.is_loaded

    @property
    def is_on_disk(self) -> bool:
        """Whether the data is mapped from disk, as for the whole."""
        return self.whole.is_on_disk

    @cached_property
    def _chosen(self) -> tuple[Examples, Examples]:
        inputs, targets = self.whole.load()
        copied = rows_on_disk if self.is_on_disk else take
        return inputs.select(self.rows, copied), targets.select(self.rows, take)

    @cached_property
    def rows(self) -> Tensor:
        """Indices of the examples in the whole, ascending, int64, shape [n]."""
        order = torch.randperm(len(self.whole), generator=torch.Generator().manual_seed(self._seed))
        if self.whole.groups is not None:
            groups = torch.from_numpy(np.unique(self.whole.groups, return_inverse=True)[1])
            order = order[groups[order].argsort(stable=True)]
        classes = self.whole.classes()
        if classes is not None:
            order = order[classes[order].argsort(stable=True)]
        # Evenly spaced examples, sorted by class and by group within these, are stratified.
        places = (torch.arange(self._n) * 2 + 1) * len(order) // (2 * self._n)
        return order[places].sort().values

    @cached_property
    def groups(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """The groups of the chosen examples."""
        whole = self.whole.groups
        return None if whole is None else tuple(whole[row] for row in self.rows.tolist())

    @cached_property
    def weights(self) -> Tensor | None:  # type: ignore[override]
        """The weights of the chosen examples.

        Raises:
            TaskError: All weights are zero.
        """
        found = None if self.whole.weights is None else self.whole.weights[self.rows]
        if found is not None and not found.any():
            raise TaskError(
                f"All {len(self)} examples drawn from {len(self.whole)} have the weight zero. Draw "
                "more, or leave examples of weight zero out of the split."
            )
        return found

    @property
    def is_weighted(self) -> bool:
        """Whether examples have weights."""
        return self.whole.is_weighted

    @cached_property
    def token_weights(self) -> Leaf | None:  # type: ignore[override]
        """The weights of the tokens of the chosen examples."""
        whole = self.whole.token_weights
        if whole is None:
            return None
        return whole[self.rows] if isinstance(whole, Tensor) else whole.select(self.rows)

    def classes(self) -> Tensor | None:
        """Return the targets on the CPU if they are classes (one integer each), else None."""
        classes = self.whole.classes()
        return None if classes is None else classes[self.rows]

    @property
    def labels(self) -> Tensor | None:  # type: ignore[override]
        """The classes of the chosen examples, if those of the whole are known."""
        return None if self.whole.labels is None else self.whole.labels[self.rows]

    @property
    def shown(self) -> Callable[[int], Shown] | None:  # type: ignore[override]
        """Function that returns an example for display, by its index in the part."""
        of_whole = self.whole.shown
        return None if of_whole is None else lambda index: of_whole(int(self.rows[index]))

    def __len__(self) -> int:
        return self._n

    @cached_property
    def digest(self) -> str:
        """Identity of the data: 64 hex digits over the whole, n and the seed."""
        return part_digest(self.whole.digest, self._n, self._seed)


class _HeldOut(Part):
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


class _Rest(Part):
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

    Scores on the examples used for selection are optimistic. A task without a test split can hold
    out some of its validation data for an unbiased score.

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
    held_out = _HeldOut(whole, n, seed, "report")
    return {**splits, selects[0]: _Rest(held_out), name: held_out}
