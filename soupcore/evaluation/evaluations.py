"""The stored evaluations of a task: reading them without running it, and writing new ones."""

import copy
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor

from soupcore.errors import TaskError
from soupcore.evaluation.batchnorm import EXAMPLES, Estimate, StatisticsChoice
from soupcore.evaluation.evaluation import Evaluation, compact
from soupcore.evaluation.measuring import Measured
from soupcore.evaluation.scoring import ExampleRecords
from soupcore.intervals import NO_INTERVAL
from soupcore.merges import as_mixed
from soupcore.mixtures import Mixture
from soupcore.tasks import TaskInfo
from soupcore.tasks.networks import cast_dtype

if TYPE_CHECKING:
    from soupcore.store import NewEvaluation, Store
    from soupcore.store.tables import EvaluationRow, MetricIntervalRow

# Evaluations are written together once their computation took at least this time, and this many
# times the duration of the last write, or once they have this size. If the process dies, unwritten
# evaluations are lost.
_WRITE_EVERY = 0.05  # seconds
_WRITE_SHARE = 20
_WRITE_AT = 64 << 20  # bytes


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
        self._stored = StoredEvaluations(self.store, task)

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
        """Return a copy that re-estimates BatchNorm statistics on this data; None averages them.

        Unlike `with_statistics`, it neither checks the network nor builds it.
        """
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
        other._stored = StoredEvaluations(self.store, other.task)
        return other

    def stored(self, mixtures: Sequence[Mixture], split: str) -> list[Evaluation | None]:
        """Return the stored evaluations of points on a split, None for those without one."""
        keys = [self.key(mixture) for mixture in mixtures]
        known = self._stored.known(keys, split)
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


class StoredEvaluations:
    """The evaluations of a task in a store, by the keys of their points.

    Args:
        store: The store.
        task: The task.
    """

    def __init__(self, store: "Store", task: TaskInfo[Any]) -> None:
        self.store = store
        self._task = task

    def known(self, keys: Sequence[str], split: str) -> dict[str, Evaluation]:
        """Return the stored evaluations of points on a split, by key."""
        rows = self.store.evaluations(keys, *self._place(split))
        return self._evaluations(rows, split)

    @contextmanager
    def buffer(self, split: str) -> Iterator["WriteBuffer"]:
        """Return a buffer for new evaluations, which writes the last ones when the context ends."""
        buffer = WriteBuffer(self, split)
        try:
            yield buffer
        finally:
            buffer.write()

    def part(self, key: str, split: str) -> tuple[Tensor, Tensor] | None:
        """Return the evaluated examples of an early rejected point and their scores, or None."""
        arrays = self.store.part(key, *self._place(split))
        return (arrays["rows"], arrays["scores"]) if arrays else None

    def add_part(self, key: str, split: str, rows: Tensor, scores: Tensor) -> None:
        """Store the evaluated examples of an early rejected point and their scores."""
        self.store.add_part(key, *self._place(split), {"rows": rows, "scores": scores})

    def new(
        self, key: str, split: str, records: ExampleRecords, measured: Measured, seconds: float
    ) -> "NewEvaluation":
        """Return an evaluation to be stored."""
        from soupcore.store import NewEvaluation  # loads SQLAlchemy

        arrays = compact(records.arrays)
        if measured.weights is not None:
            arrays["weights"] = measured.weights
        if measured.replicates is not None:
            arrays["replicates"] = measured.replicates
        return NewEvaluation(
            key,
            *self._place(split),
            loss=measured.loss,
            score=measured.score,
            score_interval=measured.interval,
            scores=measured.scores,
            seconds=seconds,
            arrays=arrays,
        )

    def write(self, found: "Sequence[NewEvaluation]", split: str) -> Iterable[Evaluation]:
        """Write evaluations to the store and return them."""
        rows = {row.mixture_key: row for row in self.store.add_evaluations(found)}
        return self._evaluations(rows, split).values()

    def add_interval(
        self, evaluation: Evaluation, interval: tuple[float, float], replicates: Tensor | None
    ) -> Evaluation:
        """Store the interval by the chosen primary metric; return the evaluation with it.

        Args:
            evaluation: An evaluation that lacks it.
            interval: The interval; NaN if there is none.
            replicates: Scores on bootstrap resamples; None for a mean.
        """
        from soupcore.store.tables import MetricIntervalRow  # loads SQLAlchemy

        low, high = interval
        content = None if replicates is None else replicates.numpy().astype("<f4").tobytes()
        if not self.store.is_read_only:
            row = MetricIntervalRow(
                mixture_key=evaluation.mixture_key,
                task_key=evaluation.task_key,
                split_digest=evaluation.split_digest,
                metric=self._task.metric.name,
                low=low if math.isfinite(low) else None,
                high=high if math.isfinite(high) else None,
                replicates=content,
            )
            self.store.put(row)
        return replace(
            evaluation, score_interval=interval, chosen_replicates=content, lacks_interval=False
        )

    def _place(self, split: str) -> tuple[str, str]:
        return self._task.key, self._task.split(split).digest

    def _evaluations(
        self, rows: Mapping[str, "EvaluationRow"], split: str
    ) -> dict[str, Evaluation]:
        chosen = self._task.primary
        found = dict(zip(rows, self._as_stored(rows.values(), split), strict=True))
        if chosen is None:
            return found
        known = self.store.metric_intervals([*rows], *self._place(split), chosen)
        return {key: _scored_by(chosen, each, known.get(key)) for key, each in found.items()}

    def _as_stored(self, rows: Iterable["EvaluationRow"], split: str) -> Iterator[Evaluation]:
        is_mean, labels = self._task.default_metric.is_mean, self._task.labels
        is_weighted = self._task.split(split).is_weighted
        paths: dict[str, Path] = {}  # many evaluations share a file
        for row in rows:
            file, _, place = row.arrays.partition("#")
            if file not in paths:
                paths[file] = self.store.folder / file
            yield Evaluation(
                mixture_key=row.mixture_key,
                split=split,
                n=row.n,
                loss=_number(row.loss),
                score=_number(row.score),
                score_interval=_interval(row.score_low, row.score_high),
                is_resampled=row.has_outputs and not is_mean,
                all_scores={name: _number(score) for name, score in (row.scores or {}).items()},
                seconds=row.seconds,
                has_outputs=row.has_outputs,
                arrays=paths[file],
                task_key=row.task_key,
                split_digest=row.split_digest,
                is_weighted=is_weighted,
                place=int(place) if place else None,
                labels=labels,
                on_damage=partial(self.store.forget_arrays, file),
            )


class WriteBuffer:
    """Writes evaluations on one split to the store, several at a time.

    Args:
        stored: The evaluations in the store.
        split: Name of the split.

    Attributes:
        written: `{key: evaluation}` of the written ones.
    """

    def __init__(self, stored: StoredEvaluations, split: str) -> None:
        self.written: dict[str, Evaluation] = {}
        self._stored = stored
        self._split = split
        self._waiting: list[NewEvaluation] = []
        self._seconds, self._nbytes = 0.0, 0  # of the waiting evaluations
        self._write_after = _WRITE_EVERY

    def add(self, key: str, records: ExampleRecords, measured: Measured, seconds: float) -> None:
        """Add an evaluation, and write the waiting ones if enough have accumulated."""
        new = self._stored.new(key, self._split, records, measured, seconds)
        self._waiting.append(new)
        self._seconds += seconds
        self._nbytes += new.nbytes
        if self._seconds >= self._write_after or self._nbytes >= _WRITE_AT:
            self.write()

    def write(self) -> None:
        """Write the waiting evaluations."""
        if self._waiting:
            started = time.perf_counter()
            for evaluation in self._stored.write(self._waiting, self._split):
                self.written[evaluation.mixture_key] = evaluation
            self._waiting.clear()
            self._seconds, self._nbytes = 0.0, 0
            took = time.perf_counter() - started
            self._write_after = max(_WRITE_EVERY, _WRITE_SHARE * took)


def records_in(evaluation: Evaluation, rows: Tensor) -> ExampleRecords:
    """Return the records of some examples of an evaluation, with outputs if it has them."""
    return ExampleRecords(
        evaluation.losses[rows],
        evaluation.scores[rows],
        evaluation.predictions[rows],
        evaluation.outputs[rows] if evaluation.has_outputs else None,
    )


def _scored_by(
    metric: str, evaluation: Evaluation, known: "MetricIntervalRow | None"
) -> Evaluation:
    """Return an evaluation with the score and the interval of a metric that is not the first.

    Args:
        metric: Name of the metric.
        evaluation: The stored evaluation.
        known: The interval, if it has been computed.
    """
    return replace(
        evaluation,
        primary=metric,
        score=evaluation.all_scores.get(metric, math.nan),
        score_interval=NO_INTERVAL if known is None else _interval(known.low, known.high),
        is_resampled=False,
        lacks_interval=known is None and evaluation.has_outputs,
        chosen_replicates=None if known is None else known.replicates,
    )


def _interval(low: float | None, high: float | None) -> tuple[float, float]:
    """Return a stored interval; invalid ones, which earlier versions stored, count as none."""
    low, high = _number(low), _number(high)
    return (low, high) if -math.inf < low < high < math.inf else NO_INTERVAL


def _number(value: float | None) -> float:
    return math.nan if value is None else value
