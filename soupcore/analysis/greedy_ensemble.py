"""The greedy ensemble: Recipe 1 of Model Soups with averaged outputs instead of weights.

Members are sorted by their score on the `select` split. Each next one joins if the score of the
averaged outputs does not get worse (Wortsman et al. 2022, arXiv:2203.05482, Table 3). It is the
baseline for greedy soups and takes one forward pass per member and example. Here it takes no
forward pass, because outputs are stored.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from soupcore.analysis.ensemble import Ensemble, check_kept_outputs, score_outputs
from soupcore.errors import RecipeError, TaskError
from soupcore.evaluation import Evaluator
from soupcore.evaluation.evaluation import value_of
from soupcore.mixtures import Mixture
from soupcore.tasks import Task


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
    check_kept_outputs(evaluator.task)
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


def _scored(task: Task, split: str, total: Tensor, members: Sequence[str]) -> Ensemble:
    scored = score_outputs(task, split, (total / len(members)).float(), len(members))
    if math.isnan(scored.score):
        raise TaskError(
            f"The score of the ensemble of {', '.join(members)} is undefined on {split!r}, so "
            "nothing can be chosen by it."
        )
    return scored
