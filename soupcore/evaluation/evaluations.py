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
from soupcore.tasks.networks import cast_dtype

if TYPE_CHECKING:
    from soupcore.store import Store


class Evaluations:
    """The stored evaluations of a task.

    An `Evaluator` also computes missing ones.

    Attributes:
        task: The task, or its description.
        store: Store of the evaluations.
        estimate: Data on which BatchNorm statistics are re-estimated at each point; None if they
            are averaged like all weights. See `with_statistics`.

    Args:
        task: The task, or its description.
        store: Store of the evaluations; by default, that of the workspace.
    """

    task: TaskInfo[Any]

    def __init__(self, task: TaskInfo[Any], store: "Store | None" = None) -> None:
        from soupcore.store import Store  # loads SQLAlchemy

        self.task = task
        self.store = store or Store()
        self.estimate: Estimate | None = None
        self._records = Records(self.store, task)

    def with_statistics(self, statistics: StatisticsChoice, *, examples: int = EXAMPLES) -> Self:
        """Return a copy with other BatchNorm statistics.

        It shares store and network with this one, but its evaluations have separate keys.

        Args:
            statistics: `averaged` with the weights, or `re-estimated` at each point on the task's
                training data (see `soupcore.evaluation.batchnorm`).
            examples: Number of training examples for the estimate.

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
            if cast_dtype(self.task.precision) is not None:
                raise TaskError(
                    f"The task {self.task.name!r} evaluates in {self.task.precision}, which is too "
                    "coarse to estimate BatchNorm statistics in. Average the statistics, or "
                    f"set `precision` to '{self.task.precision} autocast'."
                )
            names = self.task.splits_with_role("train")
            if not names:
                raise TaskError(
                    f"The task {self.task.name!r} has no split with the role 'train' to estimate "
                    "BatchNorm statistics on. Add one, or average the statistics."
                )
            split = self.task.split(names[0])
            estimate = Estimate(names[0], split.digest, min(examples, len(split)))
        return self.with_estimate(estimate)

    def with_estimate(self, estimate: Estimate | None) -> Self:
        """Return a copy with the statistics of a soup; builds no network."""
        other = copy.copy(self)
        other.estimate = estimate
        return other

    def with_primary(self, metric: str | None) -> Self:
        """Return a copy that scores by another metric of the task; see `TaskInfo.with_primary`.

        It shares store, network and evaluations with this one. Stored evaluations have the scores
        by all metrics; an `Evaluator` computes missing intervals from the stored records.

        Args:
            metric: Name of the metric; None for the task's first.

        Raises:
            TaskError: The task has no such metric.
        """
        other = copy.copy(self)
        other.task = self.task.with_primary(metric)
        other._records = Records(self.store, other.task)
        return other

    def stored(self, mixtures: Sequence[Mixture], split: str) -> list[Evaluation | None]:
        """Return the stored evaluations of points on a split, None for those without one."""
        keys = [self.key(mixture) for mixture in mixtures]
        known = self._records.known(keys, split)
        return [known.get(key) for key in keys]

    def missing(self, mixtures: Iterable[Mixture], split: str) -> list[Mixture]:
        """Return the points without a stored evaluation, each once."""
        points = list(dict.fromkeys(mixtures))
        stored = self.stored(points, split)
        return [point for point, known in zip(points, stored, strict=True) if known is None]

    def key(self, mixture: Mixture) -> str:
        """Return the key of a point with these BatchNorm statistics."""
        key = as_mixed(mixture).key
        return key if self.estimate is None else key + self.estimate.key
