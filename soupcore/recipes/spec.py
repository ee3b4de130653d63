"""What the app and the docs need to know of a recipe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from soupcore.recipes.soup import Soup, Step

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
        follow: Makes the soup: `follow(sweep, evaluator, names, on_progress=…, on_step=…,
            **parameters)`.
    """

    name: str
    title: str
    summary: str
    paper: str
    parameters: tuple[Parameter, ...]
    chooses: bool
    trials: Callable[[int], int]
    follow: Callable[..., Soup]
