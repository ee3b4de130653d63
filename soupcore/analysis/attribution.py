"""Attribution: the contribution of each ingredient to the score of a soup.

There are two measures: the leave-one-out drop, and the Shapley value (Shapley 1953), which is the
mean contribution over all orders in which ingredients can be added. Both evaluate sub-soups, which
`soupcore.recipes.Parts` defines, each once.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev
from typing import Protocol

from soupcore.errors import RecipeError, TaskError
from soupcore.evaluation import Evaluation, Evaluator
from soupcore.evaluation.evaluation import value_of
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, no_progress, with_bar

#: Up to this number of ingredients, all 2ᵏ sub-soups are evaluated and Shapley values are exact.
EXACT = 6
#: Default number of sampled orders for more ingredients.
ORDERS = 64


class Divisible(Protocol):
    """A soup with sub-soups.

    Attributes:
        names: Ingredients of the soup.
        nothing: The point of an empty sub-soup, or None.
    """

    names: tuple[str, ...]
    nothing: Mixture | None

    def of(self, names: Sequence[str]) -> Mixture:
        """Return the sub-soup of some of the ingredients, at least one."""
        ...


@dataclass(frozen=True)
class Share:
    """The contribution of one ingredient.

    Attributes:
        value: Contribution in units of the score.
        standard_error: Standard error from sampling orders; 0 if the value is exact.
    """

    value: float
    standard_error: float = 0.0


@with_bar("Leave-one-out")
def leave_one_out(
    evaluator: Evaluator,
    soup: Divisible,
    split: str,
    *,
    on_progress: Progress = no_progress,
    progress: bool = True,
) -> dict[str, float]:
    """Return the score of the soup minus its score without each ingredient.

    Args:
        evaluator: Evaluates at most k + 1 points. Stored evaluations are reused.
        soup: The soup.
        split: Name of the split. Do not change the soup by the result unless it is `select`.
        on_progress: Called with the number of examples done and in total. Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.

    Returns:
        `{ingredient: difference}`, positive if the ingredient helps.

    Raises:
        RecipeError: The soup has only one ingredient, or a sub-soup is undefined.
        TaskError: A score is undefined for some examples, or not finite.
    """
    names = _at_least_two(soup)
    without = [soup.of([n for n in names if n != name]) for name in names]
    whole, *rest = evaluator.evaluate_all(
        [soup.of(names), *without], split, keep_outputs=False, on_progress=on_progress
    )
    score = _score(whole)
    return {name: score - _score(less) for name, less in zip(names, rest, strict=True)}


@with_bar("Shapley values")
def shapley_values(
    evaluator: Evaluator,
    soup: Divisible,
    split: str,
    *,
    orders: int = ORDERS,
    seed: int = 0,
    on_progress: Progress = no_progress,
    progress: bool = True,
) -> dict[str, Share]:
    """Return the Shapley value of each ingredient.

    The empty soup is defined to score as the base or, without a base, as the mean of the
    ingredients' own scores. The values sum to the score of the soup minus this score.

    With more than `EXACT` ingredients, orders are sampled (Castro et al. 2009), each together with
    its reverse to reduce the variance.

    Args:
        evaluator: Evaluates at most 2ᵏ points, or (k − 1)·orders + 2 if orders are sampled.
        soup: The soup.
        split: Name of the split.
        orders: Number of orders to sample: even, at least 4.
        seed: Seed of the sampling.
        on_progress: Called with the number of examples done and in total. Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.

    Raises:
        RecipeError: As for `leave_one_out`, or the number of orders is invalid.
        TaskError: As for `leave_one_out`.
    """
    names = _at_least_two(soup)
    if orders < 4 or orders % 2:
        raise RecipeError(f"The number of orders must be even and at least 4, not {orders}.")
    exact = len(names) <= EXACT
    drawn = [] if exact else _orders(names, orders, seed)
    subsets = _all_subsets(names) if exact else _prefixes(drawn)
    alone = [] if soup.nothing is not None else [frozenset([name]) for name in names]
    wanted = list(dict.fromkeys([*alone, *subsets]))
    mixtures = [soup.of([name for name in names if name in subset]) for subset in wanted]
    if soup.nothing is not None:
        mixtures.append(soup.nothing)
    evaluations = evaluator.evaluate_all(
        mixtures, split, keep_outputs=False, on_progress=on_progress
    )
    score = {subset: _score(each) for subset, each in zip(wanted, evaluations, strict=False)}
    has_point = soup.nothing is not None
    score[frozenset()] = (
        _score(evaluations[-1]) if has_point else mean(score[each] for each in alone)
    )
    if exact:
        return {name: Share(_exact(names, name, score)) for name in names}
    added = [_added(order, score) for order in drawn]
    return {name: _sampled([each[name] for each in added]) for name in names}


def points(k: int, orders: int = ORDERS) -> int:
    """Return the maximum number of points that `shapley_values` evaluates for k ingredients."""
    return 2**k if k <= EXACT else (k - 1) * orders + 2


def _score(evaluation: Evaluation) -> float:
    score = value_of(evaluation, "score", "a sub-soup")
    if score == -math.inf:
        raise TaskError(
            f"A sub-soup has no finite score on {evaluation.split!r}, so attribution is not "
            "possible. Exclude the ingredient that diverged."
        )
    return score


def _at_least_two(soup: Divisible) -> list[str]:
    if len(soup.names) < 2:
        raise RecipeError("Attribution needs at least two ingredients in the soup.")
    return list(soup.names)


def _all_subsets(names: Sequence[str]) -> list[frozenset[str]]:
    sizes = range(1, len(names) + 1)
    return [frozenset(chosen) for size in sizes for chosen in combinations(names, size)]


def _orders(names: Sequence[str], count: int, seed: int) -> list[list[str]]:
    generator = random.Random(seed)  # noqa: S311 - no secret
    drawn = []
    for _ in range(count // 2):
        order = generator.sample(names, len(names))
        drawn += [order, order[::-1]]
    return drawn


def _prefixes(orders: Iterable[Sequence[str]]) -> list[frozenset[str]]:
    return [frozenset(order[:size]) for order in orders for size in range(1, len(order) + 1)]


def _exact(names: Sequence[str], name: str, score: Mapping[frozenset[str], float]) -> float:
    """Return the Shapley value of an ingredient from the scores of all subsets."""
    others = [other for other in names if other != name]
    k = len(names)
    return sum(
        mean(
            score[frozenset([*chosen, name])] - score[frozenset(chosen)]
            for chosen in combinations(others, size)
        )
        for size in range(k)
    ) / k  # fmt: skip


def _added(order: Sequence[str], score: Mapping[frozenset[str], float]) -> dict[str, float]:
    """Return how much each ingredient adds to the score when they join in this order."""
    return {
        name: score[frozenset(order[: place + 1])] - score[frozenset(order[:place])]
        for place, name in enumerate(order)
    }


def _sampled(added: Sequence[float]) -> Share:
    """Return the mean contribution over sampled orders, with its standard error."""
    # An order and its reverse are not independent, but the means of such pairs are.
    pairs = [mean(pair) for pair in zip(added[::2], added[1::2], strict=True)]
    return Share(mean(pairs), stdev(pairs) / math.sqrt(len(pairs)))
