"""A recipe followed with one parameter at several values: the sweep over λ or α of its paper.

Choosing a value by its select score is choosing as much as greedy's is; the other splits show what
the choice is worth.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluator, Progress, no_progress
from soupcore.evaluation.progress import part
from soupcore.recipes import needs
from soupcore.recipes.registry import RECIPES
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Number
from soupcore.sweeps import Sweep


@dataclass(frozen=True)
class Curve:
    """Soups of one recipe that differ in one parameter.

    Attributes:
        recipe: Name of the recipe.
        parameter: Name of the parameter.
        values: The values it had, in the order they were tried.
        soups: The soup of each, evaluated.
        split: The split to choose on.
    """

    recipe: str
    parameter: str
    values: tuple[float, ...]
    soups: tuple[Soup, ...]
    split: str

    def scores(self, split: str | None = None) -> list[float]:
        """Return the score of each soup on a split, the one to choose on unless told."""
        return [soup.evaluations[split or self.split].score for soup in self.soups]

    def losses(self, split: str | None = None) -> list[float]:
        """Return the loss of each soup on a split, the one to choose on unless told."""
        return [soup.evaluations[split or self.split].loss for soup in self.soups]

    def at(self, value: float) -> Soup:
        """Return the soup at one of the values.

        Raises:
            RecipeError: It is none of them.
        """
        if value not in self.values:
            raise RecipeError(f"The curve has no point at {value}; it has {self.values}.")
        return self.soups[self.values.index(value)]

    @property
    def best(self) -> Soup:
        """The soup with the best score on the split to choose on; of equal ones the lower loss."""

        def rank(soup: Soup) -> tuple[float, float]:
            found = soup.evaluations[self.split]
            score = -math.inf if math.isnan(found.score) else found.score
            return score, -math.inf if math.isnan(found.loss) else -found.loss

        return max(self.soups, key=rank)


def curve(
    recipe: str,
    parameter: str,
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    *,
    values: Sequence[float] | None = None,
    splits: Sequence[str] | None = None,
    on_progress: Progress = no_progress,
    on_point: Callable[[float, Soup], None] = lambda value, soup: None,
    **parameters: Any,
) -> Curve:
    """Follow a recipe with one parameter at several values and evaluate each soup.

    Args:
        recipe: Name of the recipe.
        parameter: Name of the parameter, a number.
        sweep: Where the ingredients are from.
        evaluator: Scores the soups; one evaluation for each value and split where the store has
            none.
        names: Which ingredients; all unless given.
        values: The values; those that the recipe's paper tries unless given.
        splits: Evaluate on these as well as on the split to choose on.
        on_progress: Called with examples done and in all; raise in it to stop.
        on_point: Called with each value and its soup.
        parameters: The recipe's other parameters.

    Raises:
        RecipeError: There is no such recipe or parameter, or it cannot be followed.
    """
    known = RECIPES.get(recipe)
    if known is None:
        raise RecipeError(f"There is no recipe {recipe!r}; there are {', '.join(RECIPES)}.")
    numbers = {p.name: p for p in known.parameters if isinstance(p, Number) and p.curve}
    if parameter not in numbers:
        raise RecipeError(
            f"The recipe {recipe!r} has no parameter {parameter!r} to draw a curve over; it has "
            f"{', '.join(numbers) or 'none'}."
        )
    split = needs.select_split(evaluator, None)
    wanted = list(dict.fromkeys((split, *(splits or ()))))
    tried = tuple(numbers[parameter].curve if values is None else values)
    if not tried:
        raise RecipeError("A curve needs at least one value.")
    soups = []
    for index, value in enumerate(tried):
        progress = part(on_progress, index, len(tried))
        soup = known.follow(
            sweep,
            evaluator,
            names,
            on_progress=part(progress, 0, 2),
            **parameters | {parameter: value},
        )
        soups.append(soup.evaluate(evaluator, wanted, part(progress, 1, 2)))
        on_point(value, soup)
    return Curve(recipe, parameter, tried, tuple(soups), split)
