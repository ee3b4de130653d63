"""The ensemble of the same ingredients: what a soup is measured against.

An ensemble averages the logits of k networks (Wortsman et al. 2022) and so costs k forward passes
where a soup costs one. Its score needs no pass at all here: the logits were kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from soupcore.evaluation import Evaluator, score_interval
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
    outputs = ensemble_outputs(evaluator, members, split)
    if outputs is None:
        return None
    return judged(evaluator.task, split, outputs, len(members))


def judged(task: Task, split: str, outputs: torch.Tensor, members: int) -> Ensemble:
    """Score the mean of the outputs of so many members, shape [n, ...]."""
    targets = task.split(split).targets
    losses, scores = task.loss(outputs, targets), task.score(outputs, targets)
    return Ensemble(
        members=members,
        n=len(targets),
        loss=float(losses.double().mean()),
        score=float(scores.double().mean()),
        score_interval=score_interval(scores),
    )


def ensemble_outputs(
    evaluator: Evaluator, members: Sequence[Mixture], split: str
) -> torch.Tensor | None:
    """Return the mean of the members' outputs, shape [n, ...]; None unless all are stored."""
    known = [e for e in evaluator.stored(members, split) if e is not None and e.has_outputs]
    if len(known) < len(members) or not members:
        return None
    total = known[0].outputs.double()
    for evaluation in known[1:]:
        total += evaluation.outputs
    return (total / len(known)).float()
