"""Coefficients in proportion to how well each ingredient does alone.

Common practice without a paper of its own: between the uniform soup (power 0) and the best
ingredient (a large power).
"""

import math
from collections.abc import Iterable
from typing import Literal

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluation, Evaluator, Progress, no_progress
from soupcore.recipes import needs
from soupcore.recipes.shares import shares
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Choice, Number, Recipe
from soupcore.recipes.trace import OnStep, no_step
from soupcore.sweeps import Sweep

Metric = Literal["score", "loss"]


def weighted(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    *,
    metric: Metric = "score",
    power: float = 1.0,
    split: str | None = None,
    on_progress: Progress = no_progress,
    on_step: OnStep = no_step,
) -> Soup:
    """Average the ingredients with coefficients ∝ scoreᵖ, or ∝ loss⁻ᵖ.

    An ingredient whose metric is not a number gets none.

    Args:
        sweep: Where the ingredients are from.
        evaluator: Scores them; one evaluation each where the store has none.
        names: Which of them; all unless given.
        metric: `score`, or `loss`.
        power: p ≥ 0; 0 weighs all alike.
        split: The split to weigh on; it must have the role `select`.
        on_progress: Called with examples done and in all; raise in it to stop.
        on_step: Never called: there are no decisions.

    Raises:
        RecipeError: The metric is negative somewhere, or nowhere a number above 0; or the split is
            not for choosing.
    """
    parameters = WEIGHTED.check({"metric": metric, "power": power})
    chosen = needs.ingredients(WEIGHTED, sweep, names)
    split = needs.select_split(evaluator, split)
    found = evaluator.evaluate_all(
        [sweep[name].mixture for name in chosen], split, on_progress=on_progress
    )
    weights = {
        name: _weight(evaluation, metric, power)
        for name, evaluation in zip(chosen, found, strict=True)
    }
    if not any(weights.values()):
        raise RecipeError(
            f"No ingredient has a {metric} on {split!r} that weighs anything; choose another "
            "metric or other ingredients."
        )
    soup = Soup.of(sweep, "weighted", parameters | {"split": split}, shares(weights))
    soup.take_statistics_of(evaluator)
    return soup


def _weight(evaluation: Evaluation, metric: Metric, power: float) -> float:
    value = evaluation.score if metric == "score" else evaluation.loss
    if value < 0:
        raise RecipeError(
            f"A {metric} of {value:.4g} cannot be a weight, which is never negative. Weigh by the "
            f"{'loss' if metric == 'score' else 'score'}, or take another recipe."
        )
    if math.isnan(value):
        return 0.0
    try:
        return float(value**power if metric == "score" else value**-power)
    except (ZeroDivisionError, OverflowError):
        raise RecipeError(
            f"A {metric} of {value:.4g} to the power {power:g} is too large to be a weight; "
            "choose a smaller power."
        ) from None


WEIGHTED = Recipe(
    name="weighted",
    title="Weighted",
    summary="The mean weighted by how well each ingredient does alone on select.",
    paper="Common practice",
    function=weighted,
    chooses=True,
    ranks=True,
    parameters=(
        Choice(
            name="metric",
            label="Weigh by",
            help="The score, or one over the loss.",
            default="score",
            choices=("score", "loss"),
        ),
        Number(
            name="power",
            label="Power",
            help="0 weighs all alike; the larger, the more the best one counts.",
            default=1.0,
            minimum=0,
            maximum=100,
            step=0.5,
            curve=(0, 1, 2, 4, 8, 16, 32),
        ),
    ),
)
