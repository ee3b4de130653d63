"""The greedy ensemble: Recipe 1 of the soups' paper with outputs averaged in place of weights.

Members are sorted by their score on the `select` split, best first; each next one joins the mean of
outputs if its score does not fall (Wortsman et al. 2022, arXiv:2203.05482, Table 3). It is what a
greedy soup is measured against, at as many forward passes an example as it has members. Here it
takes none: the outputs were kept.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from soupcore.analysis.ensemble import Ensemble, judged
from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluator
from soupcore.mixtures import Mixture


@dataclass(frozen=True)
class GreedyEnsemble:
    """The members that a greedy ensemble took.

    Attributes:
        members: Their names, in the order they joined.
        tried: `{name: score of the ensemble with it}`, in the order they were tried.
        split: The split they were chosen on.
        chosen_on: What it scores there.
    """

    members: tuple[str, ...]
    tried: dict[str, float]
    split: str
    chosen_on: Ensemble

    @property
    def passes(self) -> int:
        """Forward passes an example, where a soup takes one."""
        return len(self.members)


def greedy_ensemble(evaluator: Evaluator, points: Mapping[str, Mixture]) -> GreedyEnsemble | None:
    """Choose members on the select split; None unless the outputs of all of them are stored.

    Score the result on other splits by `ensemble(evaluator, [points[name] for name in …], split)`.

    Args:
        evaluator: Knows the task and the store. It computes nothing here.
        points: `{name: point}` of those that may become members.

    Raises:
        RecipeError: There are none.
    """
    if not points:
        raise RecipeError("A greedy ensemble needs at least one member.")
    task, split = evaluator.task, evaluator.task.select
    stored = evaluator.stored(list(points.values()), split)
    known = {n: e for n, e in zip(points, stored, strict=True) if e is not None and e.has_outputs}
    if len(known) < len(points):
        return None
    first, *candidates = sorted(known, key=lambda name: _descending(known[name].score))
    members: tuple[str, ...] = (first,)
    total = known[first].outputs.double()
    current = judged(task, split, total.float(), 1)
    tried = {first: current.score}
    for candidate in candidates:
        with_it = total + known[candidate].outputs
        size = len(members) + 1
        trial = judged(task, split, (with_it / size).float(), size)
        tried[candidate] = trial.score
        if trial.score >= current.score:
            members, total, current = (*members, candidate), with_it, trial
    return GreedyEnsemble(members, tried, split, current)


def _descending(score: float) -> float:
    return math.inf if math.isnan(score) else -score
