"""Greedy soups in several random orders: how much the order matters (arXiv:2203.05482, Table 3)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from soupcore.evaluation import Evaluator, Progress, no_progress
from soupcore.evaluation.progress import part
from soupcore.recipes import needs
from soupcore.recipes.greedy import GREEDY, Accept, Metric, greedy
from soupcore.recipes.soup import Soup
from soupcore.sweeps import Sweep


@dataclass(frozen=True)
class Orders:
    """Greedy soups of the same ingredients in several random orders.

    Attributes:
        soups: One for each seed.
        split: The split they were chosen on.
    """

    soups: tuple[Soup, ...]
    split: str

    def scores(self, split: str | None = None) -> list[float]:
        """Return the score of each on a split, the one chosen on unless told."""
        return [soup.evaluations[split or self.split].score for soup in self.soups]

    def mean(self, split: str | None = None) -> float:
        """Return the mean of the scores."""
        return mean(self.scores(split))

    def spread(self, split: str | None = None) -> float:
        """Return the standard deviation of the scores from one order to another."""
        scores = self.scores(split)
        return stdev(scores) if len(scores) > 1 else math.nan


def greedy_orders(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    *,
    seeds: Sequence[int] = range(10),
    accept: Accept = ">=",
    metric: Metric = "score",
    split: str | None = None,
    on_progress: Progress = no_progress,
) -> Orders:
    """Follow the greedy recipe in several random orders.

    Args:
        sweep: Where the ingredients are from.
        evaluator: Scores them; at most k evaluations for each order.
        names: Which of them; all unless given.
        seeds: One order each.
        accept: As for `greedy`.
        metric: As for `greedy`.
        split: As for `greedy`.
        on_progress: Called with examples done and in all; raise in it to stop.

    Raises:
        RecipeError: As `greedy` does.
    """
    chosen = needs.ingredients(GREEDY, sweep, names)
    soups = [
        greedy(
            sweep,
            evaluator,
            chosen,
            accept=accept,
            metric=metric,
            order="random",
            seed=seed,
            split=split,
            on_progress=part(on_progress, index, len(seeds)),
        )
        for index, seed in enumerate(seeds)
    ]
    return Orders(tuple(soups), needs.select_split(evaluator, split))
