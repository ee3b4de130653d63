"""Selection bias: the inflation of a score on the examples that were used for choosing.

The best of many candidates on `select` owes its rank partly to chance, so its score there is
inflated. The bias grows with the number of candidates and shrinks with the number of examples.
"""

import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.evaluation import Evaluation, Evaluator
from soupcore.evaluation.evaluation import Criterion, check_defined
from soupcore.evaluation.measuring import loss_on_rows, needs_outputs, scores_on_rows
from soupcore.intervals import defined, halves
from soupcore.mixtures import Mixture, mean
from soupcore.progress import Progress, no_progress, with_bar
from soupcore.tasks import Task, Undefined


@dataclass(frozen=True)
class CrossFit:
    """The result of choosing on one half of the examples and scoring on the other, repeatedly.

    Attributes:
        promised: Mean score of the chosen candidate on the half used for choosing.
        delivered: Mean score of the chosen candidate on the other half.
        chosen: How often each candidate was chosen, as fractions that sum to 1.
    """

    promised: float
    delivered: float
    chosen: tuple[float, ...]

    @property
    def optimism(self) -> float:
        """Inflation of the score by choosing on half of the examples."""
        return self.promised - self.delivered


def cross_fit(
    scores: Sequence[Tensor],
    losses: Sequence[Tensor] | None = None,
    *,
    undefined: Undefined = "refuse",
    weights: Tensor | None = None,
    repeats: int = 100,
    seed: int = 0,
) -> CrossFit:
    """Estimate the selection bias of choosing the best of several points.

    The examples are split randomly into halves (with an odd number, one is ignored). The candidate
    with the best mean score on one half is scored on the other, and vice versa. A candidate with a
    score of −∞, because its network failed on an example, is the worst on both halves. Choosing on
    half of the examples is noisier than on all of them, so the bias of the actual choice is
    somewhat smaller than the estimate. No forward pass is needed, because the scores of each
    example are stored.

    Args:
        scores: For each candidate the scores of the n examples of `select`, shape [n], n ≥ 2.
        losses: The corresponding losses. Ties of the score go to the lower loss, as in `Curve`, or
            else to the first candidate.
        undefined: How to treat scores that are NaN; see `Task.undefined`.
        weights: The weight of each example, shape [n]; None for equal weights. Examples of
            weight zero are left out.
        repeats: Number of random splits.
        seed: Seed of the random splits.

    Raises:
        TaskError: There are no candidates, their scores belong to different examples, or a score is
            undefined.
    """
    if not scores or len({len(each) for each in scores}) > 1 or len(scores[0]) < 2:
        raise TaskError("Cross-fitting needs scores of the same examples, at least two.")
    table = torch.stack([each.double() for each in scores])  # [candidates, n]
    loss_table = None if losses is None else torch.stack([*losses])
    if weights is not None:
        counted = weights > 0
        table, weights = table[:, counted], weights[counted].double()
        loss_table = None if loss_table is None else loss_table[:, counted]
        if table.shape[1] < 2:
            raise TaskError("Cross-fitting needs at least two examples with a weight above zero.")
    if undefined == "refuse":
        for place, each in enumerate(table, start=1):
            check_defined(each, "score", f"candidate {place}")
    is_hopeless = (table == -math.inf).any(1)

    def scored(rows: Tensor) -> list[float]:
        # A candidate without a defined score in this half cannot be chosen.
        means = _means(table[:, rows], None if weights is None else weights[rows])
        return means.masked_fill(is_hopeless | means.isnan(), -math.inf).tolist()

    return _cross_fit(scored, len(table), loss_table, weights, table.shape[1], repeats, seed)


def cross_fit_evaluations(
    task: Task,
    candidates: Sequence[Evaluation],
    *,
    ties_by_loss: bool = True,
    repeats: int = 100,
    seed: int = 0,
) -> CrossFit:
    """Estimate the selection bias of choosing the best of several points by the primary metric.

    See `cross_fit`. The metric need not be a mean over examples.

    Args:
        task: The task.
        candidates: Evaluations of the points on one split. They have outputs if the metric is
            computed from them.
        ties_by_loss: Whether ties of the score go to the lower loss; if not, they go to the first
            candidate.
        repeats: Number of random splits.
        seed: Seed of the random splits.

    Raises:
        TaskError: As for `cross_fit`.
    """
    losses = [each.losses for each in candidates] if ties_by_loss else None
    weights = candidates[0].weights if candidates else None
    if task.metric.is_mean:
        return cross_fit(
            [each.scores for each in candidates],
            losses,
            undefined=task.undefined,
            weights=weights,
            repeats=repeats,
            seed=seed,
        )
    if not candidates or candidates[0].n < 2:
        raise TaskError("Cross-fitting needs scores of the same examples, at least two.")
    on_rows = [scores_on_rows(task, each) for each in candidates]

    def scored(rows: Tensor) -> list[float]:
        values = [score(rows) for score in on_rows]
        return [-math.inf if math.isnan(value) else value for value in values]

    loss_table = None if losses is None else torch.stack(losses)
    return _cross_fit(scored, len(candidates), loss_table, weights, candidates[0].n, repeats, seed)


@dataclass(frozen=True)
class GreedyCrossFit:
    """The result of running greedy on one half of the examples and scoring on the other.

    Attributes:
        promised: Mean score of the soups on the half used for choosing.
        delivered: Mean score of the soups on the other half.
        gain_promised: Mean gain over the best ingredient of the half used for choosing, there.
        gain_delivered: Mean gain over the same ingredient on the other half.
        taken: `{ingredient: fraction of the soups that contain it}`.
    """

    promised: float
    delivered: float
    gain_promised: float
    gain_delivered: float
    taken: dict[str, float]

    @property
    def optimism(self) -> float:
        """Inflation of the score by choosing on half of the examples."""
        return self.promised - self.delivered


@with_bar("Selection bias")
def cross_fit_greedy(
    evaluator: Evaluator,
    points: Mapping[str, Mixture],
    *,
    accept: Literal[">=", ">"] = ">=",
    metric: Criterion = "score",
    repeats: int = 10,
    seed: int = 0,
    on_progress: Progress = no_progress,
    progress: bool = True,
) -> GreedyCrossFit:
    """Estimate the selection bias of the greedy recipe with its default order.

    Greedy makes different decisions on each half, so it needs soups that greedy on all examples did
    not try. Each of these is evaluated once, on all of `select`, and used for both halves and all
    repeats. Stored evaluations are reused. As with `cross_fit`, choosing on half of the examples is
    noisier than on all of them.

    Args:
        evaluator: Evaluates at most k + 2·repeats·(k − 1) points for k ingredients, usually fewer.
        points: `{ingredient: point}`.
        accept: As for `soupcore.greedy`.
        metric: As for `soupcore.greedy`.
        repeats: Number of random splits.
        seed: Seed of the random splits.
        on_progress: Called with the number of examples done and the maximum in total. Raise in it
            to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.

    Raises:
        TaskError: There are no ingredients, fewer than two examples, or the metric is undefined for
            some of them (see `Task.undefined`).
    """
    task = evaluator.task
    split, names, undefined = task.select, list(points), task.undefined
    keeps_outputs = needs_outputs(task)
    examples = len(task.split(split))
    if not names or examples < 2:
        raise TaskError("Cross-fitting greedy needs at least one ingredient and two examples.")
    keeps = {">=": operator.ge, ">": operator.gt}[accept]
    known: dict[frozenset[str], Evaluation] = {}
    most = len(names) * (2 * repeats + 1)
    done = 0

    def evaluation(members: tuple[str, ...]) -> Evaluation:
        nonlocal done
        done += 1
        key = frozenset(members)
        if key not in known:
            known[key] = evaluator.evaluate(
                mean(points[name] for name in members), split, keep_outputs=keeps_outputs
            )
            for each in dict.fromkeys((metric, "score" if task.metric.is_mean else metric)):
                values = defined(_values(known[key], each), undefined)
                check_defined(values, each, f"the mean of {', '.join(members)}", split)
        on_progress(done * examples, most * examples)
        return known[key]

    scorers: dict[str, Callable[[Tensor], float]] = {}

    def scored(trial: Evaluation, rows: Tensor) -> float:
        if trial.mixture_key not in scorers:
            scorers[trial.mixture_key] = scores_on_rows(task, trial)
        return scorers[trial.mixture_key](rows)

    def rank(trial: Evaluation, rows: Tensor) -> float:
        """Return the number by which points are compared; −∞ if it is undefined on these rows."""
        value = scored(trial, rows) if metric == "score" else -loss_on_rows(trial, rows)
        return -math.inf if math.isnan(value) else value

    promised = delivered = gain_promised = gain_delivered = 0.0
    taken: Counter[str] = Counter()
    alone = [evaluation((name,)) for name in names]
    for here, there in halves(examples, repeats, seed):
        ranks = [rank(ingredient, here) for ingredient in alone]
        first, *candidates = sorted(range(len(names)), key=lambda i: -ranks[i])
        soup: tuple[str, ...] = (names[first],)
        current = alone[first]
        for candidate in candidates:
            tried = evaluation((*soup, names[candidate]))
            if keeps(rank(tried, here), rank(current, here)):
                soup, current = (*soup, names[candidate]), tried
        best = alone[first]
        promised += scored(current, here)
        delivered += scored(current, there)
        gain_promised += scored(current, here) - scored(best, here)
        gain_delivered += scored(current, there) - scored(best, there)
        taken.update(soup)
    n = 2 * repeats
    return GreedyCrossFit(
        promised / n,
        delivered / n,
        gain_promised / n,
        gain_delivered / n,
        {name: taken[name] / n for name in names},
    )


def _means(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of each row over its numbers that are not NaN; NaN without any."""
    if weights is None:
        return values.nanmean(1)
    return (values * weights).nansum(1) / (weights * ~values.isnan()).sum(1)


def _cross_fit(
    scored: Callable[[Tensor], list[float]],
    count: int,
    losses: Tensor | None,
    weights: Tensor | None,
    examples: int,
    repeats: int,
    seed: int,
) -> CrossFit:
    """Choose on one half and score on the other.

    Args:
        scored: Returns the scores of all candidates on some rows; −∞ for one that cannot be chosen.
        count: Number of candidates.
        losses: Losses of the candidates, which break ties of the score, shape [candidates, n]; None
            for no tie-break.
        weights: The weight of each example, shape [n]; None for equal weights.
        examples: Number of examples.
        repeats: Number of random splits.
        seed: Seed of the random splits.
    """
    losses = (torch.zeros(count, examples) if losses is None else losses).double()
    promised = delivered = 0.0
    chosen = torch.zeros(count)
    for here, there in halves(examples, repeats, seed):
        scores = scored(here)
        if weights is None:
            means = losses[:, here].mean(1)
        else:
            means = (losses[:, here] * weights[here]).sum(1) / weights[here].sum()
        by_loss = (-means).nan_to_num(-math.inf).tolist()
        ranks = list(zip(scores, by_loss, strict=True))
        best = ranks.index(max(ranks))
        promised += scores[best]
        delivered += scored(there)[best]
        chosen[best] += 1
    splits = 2 * repeats
    return CrossFit(promised / splits, delivered / splits, tuple((chosen / splits).tolist()))


def _values(evaluation: Evaluation, metric: Criterion) -> Tensor:
    """Return a value for each example, higher is better, shape [n]."""
    return evaluation.scores if metric == "score" else -evaluation.losses
