"""A soup with given coefficients."""

from collections.abc import Mapping

from soupcore.errors import RecipeError
from soupcore.mixtures import Coefficient, as_fraction
from soupcore.recipes.soup import Soup
from soupcore.sweeps import Sweep


def manual(sweep: Sweep, coefficients: Mapping[str, Coefficient]) -> Soup:
    """Mix ingredients with given coefficients, which are scaled to sum to exactly one.

    Args:
        sweep: The sweep.
        coefficients: `{name: coefficient}` of ingredients or the base. Negative coefficients
            extrapolate.

    Raises:
        RecipeError: The coefficients sum to 0, or there are none.
        SweepError: A name is not in the sweep.
    """
    fractions = {name: as_fraction(c) for name, c in coefficients.items()}
    total = sum(fractions.values())
    if total == 0:
        raise RecipeError(
            "Coefficients sum to 0; the weighted average is undefined. Change one of them."
        )
    scaled = {name: fraction / total for name, fraction in fractions.items()}
    base = sweep.base.name if sweep.base is not None else None
    chosen = [name for name in scaled if name != base]
    sweep = sweep.for_recipe(chosen, uses_base=base in scaled)
    return Soup.of(sweep, "manual", {}, scaled)
