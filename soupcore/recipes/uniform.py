"""The uniform soup: θ = (1/k)Σθᵢ (Wortsman et al. 2022, arXiv:2203.05482, section 2)."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluator, Progress
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import OnStep, Recipe
from soupcore.sweeps import Sweep


def uniform(sweep: Sweep, names: Iterable[str] | None = None) -> Soup:
    """Average the ingredients with equal coefficients.

    Args:
        sweep: Where they are from.
        names: Which of them; all unless given.

    Raises:
        RecipeError: There are none.
        SweepError: A name is not in the sweep.
    """
    chosen = sweep.names(names)
    if not chosen:
        raise RecipeError("A uniform soup needs at least one ingredient.")
    return Soup.of(sweep, "uniform", {}, dict.fromkeys(chosen, Fraction(1, len(chosen))))


def _follow(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Sequence[str],
    *,
    on_progress: Progress,
    on_step: OnStep,
    **parameters: Any,
) -> Soup:
    return uniform(sweep, names)


RECIPE = Recipe(
    name="uniform",
    title="Uniform",
    summary="The plain mean of the ingredients. Needs no evaluation; one bad run can spoil it.",
    paper="Wortsman et al. 2022, arXiv:2203.05482",
    parameters=(),
    chooses=False,
    trials=lambda k: 0,
    follow=_follow,
)
