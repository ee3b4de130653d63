"""Which ingredient of a soup matters.

Two answers: what the soup loses without an ingredient, and its Shapley value (Shapley 1953), the
mean of what it adds over all orders in which the soup could be put together. Both evaluate soups of
fewer ingredients, each once; what such a soup is, `soupcore.recipes.Parts` says.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import mean, stdev
from typing import Protocol

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluator, Progress, no_progress
from soupcore.mixtures import Mixture

#: Up to as many ingredients, all 2ᵏ soups are evaluated and the Shapley values are exact.
EXACT = 6
#: As many orders are sampled where there are more.
ORDERS = 64


class Divisible(Protocol):
    """A soup that can be taken apart.

    Attributes:
        names: Its ingredients.
        nothing: The point that stands for a soup of none; None where there is no such point.
    """

    names: tuple[str, ...]
    nothing: Mixture | None

    def of(self, names: Sequence[str]) -> Mixture:
        """Return the soup of some of the ingredients, one at least."""
        ...


@dataclass(frozen=True)
class Share:
    """What one ingredient adds.

    Attributes:
        value: In units of the score.
        standard_error: Of the sampling of orders; 0 where all were counted.
    """

    value: float
    standard_error: float = 0.0


def leave_one_out(
    evaluator: Evaluator, soup: Divisible, split: str, on_progress: Progress = no_progress
) -> dict[str, float]:
    """Return the score of the soup less its score without each ingredient.

    Args:
        evaluator: Evaluates k + 1 points, less what the store has.
        soup: The soup.
        split: Where to look. It is no ground to change the soup unless it is `select`.
        on_progress: Called with examples done and in all; raise in it to stop.

    Returns:
        `{ingredient: difference}`: positive where the ingredient helps.

    Raises:
        RecipeError: The soup has one ingredient, or there is no soup without one of them.
    """
    names = _at_least_two(soup)
    without = [soup.of([n for n in names if n != name]) for name in names]
    whole, *rest = evaluator.evaluate_all(
        [soup.of(names), *without], split, keep_outputs=False, on_progress=on_progress
    )
    return {name: whole.score - less.score for name, less in zip(names, rest, strict=True)}


def shapley_values(
    evaluator: Evaluator,
    soup: Divisible,
    split: str,
    *,
    orders: int = ORDERS,
    seed: int = 0,
    on_progress: Progress = no_progress,
) -> dict[str, Share]:
    """Return the Shapley value of each ingredient.

    What a soup of none scores has to be said: here as much as the base, and where there is none,
    the mean of the ingredients alone. The values sum to the score of the soup less that.

    Beyond `EXACT` ingredients, orders are sampled (Castro et al. 2009), each with its reverse,
    which makes the error smaller.

    Args:
        evaluator: Evaluates 2ᵏ points, or at most (k − 1)·orders + 2 where orders are sampled.
        soup: The soup.
        split: Where to look.
        orders: How many orders to sample; an even number, 4 at least.
        seed: Of the sampling.
        on_progress: Called with examples done and in all; raise in it to stop.

    Raises:
        RecipeError: As for `leave_one_out`, or there are too few orders or an odd number.
    """
    names = _at_least_two(soup)
    if orders < 4 or orders % 2:
        raise RecipeError(f"Sample an even number of orders, 4 at least, not {orders}.")
    exact = len(names) <= EXACT
    drawn = [] if exact else _orders(names, orders, seed)
    subsets = _all_subsets(names) if exact else _prefixes(drawn)
    alone = [] if soup.nothing is not None else [frozenset([name]) for name in names]
    wanted = list(dict.fromkeys([*alone, *subsets]))
    points = [soup.of([name for name in names if name in subset]) for subset in wanted]
    if soup.nothing is not None:
        points.append(soup.nothing)
    found = evaluator.evaluate_all(points, split, keep_outputs=False, on_progress=on_progress)
    score = {subset: each.score for subset, each in zip(wanted, found, strict=False)}
    none = found[-1].score if soup.nothing is not None else mean(score[each] for each in alone)
    score[frozenset()] = none
    if exact:
        return {name: Share(_exact(names, name, score)) for name in names}
    added = [_added(order, score) for order in drawn]
    return {name: _sampled([each[name] for each in added]) for name in names}


def points(k: int, orders: int = ORDERS) -> int:
    """Return how many points `shapley_values` evaluates of k ingredients, at most."""
    return 2**k if k <= EXACT else (k - 1) * orders + 2


def _at_least_two(soup: Divisible) -> list[str]:
    if len(soup.names) < 2:
        raise RecipeError("To tell which ingredient matters, a soup needs two at least.")
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
    return {
        name: score[frozenset(order[: place + 1])] - score[frozenset(order[:place])]
        for place, name in enumerate(order)
    }


def _sampled(added: Sequence[float]) -> Share:
    # An order and its reverse are not independent; the means of such pairs are.
    pairs = [mean(pair) for pair in zip(added[::2], added[1::2], strict=True)]
    return Share(mean(pairs), stdev(pairs) / math.sqrt(len(pairs)))
