"""What choosing promises, and what it gives on examples that it did not choose by.

The best of many on `select` is best partly by luck, so its score there is too high: the more
candidates and the fewer examples, the more so.
"""

import math
import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.evaluation import Evaluation, Evaluator, Progress, no_progress
from soupcore.mixtures import Mixture, mean


@dataclass(frozen=True)
class CrossFit:
    """Choosing on one half of the examples and scoring on the other, many times.

    Attributes:
        promised: Mean score of the chosen on the half it was chosen by.
        delivered: Mean score of the chosen on the other half.
        chosen: How often each candidate was chosen, as shares that sum to 1.
    """

    promised: float
    delivered: float
    chosen: tuple[float, ...]

    @property
    def optimism(self) -> float:
        """By how much choosing on a half of the examples flatters."""
        return self.promised - self.delivered


def cross_fit(
    scores: Sequence[Tensor],
    losses: Sequence[Tensor] | None = None,
    *,
    repeats: int = 100,
    seed: int = 0,
) -> CrossFit:
    """Estimate what choosing the best of some points gives on examples that did not choose it.

    The examples are split at random into halves (of an odd number, one is left out); the candidate
    with the best mean on one half is scored on the other; then the halves change places. A
    candidate with a score that is NaN is the worst on either half, as it is on all examples.
    Choosing on half of the examples is less sure than on all of them, so the optimism of the choice
    that was made on all is somewhat smaller than this one. No forward pass is needed: the scores of
    each example were kept.

    Args:
        scores: For each candidate a score an example on `select`, shape [n], n ≥ 2.
        losses: The losses of the same. Of candidates that score the same, the one with the lower
            loss is chosen, as from a `Curve`; the first, where these are equal or not given.
        repeats: How many times to halve.
        seed: Of the halving.

    Raises:
        TaskError: There are no candidates, or their scores are not of the same examples.
    """
    if not scores or len({len(each) for each in scores}) > 1 or len(scores[0]) < 2:
        raise TaskError("Cross-fitting needs scores of the same examples, two at least.")
    table = torch.stack([each.double() for each in scores])  # [candidates, n]
    is_hopeless = table.isnan().any(1)
    lost = torch.zeros_like(table) if losses is None else torch.stack([*losses]).double()
    promised = delivered = 0.0
    chosen = torch.zeros(len(table))
    for here, there in _halves(table.shape[1], repeats, seed):
        scores_here = table[:, here].mean(1)
        by_score = scores_here.masked_fill(is_hopeless, -math.inf).tolist()
        by_loss = (-lost[:, here].mean(1)).nan_to_num(-math.inf).tolist()
        ranks = list(zip(by_score, by_loss, strict=True))
        best = ranks.index(max(ranks))
        promised += float(scores_here[best])
        delivered += float(table[best, there].mean())
        chosen[best] += 1
    count = 2 * repeats
    return CrossFit(promised / count, delivered / count, tuple((chosen / count).tolist()))


@dataclass(frozen=True)
class GreedyCrossFit:
    """Greedy on one half of the examples, its soup scored on the other, many times.

    Attributes:
        promised: Mean score of the soups on the half they were chosen by.
        delivered: Mean score of the soups on the other half.
        gain_promised: What they were better there than the best ingredient, chosen by that half.
        gain_delivered: What they were better than the same ingredient on the other half.
        taken: `{ingredient: share of the soups that it was in}`.
    """

    promised: float
    delivered: float
    gain_promised: float
    gain_delivered: float
    taken: dict[str, float]

    @property
    def optimism(self) -> float:
        """By how much choosing on a half of the examples flatters."""
        return self.promised - self.delivered


def cross_fit_greedy(
    evaluator: Evaluator,
    points: Mapping[str, Mixture],
    *,
    accept: Literal[">=", ">"] = ">=",
    metric: Literal["score", "loss"] = "score",
    repeats: int = 10,
    seed: int = 0,
    on_progress: Progress = no_progress,
) -> GreedyCrossFit:
    """Estimate what the greedy recipe, best first, gives on examples that it did not choose by.

    Each half goes its own way, so soups are evaluated that greedy on all examples never tried: each
    once, on all of `select`, for both halves and all repeats, and none that the store has. Greedy
    on half of the examples is less sure than on all, as with `cross_fit`.

    Args:
        evaluator: Evaluates at most k + 2·repeats·(k − 1) points of k ingredients, mostly fewer.
        points: The ingredients by name.
        accept: As for `soupcore.greedy`.
        metric: As for `soupcore.greedy`.
        repeats: How many times to halve.
        seed: Of the halving.
        on_progress: Called with examples done and in all, at most; raise in it to stop.

    Raises:
        TaskError: There are no ingredients, or fewer than two examples.
    """
    split, names = evaluator.task.select, list(points)
    examples = len(evaluator.task.split(split))
    if not names or examples < 2:
        raise TaskError("Cross-fitting greedy needs an ingredient and two examples at least.")
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
                mean(points[name] for name in members), split, keep_outputs=False
            )
        on_progress(done * examples, most * examples)
        return known[key]

    promised = delivered = gain_promised = gain_delivered = 0.0
    taken: Counter[str] = Counter()
    alone = [evaluation((name,)) for name in names]
    values = [_values(found, metric) for found in alone]
    for here, there in _halves(examples, repeats, seed):
        order = sorted(range(len(names)), key=lambda i: -_mean(values[i], here))
        first, *candidates = order
        soup: tuple[str, ...] = (names[first],)
        current = alone[first]
        for candidate in candidates:
            tried = evaluation((*soup, names[candidate]))
            if keeps(_mean(_values(tried, metric), here), _mean(_values(current, metric), here)):
                soup, current = (*soup, names[candidate]), tried
        best, chosen = alone[first].scores, current.scores
        promised += _mean(chosen, here)
        delivered += _mean(chosen, there)
        gain_promised += _mean(chosen, here) - _mean(best, here)
        gain_delivered += _mean(chosen, there) - _mean(best, there)
        taken.update(soup)
    n = 2 * repeats
    return GreedyCrossFit(
        promised / n,
        delivered / n,
        gain_promised / n,
        gain_delivered / n,
        {name: taken[name] / n for name in names},
    )


def _halves(examples: int, repeats: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Give two halves of the examples, each first once; of an odd number one is left out."""
    generator = torch.Generator().manual_seed(seed)
    n = examples // 2
    for _ in range(repeats):
        order = torch.randperm(examples, generator=generator)
        yield order[:n], order[n : 2 * n]
        yield order[n : 2 * n], order[:n]


def _values(evaluation: Evaluation, metric: str) -> Tensor:
    return evaluation.scores if metric == "score" else -evaluation.losses


def _mean(values: Tensor, rows: Tensor) -> float:
    return float(values[rows].double().mean())
