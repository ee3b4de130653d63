"""Descriptions of recipes.

The description of a recipe validates requests, and generates its widgets on the page and its row in
the README. Defaults, choices and types of its parameters are those of its function's signature.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Self, get_args, get_type_hints

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
        default: Default value, from the signature of the recipe's function.
        is_rare: Whether most users keep the default, so that the page folds it away.
        only_if: Name and value of the parameter without which this one has no effect; None if it
            always has.
    """

    name: str
    label: str
    help: str
    default: Any = field(default=None, kw_only=True)
    is_rare: bool = field(default=False, kw_only=True)
    only_if: tuple[str, Any] | None = field(default=None, kw_only=True)

    def with_signature(self, default: Any, annotation: Any) -> Self:
        """Return the parameter with the default and the type of its keyword argument."""
        return replace(self, default=default)

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
    """A choice between several words, those of the annotation, which is a `Literal`."""

    choices: tuple[str, ...] = field(default=(), kw_only=True)

    def with_signature(self, default: Any, annotation: Any) -> Self:
        """Take the default and the choices; see `Parameter.with_signature`."""
        return replace(self, default=default, choices=get_args(annotation))

    def check(self, value: Any) -> None:
        """Check that a value is one of the choices; see `Parameter.check`."""
        if value not in self.choices:
            raise RecipeError(
                f"{self.label} ({self.name}) must be one of "
                f"{', '.join(map(repr, self.choices))}, not {value!r}."
            )


@dataclass(frozen=True)
class Number(Parameter):
    """A number in a range.

    Attributes:
        minimum: Smallest valid value.
        maximum: Largest valid value.
        step: Step of the widget on the page.
        curve: Values for a sweep over this parameter, usually those of the paper; empty if a sweep
            makes no sense.
        is_whole: Whether the number is an integer, which is so if the annotation is `int`.
    """

    minimum: float
    maximum: float
    step: float
    curve: tuple[float, ...] = ()
    is_whole: bool = field(default=False, kw_only=True)

    def with_signature(self, default: Any, annotation: Any) -> Self:
        """Take the default and the type; see `Parameter.with_signature`."""
        is_whole = annotation is int
        return replace(self, default=default if is_whole else float(default), is_whole=is_whole)

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

    def check(self, value: Any) -> None:
        """Check that a value is a boolean; see `Parameter.check`."""
        if not isinstance(value, bool):
            raise RecipeError(f"{self.label} ({self.name}) must be True or False, not {value!r}.")


@dataclass(frozen=True)
class Text(Parameter):
    """Free text."""

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
        parameters: Keyword arguments of the function that change the soup.
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

    def __post_init__(self) -> None:
        defaults = inspect.signature(self.function).parameters
        types = get_type_hints(self.function)
        complete = (
            p.with_signature(defaults[p.name].default, types[p.name]) for p in self.parameters
        )
        object.__setattr__(self, "parameters", tuple(complete))

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
