"""What the app and the README need to know of a recipe.

A recipe is described once; requests are checked against it, the page makes its widgets from it, and
the README lists what it can be told.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluator, Progress, no_progress
from soupcore.recipes.soup import Soup
from soupcore.recipes.trace import OnStep, no_step
from soupcore.sweeps import Sweep


@dataclass(frozen=True)
class Parameter(ABC):
    """One thing that a recipe can be told.

    Attributes:
        name: The keyword argument.
        label: What it is called on the page.
        help: What the choice means.
        default: What it is unless told otherwise.
    """

    name: str
    label: str
    help: str
    default: Any

    @abstractmethod
    def check(self, value: Any) -> None:
        """Make sure that a value is one it may have.

        Raises:
            RecipeError: It is not.
        """

    def plain(self, value: Any) -> Any:
        """Return a value that was checked as JSON has it, equal values alike."""
        return value


@dataclass(frozen=True)
class Choice(Parameter):
    """One of a few words."""

    default: str
    choices: tuple[str, ...]

    def check(self, value: Any) -> None:
        """Make sure that it is one of the choices; see `Parameter.check`."""
        if value not in self.choices:
            raise RecipeError(
                f"{self.label} ({self.name}) is one of {', '.join(map(repr, self.choices))}, "
                f"not {value!r}."
            )


@dataclass(frozen=True)
class Number(Parameter):
    """A number in a range; a whole one where the default is.

    Attributes:
        minimum: The least it may be.
        maximum: The most it may be.
        step: How far the page moves at a time.
        curve: Values to try in turn and choose from by the select score, as the paper does; empty
            where it is nothing to try.
    """

    default: float
    minimum: float
    maximum: float
    step: float
    curve: tuple[float, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it counts something."""
        return isinstance(self.default, int)

    @property
    def symbol(self) -> str:
        """Its letter in formulas, the last word of the label; or that word, where it has none."""
        return self.label.split()[-1].lower()

    def check(self, value: Any) -> None:
        """Make sure that it is in the range; see `Parameter.check`."""
        kinds = (int,) if self.is_whole else (int, float, Fraction)
        if isinstance(value, bool) or not isinstance(value, kinds):
            kind = "a whole number" if self.is_whole else "a number"
            raise RecipeError(f"{self.label} ({self.name}) is {kind}, not {value!r}.")
        if not self.minimum <= value <= self.maximum:
            raise RecipeError(
                f"{self.label} ({self.name}) is from {self.minimum} to {self.maximum}, not {value}."
            )

    def plain(self, value: Any) -> float:
        """Return the number; `1` and `Fraction(1)` are `1.0` where it is no whole number."""
        return value if self.is_whole else float(value)


@dataclass(frozen=True)
class Switch(Parameter):
    """Yes or no."""

    default: bool

    def check(self, value: Any) -> None:
        """Make sure that it is a truth value; see `Parameter.check`."""
        if not isinstance(value, bool):
            raise RecipeError(f"{self.label} ({self.name}) is True or False, not {value!r}.")


@dataclass(frozen=True)
class Text(Parameter):
    """Free text."""

    default: str

    def check(self, value: Any) -> None:
        """Make sure that it is text; see `Parameter.check`."""
        if not isinstance(value, str):
            raise RecipeError(f"{self.label} ({self.name}) is text, not {value!r}.")


@dataclass(frozen=True)
class Recipe:
    """A way to a soup, described.

    Attributes:
        name: What it is called in code, files and URLs.
        title: What it is called on the page.
        summary: One sentence on what it does.
        paper: Where it comes from.
        function: Makes the soup: `function(sweep, names, **parameters)`; where it chooses,
            `function(sweep, evaluator, names, on_progress=…, on_step=…, **parameters)`.
        parameters: What it can be told.
        takes: How many ingredients it takes, at least and at most; None for no limit.
        needs_base: Whether it needs the shared initialisation.
        chooses: Whether it chooses on the select split, and so needs evaluations.
        ranks: Whether it needs each ingredient evaluated alone.
        trials: `trials(k, parameters)`: how many points it evaluates on select beyond its k
            ingredients, at most.
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
    trials: Callable[[int, Mapping[str, Any]], int] = lambda k, parameters: 0

    def check(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters as JSON has them, those not given at their defaults.

        Raises:
            RecipeError: There is no such parameter, or it may not have this value.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name, value in parameters.items():
            if name not in known:
                raise RecipeError(
                    f"The recipe {self.name!r} has no parameter {name!r}; it has "
                    f"{', '.join(known) or 'none'}."
                )
            known[name].check(value)
        return {p.name: p.plain(parameters.get(p.name, p.default)) for p in self.parameters}

    def follow(
        self,
        sweep: Sweep,
        evaluator: Evaluator,
        names: Iterable[str] | None = None,
        *,
        on_progress: Progress = no_progress,
        on_step: OnStep = no_step,
        **parameters: Any,
    ) -> Soup:
        """Make the soup, whatever the recipe needs for it.

        Raises:
            RecipeError: The recipe cannot be followed with what it was given.
            SweepError: A name is not in the sweep.
        """
        checked = self.check(parameters)
        if not self.chooses:
            return self.function(sweep, names, **checked)
        return self.function(
            sweep, evaluator, names, on_progress=on_progress, on_step=on_step, **checked
        )
