"""The points that lines and planes go through: the base, the ingredients and the soups."""

from collections.abc import Iterable
from dataclasses import dataclass

from pages.components import scores, snippets
from pages.components.scores import StoredSoup
from pages.components.state import View
from soupcore import Mixture


@dataclass(frozen=True)
class Point:
    """A point with a name.

    Attributes:
        mixture: Where it lies.
        kind: `base`, `ingredient` or `soup`.
        end: How a job is told of it.
        code: Its Python, where the sweep is called `sweep`.
    """

    mixture: Mixture
    kind: str
    end: str | dict[str, str]
    code: str


def of(view: View) -> dict[str, Point]:
    """Return the points by the names they have on the pages."""
    return of_files(view) | of_soups(scores.soups(view))


def of_files(view: View) -> dict[str, Point]:
    """Return the base, where there is one, and the ingredients."""
    found = {}
    for name in [*([view.sweep.base.name] if view.sweep.base else []), *view.sweep.ingredients]:
        kind = "ingredient" if name in view.sweep.ingredients else "base"
        found[name] = Point(view.sweep[name].mixture, kind, name, f"sweep[{name!r}]")
    return found


def of_soups(soups: Iterable[StoredSoup]) -> dict[str, Point]:
    """Return soups by their labels."""
    found = {}
    for stored in soups:
        code = f"{snippets.soup_again(stored.soup, stored.soups)}.mixture"
        found[stored.label] = Point(stored.soup.mixture, "soup", {"soup": stored.soup.id}, code)
    return found
