"""Descriptions of recipes.

The description of a recipe validates requests, and generates its widgets on the page and its row in
the README.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluator
from soupcore.progress import Progress, no_progress
from soupcore.recipes.soup import Soup
from soupcore.recipes.trace import OnStep, no_step
from soupcore.sweeps import Sweep


@dataclass(frozen=True)
class Parameter(ABC):
    """A parameter of a recipe.

    Attributes:
        name: Name of the keyword argument.
        label: Label on the page.
        help: Help text on the page.
        default: Default value.
        is_rare: Whether most users keep the default, so that the page folds it away.
        only_if: Name and value of the parameter without which this one has no effect; None if it
            always has.
    """

    name: str
    label: str
    help: str
    default: Any
    is_rare: bool = field(default=False, kw_only=True)
    only_if: tuple[str, Any] | None = field(default=None, kw_only=True)

    @abstractmethod
    def check(self, value: Any) -> None:
        """Check a value.

        Raises:
            RecipeError: The value is not valid.
        """

    def plain(self, value: Any) -> Any:
        """Return a checked value in its JSON form, which is the same for equal values."""
        return value


@dataclass(frozen=True)
class Choice(Parameter):
    """A choice between several words."""

    default: str
    choices: tuple[str, ...]

    def check(self, value: Any) -> None:
        """Check that a value is one of the choices; see `Parameter.check`."""
        if value not in self.choices:
            raise RecipeError(
                f"{self.label} ({self.name}) must be one of "
                f"{', '.join(map(repr, self.choices))}, not {value!r}."
            )


@dataclass(frozen=True)
class Number(Parameter):
    """A number in a range; an integer if the default is one.

    Attributes:
        minimum: Smallest valid value.
        maximum: Largest valid value.
        step: Step of the widget on the page.
        curve: Values for a sweep over this parameter, usually those of the paper; empty if a sweep
            makes no sense.
    """

    default: float
    minimum: float
    maximum: float
    step: float
    curve: tuple[float, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether the number is an integer."""
        return isinstance(self.default, int)

    @property
    def symbol(self) -> str:
        """The last word of the label, in lower case: the letter in formulas, if there is one."""
        return self.label.split()[-1].lower()

    def check(self, value: Any) -> None:
        """Check the type and the range of a value; see `Parameter.check`."""
        kinds = (int,) if self.is_whole else (int, float, Fraction)
        if isinstance(value, bool) or not isinstance(value, kinds):
            kind = "an integer" if self.is_whole else "a number"
            raise RecipeError(f"{self.label} ({self.name}) must be {kind}, not {value!r}.")
        if not self.minimum <= value <= self.maximum:
            raise RecipeError(
                f"{self.label} ({self.name}) must be between {self.minimum} and {self.maximum}, "
                f"not {value}."
            )

    def plain(self, value: Any) -> float:
        """Return the number; unless it must be an integer, `1` and `Fraction(1)` become `1.0`."""
        return value if self.is_whole else float(value)


@dataclass(frozen=True)
class Switch(Parameter):
    """A boolean."""

    default: bool

    def check(self, value: Any) -> None:
        """Check that a value is a boolean; see `Parameter.check`."""
        if not isinstance(value, bool):
            raise RecipeError(f"{self.label} ({self.name}) must be True or False, not {value!r}.")


@dataclass(frozen=True)
class Text(Parameter):
    """Free text."""

    default: str

    def check(self, value: Any) -> None:
        """Check that a value is text; see `Parameter.check`."""
        if not isinstance(value, str):
            raise RecipeError(f"{self.label} ({self.name}) must be text, not {value!r}.")


#: Groups of recipes, in display order.
GROUPS = ("Average", "Select or learn", "Merge with the base")


@dataclass(frozen=True)
class Recipe:
    """The description of a recipe.

    Attributes:
        name: Name in code, files and URLs.
        title: Name on the page and in errors.
        summary: One sentence for the page.
        paper: Source of the method.
        function: Makes the soup: `function(sweep, names, **parameters)`, or, if the recipe
            chooses, `function(sweep, evaluator, names, on_progress=…, on_step=…, **parameters)`.
        parameters: Parameters of the recipe.
        takes: Minimum and maximum number of ingredients; None for no maximum.
        needs_base: Whether the recipe needs the shared initialisation.
        chooses: Whether the recipe chooses on the select split and so needs an evaluator.
        ranks: Whether the recipe needs an evaluation of each ingredient.
        fits: Whether the recipe fits coefficients to the select split, as to training data.
        trials: `trials(k, parameters)`: maximum number of evaluations on select in addition to
            those of the k ingredients.
    """

    name: str
    title: str
    summary: str
    paper: str
    function: Callable[..., Soup]
    parameters: tuple[Parameter, ...] = ()
    takes: tuple[int, int | None] = (1, None)
    needs_base: bool = False
    chooses: bool = False
    ranks: bool = False
    fits: bool = False
    trials: Callable[[int, Mapping[str, Any]], int] = lambda k, parameters: 0

    @property
    def group(self) -> str:
        """The recipe's group of `GROUPS`."""
        if self.needs_base:
            return GROUPS[2]
        return GROUPS[1] if self.chooses else GROUPS[0]

    def check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters and return all of them in JSON form, with defaults filled in.

        Raises:
            RecipeError: A parameter does not exist or has an invalid value.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name, value in parameters.items():
            if name not in known:
                raise RecipeError(
                    f"{self.title} has no parameter {name!r}; available: "
                    f"{', '.join(known) or 'none'}."
                )
            known[name].check(value)
        return {p.name: p.plain(parameters.get(p.name, p.default)) for p in self.parameters}

    def follow(
        self,
        sweep: Sweep,
        evaluator: Evaluator | None,
        names: Iterable[str] | None = None,
        *,
        on_progress: Progress = no_progress,
        on_step: OnStep = no_step,
        **parameters: Any,
    ) -> Soup:
        """Make the soup; the evaluator is used only if the recipe chooses.

        Raises:
            RecipeError: The recipe cannot be applied to these ingredients and parameters, or it
                chooses and there is no evaluator.
            SweepError: A name is not in the sweep.
        """
        checked = self.check(parameters)
        if not self.chooses:
            return self.function(sweep, names, **checked)
        if evaluator is None:
            raise RecipeError(
                f"{self.title} chooses by evaluations, so it needs a task. Name one, or follow a "
                "recipe that needs none, such as uniform."
            )
        return self.function(
            sweep, evaluator, names, on_progress=on_progress, on_step=on_step, **checked
        )
