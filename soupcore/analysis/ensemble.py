"""The ensemble of the same ingredients: what a soup is measured against.

An ensemble averages the logits of k networks (Wortsman et al. 2022) and so costs k forward passes
where a soup costs one. Its score needs no pass at all here: the logits were kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from soupcore.evaluation import Evaluation, Evaluator, score_interval
from soupcore.mixtures import Mixture
from soupcore.tasks import Task


@dataclass(frozen=True)
class Ensemble:
    """What the mean of the members' outputs scored on a split.

    Attributes:
        members: How many networks.
        n: Number of examples.
        loss: Mean loss.
        score: Mean score (accuracy in classification).
        score_interval: Its 95 % confidence interval.
    """

    members: int
    n: int
    loss: float
    score: float
    score_interval: tuple[float, float]


def ensemble(evaluator: Evaluator, members: Sequence[Mixture], split: str) -> Ensemble | None:
    """Score the mean of the members' stored outputs; None unless all of them are stored.

    Args:
        evaluator: Knows the task and the store. It computes nothing here.
        members: The points whose outputs are averaged.
        split: Name of the split.
    """
    known = [e for e in evaluator.stored(members, split) if e is not None and e.has_outputs]
    if len(known) < len(members) or not members:
        return None
    return judged(evaluator.task, split, _total(known), len(known))


def judged(task: Task, split: str, total: torch.Tensor, members: int) -> Ensemble:
    """Score the mean of outputs, given their sum and how many there are."""
    outputs = (total / members).float()
    targets = task.split(split).targets
    losses, scores = task.loss(outputs, targets), task.score(outputs, targets)
    return Ensemble(
        members=members,
        n=len(targets),
        loss=float(losses.double().mean()),
        score=float(scores.double().mean()),
        score_interval=score_interval(scores),
    )


def _total(evaluations: Sequence[Evaluation]) -> torch.Tensor:
    total = evaluations[0].outputs.double()
    for evaluation in evaluations[1:]:
        total += evaluation.outputs
    return total
