"""Scores of a split by the task's metrics, also by class and by group, from example records."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.evaluation.data import targets_of
from soupcore.evaluation.evaluation import Evaluation
from soupcore.evaluation.scoring import ExampleRecords
from soupcore.intervals import (
    NO_INTERVAL,
    Paired,
    bootstrap_interval,
    mean_of,
    paired,
    resamples,
    score_interval,
)
from soupcore.tasks import Metric, MetricInfo, Task, TaskInfo
from soupcore.tasks.examples import Rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Measured:
    """The scores of a point on a split.

    Attributes:
        loss: Mean loss.
        score: The score by the primary metric.
        interval: Its 95 % confidence interval; NaN if there is none.
        scores: `{metric: score}` of all metrics, if the task has named metrics.
        replicates: Scores by the primary metric on bootstrap resamples of the split, float32, shape
            [200]; None if the metric is a mean, or if outputs are not kept. The resamples are the
            same for all points on a split, which allows paired comparisons.
        weights: The weight of each example, float64, shape [n]; None for equal weights.
    """

    loss: float
    score: float
    interval: tuple[float, float]
    scores: Mapping[str, float]
    replicates: Tensor | None = None
    weights: Tensor | None = None


def needs_outputs(task: Task) -> bool:
    """Return whether a metric is computed from outputs."""
    return any(not metric.is_mean and metric.source == "outputs" for metric in task.metrics)


def measure(
    task: Task,
    records: ExampleRecords,
    targets: Tensor,
    groups: Tensor | None = None,
    weights: Tensor | None = None,
    *,
    with_interval: bool = True,
) -> Measured:
    """Return the scores of a split.

    Args:
        task: The task with the metrics.
        records: The records of all examples of the split.
        targets: The targets, in the same order.
        groups: The index of each example's group (see `Task.groups_of`), if there are groups.
        weights: The weight of each example, shape [n], if there are weights.
        with_interval: Whether to compute the interval of a metric that is not a mean, which
            computes the metric 200 times.

    Raises:
        TaskError: A metric cannot be computed.
    """
    loss, mean = (mean_of(x, task.undefined, weights) for x in (records.losses, records.scores))
    arrays = {"targets": targets.cpu(), "groups": groups, **records.arrays}
    by_rows = {
        metric.name: _on_rows(task, metric, arrays, weights)
        for metric in task.metrics
        if not metric.is_mean
    }
    scores = {
        metric.name: mean if metric.is_mean else by_rows[metric.name](slice(None))
        for metric in task.metrics
    }
    if task.metric.is_mean:
        interval = score_interval(records.scores, undefined=task.undefined, weights=weights)
        return Measured(loss, mean, interval, scores, weights=weights)
    score = scores[task.metric.name]
    if not with_interval:
        return Measured(loss, score, NO_INTERVAL, scores, weights=weights)
    primary = by_rows[task.metric.name]
    interval, replicates = _resampled(task.metric, score, primary, len(records))
    return Measured(loss, score, interval, scores, replicates, weights)


def interval_of(task: Task, evaluation: Evaluation) -> tuple[tuple[float, float], Tensor | None]:
    """Return the interval of an evaluation's score and its replicates, from the stored records.

    Args:
        task: The task, whose primary metric is that of the score.
        evaluation: The evaluation. It has outputs if the metric is computed from them.

    Returns:
        The interval, NaN if there is none; the replicates, float32, shape [200], None for a mean.
    """
    if task.metric.is_mean:
        scores, weights = evaluation.scores, evaluation.weights
        return score_interval(scores, undefined=task.undefined, weights=weights), None
    on_rows = scores_on_rows(task, evaluation)
    return _resampled(task.metric, evaluation.score, on_rows, evaluation.n)


def scores_on_rows(task: Task, evaluation: Evaluation) -> Callable[[Tensor], float]:
    """Return a function that scores a point on some examples of its split, from stored arrays.

    Args:
        task: The task.
        evaluation: The evaluation of the point. It has outputs if the primary metric is computed
            from them (see `needs_outputs`).

    Returns:
        A function of rows, int64, shape [m]. The score is NaN if it is undefined on all rows.
    """
    weights = evaluation.weights
    if task.metric.is_mean:
        scores = evaluation.scores
        return lambda rows: mean_of(
            scores[rows], "exclude", None if weights is None else weights[rows]
        )
    metric = next(each for each in task.metrics if each.name == task.metric.name)
    against = (
        task.groups_of(evaluation.split)
        if metric.against == "groups"
        else targets_of(task.split(evaluation.split))
    )
    given: Tensor = getattr(evaluation, metric.source)
    arrays: dict[str, Tensor | None] = {metric.source: given, metric.against: against}
    return _on_rows(task, metric, arrays, weights)


def loss_on_rows(evaluation: Evaluation, rows: Tensor) -> float:
    """Return the mean loss on some examples, without those where it is undefined."""
    weights = evaluation.weights
    return mean_of(evaluation.losses[rows], "exclude", None if weights is None else weights[rows])


def compare(task: TaskInfo[Any], one: Evaluation, other: Evaluation) -> Paired:
    """Compare two points by the primary metric on the same examples.

    If the metric is a mean over examples, see `soupcore.intervals.paired`. Otherwise, the interval
    is that of the differences on bootstrap resamples, which are the same for both points, and there
    is no test.

    Args:
        task: The task, or its description.
        one: The evaluation of the first point.
        other: The evaluation of the second point, on the same split.

    Raises:
        TaskError: They have different numbers of examples.
    """
    if one.n != other.n:
        raise TaskError(
            f"Evaluations on {one.n} and {other.n} examples cannot be paired: both points need an "
            "evaluation on the same split."
        )
    if task.metric.is_mean:
        return paired(one.scores, other.scores, undefined=task.undefined, weights=one.weights)
    difference = one.score - other.score
    if one.n == 1:
        why = "The task has one score for the whole split, but none for its examples."
        return Paired(1, difference, None, why, 0, None, None, None)
    changed = (one.predictions != other.predictions).reshape(one.n, -1).any(1)
    interval, why = None, ""
    replicates = one.replicates, other.replicates
    if replicates[0] is None or replicates[1] is None:
        why = (
            f"The intervals of {task.metric.name} have not been computed from the records yet."
            if one.lacks_interval or other.lacks_interval
            else "The outputs of one of the two points were not stored, so it was not resampled."
        )
    else:
        differences = replicates[0].double() - replicates[1].double()
        low, high = bootstrap_interval(difference, differences)
        if low < high:
            interval = low, high
        else:
            why = "The difference is the same on every resample, or undefined on most."
    return Paired(one.n, difference, interval, why, int(changed.sum()), None, None, None)


def changed_examples(one: Evaluation, other: Evaluation) -> tuple[list[int], list[int]]:
    """Return the examples that two networks score differently.

    Args:
        one: The evaluation of one network on a split.
        other: That of another one on the same split.

    Returns:
        The examples with a higher score by the first, and those with a higher score by the second;
        the largest differences first, equal ones in the order of the split. An undefined score is
        neither higher nor lower.
    """
    change = (one.scores.double() - other.scores.double()).nan_to_num(0.0)
    order = change.abs().argsort(descending=True, stable=True)
    ordered = change[order]
    return order[ordered > 0].tolist(), order[ordered < 0].tolist()


def by_group(task: Task, evaluation: Evaluation) -> "pd.DataFrame":
    """Return the mean score of each group of examples; in classification its accuracy.

    Args:
        task: The task, with groups on the split of the evaluation.
        evaluation: The evaluation of a point.

    Returns:
        One row per group that has examples, in the order of `Task.groups`. Columns: `n`, the number
        of examples; `score`, weighted if examples have weights; `low` and `high`, the 95 %
        confidence interval (see `soupcore.intervals.score_interval`), NaN if there is none.

    Raises:
        TaskError: The split has no groups.
    """
    groups = task.groups_of(evaluation.split)
    if groups is None:
        raise TaskError(
            f"The split {evaluation.split!r} of the task {task.name!r} has no groups. Give it "
            "`groups`, one for each example."
        )
    return _breakdown(task, evaluation, groups, task.groups, "group")


def by_class(task: Task, evaluation: Evaluation) -> "pd.DataFrame":
    """Return the mean score of the examples of each true class: in classification its recall.

    Args:
        task: A task whose targets are classes, one integer per example.
        evaluation: The evaluation of a point.

    Returns:
        One row per class that has examples, by its number. Columns as for `by_group`.

    Raises:
        TaskError: Targets are not classes.
    """
    classes = task.split(evaluation.split).classes()
    if classes is None:
        raise TaskError(
            f"The targets of the split {evaluation.split!r} of the task {task.name!r} are not "
            "classes, one integer per example."
        )
    found, numbers = torch.unique(classes, return_inverse=True)
    return _breakdown(task, evaluation, numbers, found.tolist(), "class")


def _resampled(
    metric: MetricInfo, score: float, on_rows: Callable[[Tensor], float], n: int
) -> tuple[tuple[float, float], Tensor]:
    replicates = torch.tensor([on_rows(rows) for rows in resamples(n)])
    return _within(metric, bootstrap_interval(score, replicates)), replicates


def _on_rows(
    task: Task, metric: Metric, arrays: Mapping[str, Tensor | None], weights: Tensor | None
) -> Callable[[Rows], float]:
    """Return a function that computes a metric on some examples.

    Args:
        task: The task.
        metric: A metric that is not a mean.
        arrays: The tensors for `Metric.source` and `Metric.against`, one row per example.
        weights: The weight of each example, if there are weights.
    """
    given, against = arrays.get(metric.source), arrays.get(metric.against)
    if given is None or against is None:
        raise ValueError(f"{metric.name} needs {metric.source} and {metric.against}")
    has_groups = metric.against == "groups"
    n_groups = len(torch.unique(against)) if has_groups else 0

    def score(rows: Rows) -> float:
        values, references = given[rows], against[rows]
        own_weights = None if weights is None else weights[rows]
        if metric.source == "scores" and task.undefined == "exclude":
            kept = ~values.isnan()
            values, references = values[kept], references[kept]
            own_weights = None if own_weights is None else own_weights[kept]
        if has_groups and int((torch.bincount(references) > 0).sum()) < n_groups:
            return math.nan  # a group without examples has no score
        return metric.score({metric.source: values}, references, own_weights)

    return score


def _within(metric: MetricInfo, interval: tuple[float, float]) -> tuple[float, float]:
    """Return an interval of scores, clipped to the range of the metric."""
    if metric.range is None or math.isnan(interval[0]):
        return interval
    low, high = sorted(metric.sign * end for end in metric.range)
    return max(interval[0], low), min(interval[1], high)


def _breakdown(
    task: Task, evaluation: Evaluation, numbers: Tensor, names: Sequence[object], index: str
) -> "pd.DataFrame":
    """Return the rows of `by_group`.

    Args:
        task: The task.
        evaluation: The evaluation.
        numbers: The index in `names` of each example's group, shape [n].
        names: Names of the groups.
        index: Name of the index of the table.
    """
    import pandas as pd

    scores, weights, undefined = evaluation.scores, evaluation.weights, task.undefined
    rows = {}
    for number in torch.unique(numbers).tolist():
        is_member = numbers == number
        own, own_weights = scores[is_member], None if weights is None else weights[is_member]
        interval = score_interval(own, undefined=undefined, weights=own_weights)
        rows[names[number]] = (len(own), mean_of(own, undefined, own_weights), *interval)
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["n", "score", "low", "high"]
    ).rename_axis(index)
