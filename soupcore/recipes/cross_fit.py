"""Selection bias of soups whose coefficients were searched by evaluations."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluation, Evaluator
from soupcore.evaluation.measuring import loss_on_rows, needs_outputs, scores_on_rows
from soupcore.intervals import halves
from soupcore.progress import Progress, no_progress, part, with_bar
from soupcore.recipes import needs
from soupcore.recipes.learned import LEARNED
from soupcore.recipes.search import Search, rank
from soupcore.sweeps import Sweep


@dataclass(frozen=True)
class SearchCrossFit:
    """The result of searching on one half of the examples and scoring on the other.

    Attributes:
        promised: Mean score of the soups on the half used for the search.
        delivered: Mean score of the soups on the other half.
        gain_promised: Mean gain over the best ingredient of the half used for the search, there.
        gain_delivered: Mean gain over the same ingredient on the other half.
    """

    promised: float
    delivered: float
    gain_promised: float
    gain_delivered: float

    @property
    def optimism(self) -> float:
        """Inflation of the score by searching on half of the examples."""
        return self.promised - self.delivered


@with_bar("Selection bias")
def cross_fit_learned(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    *,
    repeats: int = 1,
    halves_seed: int = 0,
    on_progress: Progress = no_progress,
    progress: bool = True,
    **parameters: Any,
) -> SearchCrossFit:
    """Estimate the selection bias of a learned soup with the optimiser `cma`.

    The search is run on each half of the select split and its result is scored on the other. Each
    point is evaluated once, on all of the split, and both halves are scored from its records.
    Stored evaluations are reused. Searching on half of the examples is noisier than on all of them,
    so the bias of the actual search is somewhat smaller than the estimate.

    Args:
        sweep: The sweep.
        evaluator: Evaluates at most k + 2·repeats·evaluations points for k ingredients.
        names: Ingredients to use; by default, all.
        repeats: Number of random divisions into halves; each takes two searches.
        halves_seed: Seed of the divisions.
        on_progress: Called with the number of examples done and the maximum in total. Raise in it
            to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.
        parameters: Those of `soupcore.learned`.

    Raises:
        RecipeError: The optimiser is not `cma`, there are fewer than two examples, a parameter is
            out of range, or the package cma is not installed.
        TaskError: The metric is undefined on a half.
    """
    settings = LEARNED.check({"optimizer": "cma"} | parameters)
    if settings["optimizer"] != "cma":
        raise RecipeError(
            "Only learned soups with the optimiser `cma` can be cross-fitted: other optimisers "
            "minimise the loss and hold out examples themselves."
        )
    sweep, chosen = needs.ingredients(LEARNED, sweep, names)
    task = evaluator.task
    split = task.select
    examples = len(task.split(split))
    if examples < 2:
        raise RecipeError("Cross-fitting needs at least two examples.")
    keeps = needs_outputs(task)
    points = [sweep[name].mixture for name in chosen]
    alone = evaluator.evaluate_all(
        points, split, keep_outputs=keeps, on_progress=part(on_progress, 0, 2 * repeats + 1)
    )
    search = Search(sweep, evaluator, split, settings, chosen, keep_outputs=keeps)
    sums = [0.0, 0.0, 0.0, 0.0]
    for index, (here, there) in enumerate(halves(examples, repeats, halves_seed), start=1):

        def by_half(evaluation: Evaluation, rows: Tensor = here) -> tuple[float, float]:
            score = scores_on_rows(task, evaluation)(rows)
            return rank(score, loss_on_rows(evaluation, rows))

        found = search.run(by_half, on_progress=part(on_progress, index, 2 * repeats + 1))
        soup = evaluator.evaluate(search.soup_of(found.best).mixture, split, keep_outputs=keeps)
        best = min(alone, key=by_half)
        scores = [
            scores_on_rows(task, each)(rows) for each in (soup, best) for rows in (here, there)
        ]
        if not all(map(math.isfinite, scores)):
            raise RecipeError(
                f"The {task.score_name} is undefined on a half of {split!r}, so the search cannot "
                "be cross-fitted."
            )
        gains = scores[0] - scores[2], scores[1] - scores[3]
        sums = [total + each for total, each in zip(sums, (*scores[:2], *gains), strict=True)]
    return SearchCrossFit(*(total / (2 * repeats) for total in sums))
