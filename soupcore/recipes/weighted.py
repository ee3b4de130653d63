"""Coefficients proportional to a power of each ingredient's own score.

This is common practice; there is no single paper on it. Power 0 gives the uniform soup, and a large
power approaches the best ingredient.
"""

import math
from collections.abc import Iterable

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluator
from soupcore.evaluation.evaluation import Criterion, value_of
from soupcore.progress import Progress, no_progress, with_bar
from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Choice, Number, Recipe
from soupcore.recipes.trace import OnStep, no_step
from soupcore.sweeps import Sweep


@with_bar("Weighted soup")
def weighted(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    *,
    metric: Criterion = "score",
    power: float = 1.0,
    split: str | None = None,
    on_progress: Progress = no_progress,
    progress: bool = True,
    on_step: OnStep = no_step,
) -> Soup:
    """Average the ingredients with coefficients ∝ scoreᵖ, or ∝ loss⁻ᵖ.

    The score is the task's primary metric. If lower values of it are better, the coefficients are
    ∝ value⁻ᵖ, as for the loss.

    An ingredient with an infinitely bad metric, such as an infinite loss, gets coefficient 0.

    Args:
        sweep: The sweep.
        evaluator: Scores the ingredients: one evaluation each, unless stored.
        names: Ingredients to use; by default, all.
        metric: `score` or `loss`.
        power: p ≥ 0; 0 gives equal weights.
        split: The split to score on, with the role `select`.
        on_progress: Called with the number of examples done and in total. Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.
        on_step: Never called, because there are no steps.

    Raises:
        RecipeError: A metric is negative, all weights are zero, or the split does not have the
            role `select`.
        TaskError: The metric is undefined for some examples (see `Task.undefined`).
    """
    parameters = WEIGHTED.check({"metric": metric, "power": power})
    sweep, chosen = needs.ingredients(WEIGHTED, sweep, names)
    split = needs.select_split(evaluator, split)
    evaluations = evaluator.evaluate_all(
        [sweep[name].mixture for name in chosen], split, on_progress=on_progress
    )
    rises = metric == "score" and evaluator.task.metric.higher_is_better
    weights = {
        name: _weight(value_of(evaluation, metric, repr(name)), metric, power, rises=rises)
        for name, evaluation in zip(chosen, evaluations, strict=True)
    }
    if not any(weights.values()):
        raise RecipeError(
            f"All weights are zero: no ingredient has a non-zero {metric} on {split!r}. Choose "
            "another metric or other ingredients."
        )
    settings = parameters | needs.choosing(evaluator, split)
    soup = Soup.of(sweep, "weighted", settings, needs.shares(weights))
    soup.take_statistics_of(evaluator)
    return soup


def _weight(compared_by: float, metric: Criterion, power: float, *, rises: bool) -> float:
    if compared_by == -math.inf:
        return 0.0
    value = compared_by if rises else -compared_by
    if value < 0:
        raise RecipeError(
            f"Weights cannot be negative, but an ingredient has {metric} {value:.4g}. Weight by "
            f"{'loss' if metric == 'score' else 'score'}, or use another recipe."
        )
    try:
        return float(value**power if rises else value**-power)
    except (ZeroDivisionError, OverflowError):
        raise RecipeError(
            f"The weight of an ingredient overflows: {metric} {value:.4g}, power {power:g}. "
            "Choose a smaller power."
        ) from None


WEIGHTED = Recipe(
    name="weighted",
    title="Weighted",
    summary="Average weighted by each ingredient's own validation score.",
    paper="No single source (common practice)",
    function=weighted,
    chooses=True,
    ranks=True,
    parameters=(
        Choice(
            name="metric",
            label="Weight by",
            help="Score, or 1 / loss.",
        ),
        Number(
            name="power",
            label="Power",
            help="0 = uniform; larger values favour the best ingredients.",
            minimum=0,
            maximum=100,
            step=0.5,
            curve=(0, 1, 2, 4, 8, 16, 32),
        ),
    ),
)
