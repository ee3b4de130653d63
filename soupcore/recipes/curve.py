"""A sweep over one parameter of a recipe, such as α or λ.

Choosing the best value by its select score is a selection like any other, so this score is
optimistic. Report the scores of the chosen value on other splits.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluator
from soupcore.evaluation.evaluation import value_of
from soupcore.progress import Progress, no_progress, part, stretch, with_bar
from soupcore.recipes import needs
from soupcore.recipes.registry import RECIPES
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Number
from soupcore.sweeps import Sweep

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Curve:
    """Soups of one recipe that differ in one parameter.

    Attributes:
        recipe: Name of the recipe.
        parameter: Name of the parameter.
        values: Values of the parameter, in the order tried.
        soups: The evaluated soup of each value.
        split: The split used for choosing.
    """

    recipe: str
    parameter: str
    values: tuple[float, ...]
    soups: tuple[Soup, ...]
    split: str

    def scores(self, split: str | None = None) -> list[float]:
        """Return the score of each soup on a split; by default, on `self.split`."""
        return [soup.evaluations[split or self.split].score for soup in self.soups]

    def losses(self, split: str | None = None) -> list[float]:
        """Return the loss of each soup on a split; by default, on `self.split`."""
        return [soup.evaluations[split or self.split].loss for soup in self.soups]

    def at(self, value: float) -> Soup:
        """Return the soup at one of the values.

        Raises:
            RecipeError: The curve has no such value.
        """
        if value not in self.values:
            known = ", ".join(map(str, self.values))
            raise RecipeError(f"No curve point at {value}; available: {known}.")
        return self.soups[self.values.index(value)]

    @property
    def best(self) -> Soup:
        """The soup with the best score on `split`. Ties go to the lower loss.

        Raises:
            TaskError: The score is undefined for some examples (see `Task.undefined`).
        """

        def rank(soup: Soup) -> tuple[float, float]:
            evaluation = soup.evaluations[self.split]
            loss = -math.inf if math.isnan(evaluation.loss) else -evaluation.loss
            return value_of(evaluation, "score", f"a soup by {self.recipe!r}"), loss

        return max(self.soups, key=rank)

    def figure(self) -> "go.Figure":
        """Plot the score of the soups on the select split (see `soupcore.figures.recipe_curve`)."""
        import pandas as pd

        from soupcore import figures  # loads Plotly

        table = pd.DataFrame({"value": self.values, "select": self.scores()}).sort_values("value")
        labels = self.soups[0].evaluations[self.split].labels
        return figures.recipe_curve(
            table,
            parameter=self.parameter,
            best=self._best_value,
            score_name=labels.score_name,
            score_unit=labels.score_unit,
        )

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per value and split, with the columns of `Soup.to_frame`."""
        import pandas as pd

        tables = [soup.to_frame().reset_index() for soup in self.soups]
        table: pd.DataFrame = pd.concat(tables, keys=self.values, names=[self.parameter, "row"])
        return table.reset_index(self.parameter).reset_index(drop=True)

    def __repr__(self) -> str:
        best = self.best
        scored = best.evaluations[self.split]
        return (
            f"Curve({self.recipe}, {len(self.values)} values of {self.parameter}, best "
            f"{self._best_value:g}: {scored.split} {scored.score_text})"
        )

    @property
    def _best_value(self) -> float:
        best = self.best
        return next(v for v, soup in zip(self.values, self.soups, strict=True) if soup is best)


@with_bar("Curve")
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
    progress: bool = True,
    on_point: Callable[[float, Soup], None] = lambda value, soup: None,
    **parameters: Any,
) -> Curve:
    """Build and evaluate the soups of a recipe for several values of one parameter.

    The values are taken in turn, or all together if the evaluator evaluates several points at the
    same time.

    Args:
        recipe: Name of the recipe.
        parameter: Name of a numeric parameter.
        sweep: The sweep.
        evaluator: Scores the soups: one evaluation per value and split, unless stored.
        names: Ingredients to use; by default, all.
        values: Values to try; by default, those of the recipe's paper.
        splits: Splits to evaluate on, in addition to the select split.
        on_progress: Called with the number of examples done and in total. Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.
        on_point: Called with each value and its soup.
        parameters: The recipe's other parameters.

    Raises:
        RecipeError: The recipe or the parameter does not exist, or the recipe cannot be applied.
        TaskError: The score is undefined for some examples (see `Task.undefined`).
    """
    known = RECIPES.get(recipe)
    if known is None:
        raise RecipeError(f"No recipe {recipe!r}; available: {', '.join(RECIPES)}.")
    numbers = {p.name: p for p in known.parameters if isinstance(p, Number) and p.curve}
    if parameter not in numbers:
        raise RecipeError(
            f"{known.title} has no parameter {parameter!r} to sweep over; available: "
            f"{', '.join(numbers) or 'none'}."
        )
    split = needs.select_split(evaluator, None)
    wanted = list(dict.fromkeys((split, *(splits or ()))))
    tried = tuple(numbers[parameter].curve if values is None else values)
    if not tried:
        raise RecipeError("A curve needs at least one value.")
    soups: list[Soup] = []
    size = min(evaluator.at_once, len(tried))
    for start in range(0, len(tried), size):
        values = tried[start : start + size]
        here = part(on_progress, start, len(tried), len(values))
        making, evaluating = part(here, 0, 2), part(here, 1, 2)
        made = [
            known.follow(
                sweep,
                evaluator,
                names,
                on_progress=part(making, index, len(values)),
                **parameters | {parameter: value},
            )
            for index, value in enumerate(values)
        ]
        if len(made) > 1:
            points = [soup.mixture for soup in made]
            for index, each in enumerate(wanted):
                progress_on_split = part(evaluating, index, len(wanted))
                evaluator.evaluate_all(points, each, on_progress=progress_on_split)
            evaluating = stretch(here, 1, 0, 1)  # all are stored now
        for value, soup in zip(values, made, strict=True):
            soups.append(soup.evaluate(evaluator, wanted, on_progress=evaluating))
            value_of(soup.evaluations[split], "score", f"the soup at {parameter} = {value}")
            on_point(value, soup)
    return Curve(recipe, parameter, tried, tuple(soups), split)
