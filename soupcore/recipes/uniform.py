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
        sweep: The sweep.
        names: Ingredients to use; by default, all.

    Raises:
        RecipeError: There are no ingredients.
        SweepError: A name is not in the sweep.
    """
    sweep, chosen = needs.ingredients(UNIFORM, sweep, names)
    return Soup.of(sweep, "uniform", {}, dict.fromkeys(chosen, Fraction(1, len(chosen))))


UNIFORM = Recipe(
    name="uniform",
    title="Uniform",
    summary="Equal-weight average of all selected ingredients. No evaluation needed, but one bad "
    "run can ruin it.",
    paper="Wortsman et al. 2022, arXiv:2203.05482",
    function=uniform,
)
