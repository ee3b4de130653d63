"""Greedy soups in several random orders (arXiv:2203.05482, Table 3)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from soupcore.evaluation import Evaluator
from soupcore.evaluation.evaluation import Criterion
from soupcore.progress import Progress, no_progress, part, with_bar
from soupcore.recipes import needs
from soupcore.recipes.greedy import GREEDY, Accept, Trial, greedy, search_of
from soupcore.recipes.soup import Soup
from soupcore.sweeps import Sweep


@dataclass(frozen=True)
class Orders:
    """Greedy soups of the same ingredients in several random orders.

    Attributes:
        soups: One soup per seed.
        split: The split used for choosing.
    """

    soups: tuple[Soup, ...]
    split: str

    def scores(self, split: str | None = None) -> list[float]:
        """Return the score of each soup on a split; by default, on `self.split`."""
        return [soup.evaluations[split or self.split].score for soup in self.soups]

    def mean(self, split: str | None = None) -> float:
        """Return the mean of the scores."""
        return mean(self.scores(split))

    def spread(self, split: str | None = None) -> float:
        """Return the standard deviation of the scores over the orders."""
        scores = self.scores(split)
        return stdev(scores) if len(scores) > 1 else math.nan


@with_bar("Greedy orders")
def greedy_orders(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    *,
    seeds: Sequence[int] = range(10),
    accept: Accept = ">=",
    metric: Criterion = "score",
    split: str | None = None,
    on_progress: Progress = no_progress,
    progress: bool = True,
) -> Orders:
    """Build greedy soups in several random orders.

    If the evaluator evaluates several points at the same time, such as on a Ray cluster, the orders
    advance together, without early rejection. The soups are the same.

    Args:
        sweep: The sweep.
        evaluator: Scores the soups: at most k evaluations per order.
        names: Ingredients to use; by default, all.
        seeds: Seeds of the orders.
        accept: As for `greedy`.
        metric: As for `greedy`.
        split: As for `greedy`.
        on_progress: Called with the number of examples done and in total. Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.

    Raises:
        RecipeError: As for `greedy`.
    """
    sweep, chosen = needs.ingredients(GREEDY, sweep, names)
    split = needs.select_split(evaluator, split)
    if evaluator.at_once == 1:  # trials can be rejected early, which needs one after another
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
        return Orders(tuple(soups), split)
    settings = {"accept": accept, "metric": metric, "order": "random"}
    searches = [
        search_of(sweep, evaluator, chosen, {}, GREEDY.check({**settings, "seed": seed}), split)
        for seed in seeds
    ]
    wanted = [next(search) for search in searches]
    for index in range(len(chosen)):
        trials = [each for each in wanted if isinstance(each, Trial)]
        found = evaluator.evaluate_all(
            [trial.point for trial in trials],
            split,
            keep_outputs=False,
            on_progress=part(on_progress, index, len(chosen)),
        )
        wanted = [search.send(each) for search, each in zip(searches, found, strict=True)]
    return Orders(tuple(each for each in wanted if isinstance(each, Soup)), split)
