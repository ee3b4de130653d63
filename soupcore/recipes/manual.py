"""A soup of coefficients chosen by hand."""

from collections.abc import Mapping

from soupcore.errors import RecipeError
from soupcore.mixtures import Coefficient, as_fraction
from soupcore.recipes.soup import Soup
from soupcore.sweeps import Sweep


def manual(sweep: Sweep, coefficients: Mapping[str, Coefficient]) -> Soup:
    """Mix ingredients (and the base, under its name) by given coefficients.

    They are scaled to sum to one, exactly; negative ones extrapolate.

    Raises:
        RecipeError: They sum to 0, or there are none.
        SweepError: A name is not in the sweep.
    """
    fractions = {name: as_fraction(c) for name, c in coefficients.items()}
    total = sum(fractions.values())
    if total == 0:
        raise RecipeError(
            "The coefficients sum to 0, so they name no weighted mean; make their sum another."
        )
    scaled = {name: fraction / total for name, fraction in fractions.items()}
    return Soup.of(sweep, "manual", {}, scaled)
