"""Ensembles, the baseline for soups of the same ingredients.

An ensemble averages the logits of k networks (Wortsman et al. 2022), which takes k forward passes
per example instead of one. Where logits are stored, its score takes no forward pass here. Where
they are too large to keep (see `Task.averages`), the members are run batch by batch.

The greedy ensemble is Recipe 1 of Model Soups with averaged outputs instead of weights (Table 3),
the baseline for greedy soups. Members are sorted by their score on the `select` split, and each
next one joins if the score of the averaged outputs does not get worse.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from soupcore.analysis.calibration import Calibration, calibration, fit_temperature
from soupcore.errors import RecipeError, TaskError
from soupcore.evaluation import Evaluator
from soupcore.evaluation.data import targets_of
from soupcore.evaluation.evaluation import value_of
from soupcore.evaluation.measuring import measure
from soupcore.evaluation.scoring import ExampleRecords, Scorer
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, no_progress, part, with_bar
from soupcore.tasks import Task


@dataclass(frozen=True)
class Ensemble:
    """Loss and score of an ensemble on a split.

    Attributes:
        members: Number of networks.
        n: Number of examples.
        loss: Mean loss; NaN if undefined for an example, unless the task excludes these.
        score: Mean score (accuracy in classification); NaN as for the loss.
        score_interval: 95 % confidence interval of the score; NaN if there is none.
    """

    members: int
    n: int
    loss: float
    score: float
    score_interval: tuple[float, float]


@with_bar("Ensemble")
def ensemble(
    evaluator: Evaluator,
    members: Sequence[Mixture],
    split: str,
    *,
    on_progress: Progress = no_progress,
    progress: bool = True,
) -> Ensemble | None:
    """Score an ensemble from stored outputs; return None unless all of them are stored.

    If the task averages outputs that are too large to keep, the members are run instead.

    Args:
        evaluator: Supplies the task and the store. It runs no evaluations here.
        members: The points whose outputs are averaged.
        split: Name of the split.
        on_progress: Called with the number of examples done and in total if the members are run.
            Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.

    Raises:
        TaskError: The task's outputs may not be averaged (see `Task.output_kind`).
    """
    task = evaluator.task
    if task.averages == "outputs":
        _check_averages(task)
        if not members:
            return None
        records = evaluator.average_outputs(members, split, on_progress=on_progress)
        return _measured(task, split, records, len(members))
    outputs = ensemble_outputs(evaluator, members, split)
    if outputs is None:
        return None
    return score_outputs(task, split, outputs, len(members))


@with_bar("Ensemble")
def ensemble_scores(
    evaluator: Evaluator,
    members: Sequence[Mixture],
    *,
    on_progress: Progress = no_progress,
    progress: bool = True,
) -> dict[str, float]:
    """Return the score of an ensemble on each split that results are reported on.

    Args:
        evaluator: Evaluates members whose outputs are not stored.
        members: The points whose outputs are averaged.
        on_progress: Called with the number of examples done and in total. Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.

    Returns:
        `{split: score}`, NaN where it is undefined.

    Raises:
        TaskError: The task's outputs may not be averaged (see `Task.output_kind`).
    """
    found = {}
    splits = evaluator.task.reported
    for index, split in enumerate(splits):
        here = part(on_progress, index, len(splits))
        if evaluator.task.averages == "records":
            evaluator.evaluate_all(members, split, on_progress=here)
        scored = ensemble(evaluator, members, split, on_progress=here)
        found[split] = math.nan if scored is None else scored.score
    return found


def pair_ensembles(
    evaluator: Evaluator, points: Sequence[Mixture], split: str
) -> Iterator[tuple[int, int, Ensemble]]:
    """Score the two-model ensembles of all pairs of points from stored outputs.

    Args:
        evaluator: Supplies the task and the store. It runs no evaluations here.
        points: The points.
        split: Name of the split.

    Yields:
        The indices of both points, and their ensemble. Pairs without stored outputs are omitted.

    Raises:
        TaskError: The task's outputs may not be averaged (see `Task.output_kind`).
    """
    _check_kept_outputs(evaluator.task)
    known = [
        (place, evaluation)
        for place, evaluation in enumerate(evaluator.stored(points, split))
        if evaluation is not None and evaluation.has_outputs
    ]
    for index, (a, first) in enumerate(known):
        outputs = first.outputs.double()
        for b, second in known[index + 1 :]:
            both = ((outputs + second.outputs) / 2).float()
            yield a, b, score_outputs(evaluator.task, split, both, 2)


@dataclass(frozen=True)
class GreedyEnsemble:
    """The members of a greedy ensemble.

    Attributes:
        members: Names of the members, in the order they joined.
        tried: `{name: score of the ensemble with it}`, in the order tried.
        split: The split used for choosing.
        chosen_on: Loss and score on that split.
    """

    members: tuple[str, ...]
    tried: dict[str, float]
    split: str
    chosen_on: Ensemble

    @property
    def passes(self) -> int:
        """Forward passes per example; a soup takes one."""
        return len(self.members)


def greedy_ensemble(evaluator: Evaluator, points: Mapping[str, Mixture]) -> GreedyEnsemble | None:
    """Choose members on the select split; return None unless the outputs of all are stored.

    For scores on other splits, use `ensemble(evaluator, [points[name] for name in …], split)`.

    Args:
        evaluator: Supplies the task and the store. It runs no evaluations here.
        points: `{name: point}` of the candidates.

    Raises:
        RecipeError: There are no candidates.
        TaskError: The task's outputs may not be averaged (see `Task.output_kind`), or the score is
            undefined for some examples (see `Task.undefined`).
    """
    if not points:
        raise RecipeError("A greedy ensemble needs at least one member.")
    _check_kept_outputs(evaluator.task)
    task, split = evaluator.task, evaluator.task.select
    stored = evaluator.stored(list(points.values()), split)
    known = {n: e for n, e in zip(points, stored, strict=True) if e is not None and e.has_outputs}
    if len(known) < len(points):
        return None
    values = {name: value_of(found, "score", repr(name)) for name, found in known.items()}
    first, *candidates = sorted(known, key=lambda name: -values[name])
    members: tuple[str, ...] = (first,)
    total = known[first].outputs.double()
    current = _scored(task, split, total, members)
    tried = {first: current.score}
    for candidate in candidates:
        with_it = total + known[candidate].outputs
        trial = _scored(task, split, with_it, (*members, candidate))
        tried[candidate] = trial.score
        if trial.score >= current.score:
            members, total, current = (*members, candidate), with_it, trial
    return GreedyEnsemble(members, tried, split, current)


def score_outputs(task: Task, split: str, outputs: torch.Tensor, members: int) -> Ensemble:
    """Return the loss and score of averaged outputs of shape [n, ...].

    Raises:
        TaskError: The score is undefined for some examples (see `Task.undefined`).
    """
    targets = targets_of(task.split(split))
    records = Scorer(task, split, targets).score(outputs, targets, keep_outputs=True)
    return _measured(task, split, records, members)


def calibrate(
    evaluator: Evaluator, members: Sequence[Mixture], split: str
) -> tuple[Calibration, Calibration]:
    """Return the calibration of a network or an ensemble, before and after temperature scaling.

    The temperature is fitted on the select split.

    Args:
        evaluator: Evaluates members whose outputs are not stored.
        members: The points whose outputs are averaged; one for a single network.
        split: Name of the split of the calibration.

    Raises:
        TaskError: The task's outputs may not be averaged (see `Task.output_kind`), or are not
            logits of classes.
    """
    task = evaluator.task

    def outputs(split: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        evaluator.evaluate_all(members, split)
        found = ensemble_outputs(evaluator, members, split)
        if found is None:
            raise RuntimeError("outputs that were just computed are not in the store")
        return found, targets_of(task.split(split)), task.split(split).weights

    temperature = fit_temperature(*outputs(task.select))
    there = outputs(split)
    return calibration(*there), calibration(*there, temperature=temperature)


def ensemble_outputs(
    evaluator: Evaluator, members: Sequence[Mixture], split: str
) -> torch.Tensor | None:
    """Return the averaged outputs of the members, shape [n, ...]; None unless all are stored.

    Raises:
        TaskError: The task's outputs may not be averaged (see `Task.output_kind`).
    """
    _check_kept_outputs(evaluator.task)
    known = [e for e in evaluator.stored(members, split) if e is not None and e.has_outputs]
    if len(known) < len(members) or not members:
        return None
    total = known[0].outputs.double()
    for evaluation in known[1:]:
        total += evaluation.outputs
    return (total / len(known)).float()


def _scored(task: Task, split: str, total: torch.Tensor, members: Sequence[str]) -> Ensemble:
    scored = score_outputs(task, split, (total / len(members)).float(), len(members))
    if math.isnan(scored.score):
        raise TaskError(
            f"The score of the ensemble of {', '.join(members)} is undefined on {split!r}, so "
            "nothing can be chosen by it."
        )
    return scored


def _check_averages(task: Task) -> None:
    """Check that the task's outputs may be averaged.

    Raises:
        TaskError: They may not, or the task does not say so (see `Task.output_kind`).
    """
    if task.why_no_ensemble is not None:
        raise TaskError(f"Ensembles are not possible. {task.why_no_ensemble}")


def _check_kept_outputs(task: Task) -> None:
    """Check that outputs that were kept may be averaged.

    Raises:
        TaskError: They may not, or the task's outputs are too large to keep.
    """
    _check_averages(task)
    if task.why_no_kept_outputs is not None:
        raise TaskError(task.why_no_kept_outputs)


def _measured(task: Task, split: str, records: ExampleRecords, members: int) -> Ensemble:
    targets, groups = targets_of(task.split(split)), task.groups_of(split)
    weights, with_interval = task.split(split).weights, task.metric.is_mean
    measured = measure(task, records, targets, groups, weights, with_interval=with_interval)
    return Ensemble(members, len(records), measured.loss, measured.score, measured.interval)
