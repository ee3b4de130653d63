"""What the app, the command line of a notebook and the docs need to know of a recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from soupcore.evaluation import Evaluator, Progress
from soupcore.recipes.soup import Soup, Step
from soupcore.sweeps import Sweep

OnStep = Callable[[Sequence[Step]], None]


def no_step(trace: Sequence[Step]) -> None:
    """Take a trace as it grows and do nothing with it."""


@dataclass(frozen=True)
class Parameter:
    """One thing that a recipe can be told.

    Attributes:
        name: The keyword argument.
        label: What it is called on the page.
        choices: The values it may have, the default first.
        help: What the choice means.
    """

    name: str
    label: str
    choices: tuple[str, ...]
    help: str


class Follow(Protocol):
    """How a recipe is followed: from ingredients to a soup."""

    def __call__(
        self,
        sweep: Sweep,
        evaluator: Evaluator,
        names: Sequence[str],
        *,
        on_progress: Progress,
        on_step: OnStep,
        **parameters: Any,
    ) -> Soup:
        """Make a soup of the ingredients called `names`."""
        ...


@dataclass(frozen=True)
class Recipe:
    """A way to a soup, described.

    Attributes:
        name: What it is called in code, files and URLs.
        title: What it is called on the page.
        summary: One sentence on what it does.
        paper: Where it comes from.
        parameters: What it can be told.
        trials: How many points it evaluates on `select` beyond its k ingredients, at most.
        chooses: Whether it needs the ingredients evaluated on `select`.
        follow: Makes the soup.
    """

    name: str
    title: str
    summary: str
    paper: str
    parameters: tuple[Parameter, ...]
    chooses: bool
    trials: Callable[[int], int]
    follow: Follow
