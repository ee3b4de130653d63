"""The uniform soup: θ = (1/k)Σθᵢ (Wortsman et al. 2022, arXiv:2203.05482, section 2)."""

from collections.abc import Iterable
from fractions import Fraction

from soupcore.recipes import needs
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Recipe
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
    chosen = needs.ingredients(UNIFORM, sweep, names)
    return Soup.of(sweep, "uniform", {}, dict.fromkeys(chosen, Fraction(1, len(chosen))))


UNIFORM = Recipe(
    name="uniform",
    title="Uniform",
    summary="The plain mean of the ingredients. Needs no evaluation; one bad run can spoil it.",
    paper="Wortsman et al. 2022, arXiv:2203.05482",
    function=uniform,
)
