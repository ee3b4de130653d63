"""What recipes need before they start, told in words where it is missing."""

from collections.abc import Iterable

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluator
from soupcore.recipes.spec import Recipe
from soupcore.sweeps import Ingredient, Sweep


def ingredients(recipe: Recipe, sweep: Sweep, names: Iterable[str] | None) -> list[str]:
    """Return the names of the ingredients to use, in the sweep's order.

    Raises:
        RecipeError: They are too few or too many for the recipe.
        SweepError: A name is not in the sweep.
    """
    chosen = sweep.names(names)
    least, most = recipe.takes
    if len(chosen) < least or (most is not None and len(chosen) > most):
        wanted = f"exactly {least}" if least == most else f"at least {least}"
        raise RecipeError(
            f"The recipe {recipe.name!r} takes {wanted} ingredient{'s'[: least > 1]}, not "
            f"{len(chosen)}; name others."
        )
    return chosen


def base(recipe: Recipe, sweep: Sweep) -> Ingredient:
    """Return the shared initialisation.

    Raises:
        RecipeError: The sweep has none.
    """
    if sweep.base is None:
        raise RecipeError(
            f"The recipe {recipe.name!r} needs the base, the checkpoint that all ingredients were "
            f"fine-tuned from, and {sweep.folder} has none. Put it there as base.safetensors, or "
            "say which ingredient it is: Sweep.from_folder(folder, base=…)."
        )
    return sweep.base


def select_split(evaluator: Evaluator, split: str | None) -> str:
    """Return the split to choose on.

    Raises:
        RecipeError: The split is not for choosing.
        TaskError: There is no such split.
    """
    split = split or evaluator.task.select
    role = evaluator.task.split(split).role
    if role != "select":
        raise RecipeError(
            f"The split {split!r} has the role {role!r}; a recipe may only choose on "
            f"{evaluator.task.select!r}."
        )
    return split
