"""The stored evaluations of a task, read without running it."""

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

from soupcore.errors import TaskError
from soupcore.evaluation.batchnorm import EXAMPLES, Estimate, StatisticsChoice
from soupcore.evaluation.evaluation import Evaluation
from soupcore.evaluation.records import Records
from soupcore.merges import as_mixed
from soupcore.mixtures import Mixture
from soupcore.tasks import TaskInfo

if TYPE_CHECKING:
    from soupcore.store import Store


class Evaluations:
    """The stored evaluations of a task.

    An `Evaluator` also computes those that are missing.

    Attributes:
        task: The task, or its description.
        store: Where the evaluations are.
        estimate: What BatchNorm's statistics are estimated on at each point; None where they are
            averaged as all weights are. See `with_statistics`.

    Args:
        task: The task, or its description.
        store: Where the evaluations are; the workspace's unless given.
    """

    task: TaskInfo[Any]

    def __init__(self, task: TaskInfo[Any], store: "Store | None" = None) -> None:
        from soupcore.store import Store  # loads SQLAlchemy

        self.task = task
        self.store = store or Store()
        self.estimate: Estimate | None = None
        self._records = Records(self.store, task)

    def with_statistics(self, statistics: StatisticsChoice, *, examples: int = EXAMPLES) -> Self:
        """Return the same with other BatchNorm statistics.

        It shares everything with this one, and keeps its evaluations apart.

        Args:
            statistics: `averaged` with the weights, or `re-estimated` at each point on the task's
                training data (see `soupcore.evaluation.batchnorm`).
            examples: How many training examples to estimate on.

        Raises:
            TaskError: The network has no BatchNorm, or the task no split with the role `train`.
        """
        estimate = None
        if statistics == "re-estimated":
            if not self.task.has_batchnorm:
                raise TaskError(
                    f"The network of the task {self.task.name!r} has no BatchNorm, so there are no "
                    "statistics to estimate."
                )
            names = self.task.splits_with_role("train")
            if not names:
                raise TaskError(
                    f"The task {self.task.name!r} has no split with the role 'train' to estimate "
                    "BatchNorm's statistics on. Add one, or have the statistics averaged."
                )
            split = self.task.split(names[0])
            estimate = Estimate(names[0], split.digest, min(examples, len(split)))
        return self.with_estimate(estimate)

    def with_estimate(self, estimate: Estimate | None) -> Self:
        """Return the same with the statistics of a soup; builds no network."""
        other = copy.copy(self)
        other.estimate = estimate
        return other

    def stored(self, mixtures: Sequence[Mixture], split: str) -> list[Evaluation | None]:
        """Return what is already known of points on a split, None where nothing is."""
        keys = [self.key(mixture) for mixture in mixtures]
        known = self._records.known(keys, split)
        return [known.get(key) for key in keys]

    def missing(self, mixtures: Iterable[Mixture], split: str) -> list[Mixture]:
        """Return the points that would have to be computed, each once."""
        points = list(dict.fromkeys(mixtures))
        known = self.stored(points, split)
        return [point for point, found in zip(points, known, strict=True) if found is None]

    def key(self, mixture: Mixture) -> str:
        """Return the identity of a point with these BatchNorm statistics."""
        key = as_mixed(mixture).key
        return key if self.estimate is None else key + self.estimate.key
