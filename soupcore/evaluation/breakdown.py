"""The score of each class and of each group of examples, from a stored evaluation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.evaluation.evaluation import Evaluation
from soupcore.intervals import mean_of, score_interval
from soupcore.tasks import Task

if TYPE_CHECKING:
    import pandas as pd


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
    return _table(task, evaluation, groups, task.groups, "group")


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
    return _table(task, evaluation, numbers, found.tolist(), "class")


def _table(
    task: Task, evaluation: Evaluation, numbers: Tensor, names: Sequence[object], index: str
) -> "pd.DataFrame":
    import pandas as pd

    scores, weights, undefined = evaluation.scores, evaluation.weights, task.undefined
    rows = {}
    for number in torch.unique(numbers).tolist():
        is_own = numbers == number
        own, weighing = scores[is_own], None if weights is None else weights[is_own]
        interval = score_interval(own, undefined=undefined, weights=weighing)
        rows[names[number]] = (len(own), mean_of(own, undefined, weighing), *interval)
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["n", "score", "low", "high"]
    ).rename_axis(index)
