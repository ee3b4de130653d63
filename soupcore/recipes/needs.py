"""Helpers of recipes: checks of their inputs, and rounding of computed coefficients."""

from collections.abc import Iterable, Mapping
from fractions import Fraction

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluator
from soupcore.recipes.spec import Recipe
from soupcore.sweeps import Ingredient, Sweep

_DIGITS = 9  # smaller changes of a coefficient are below the precision of float32 weights


def ingredients(
    recipe: Recipe, sweep: Sweep, names: Iterable[str] | None
) -> tuple[Sweep, list[str]]:
    """Return the sweep to work on, and the names of the ingredients to use, in its order.

    In this sweep, tensors that take no part in the recipe are the same in all ingredients.

    Raises:
        RecipeError: The recipe does not accept this number of ingredients.
        SweepError: A name is not in the sweep.
    """
    chosen = sweep.names(names)
    least, most = recipe.takes
    if len(chosen) < least or (most is not None and len(chosen) > most):
        wanted = f"exactly {least}" if least == most else f"at least {least}"
        raise RecipeError(
            f"{recipe.title} needs {wanted} ingredient{'s'[: least > 1]}; got {len(chosen)}."
        )
    return sweep.for_recipe(chosen, uses_base=recipe.needs_base), chosen


def base(recipe: Recipe, sweep: Sweep) -> Ingredient:
    """Return the shared initialisation.

    Raises:
        RecipeError: The sweep has none.
    """
    if sweep.base is None:
        raise RecipeError(
            f"{recipe.title} needs a base checkpoint (the shared initialisation), and "
            f"{sweep.folder} has none. Add base.safetensors, or pass "
            "Sweep.from_folder(folder, base=…)."
        )
    return sweep.base


def choosing(evaluator: Evaluator, split: str) -> dict[str, str]:
    """Return the split and the metric of the choice, as parameters of the soup.

    Args:
        evaluator: The evaluator used for choosing.
        split: The split used for choosing.

    Returns:
        `split`; and `primary`, the name of the metric, if it is not the task's first.
    """
    primary = evaluator.task.primary
    return {"split": split} | ({} if primary is None else {"primary": primary})


def select_split(evaluator: Evaluator, split: str | None) -> str:
    """Return the split to choose on.

    Raises:
        RecipeError: The split does not have the role `select`.
        TaskError: There is no such split.
    """
    split = split or evaluator.task.select
    role = evaluator.task.split(split).role
    if role != "select":
        raise RecipeError(
            f"Recipes may only choose on {evaluator.task.select!r}; {split!r} has role {role!r}."
        )
    return split


def rounded(number: float) -> Fraction:
    """Return a computed coefficient rounded to nine decimal places, as an exact fraction."""
    return Fraction(f"{number:.{_DIGITS}f}")


def shares(weights: Mapping[str, float]) -> dict[str, Fraction]:
    """Scale weights to sum to exactly one, each rounded to nine decimal places.

    The rounding remainder is added to the largest, or to the first of several largest.

    Args:
        weights: Finite numbers with a positive sum. Some may be negative.
    """
    total = sum(weights.values())
    fractions = {name: rounded(weight / total) for name, weight in weights.items()}
    fractions[max(fractions, key=lambda name: fractions[name])] += 1 - sum(fractions.values())
    return fractions
