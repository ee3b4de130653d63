"""The soups of several recipes from the same ingredients, as one job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from soupcore.calls.base import Call, Report, Result
from soupcore.calls.code import Code
from soupcore.calls.context import Context
from soupcore.calls.soups import RecipeSoup
from soupcore.errors import RecipeError, TaskError


@dataclass(frozen=True)
class SeveralSoups(Call):
    """The soups of several recipes, one after the other; see `RecipeSoup`.

    Result of the job, also while it runs: `{"soups": [{"recipe", "soup", "other"}, …]}`, in the
    order of the recipes. If a soup cannot be built, its entry has a `failure`, a sentence, in place
    of the ids, and the others are still built.

    Attributes:
        recipes: `{"recipe": name, "parameters": {name: value}}` of each.
        names: The ingredients.
    """

    kind = "soups"
    is_shared = True
    recipes: tuple[Mapping[str, Any], ...]
    names: tuple[str, ...]

    @property
    def calls(self) -> list[RecipeSoup]:
        """The calls for the soups."""
        return [RecipeSoup(each["recipe"], self.names, each["parameters"]) for each in self.recipes]

    def work(self, context: Context, report: Report) -> Result:
        """Build the soups in order.

        Raises:
            RecipeError: No soup can be built.
        """
        found: list[dict[str, Any]] = []
        for index, call in enumerate(self.calls):
            of_call = _OfCall(report, index, len(self.recipes), found)
            of_call(0, 1)
            try:
                built: Mapping[str, Any] = call.work(context, of_call)
            except (RecipeError, TaskError) as error:
                built = {"failure": str(error)}
            found.append({"recipe": call.recipe, **built})
        if all("failure" in each for each in found):
            raise RecipeError(" ".join(dict.fromkeys(each["failure"] for each in found)))
        return {"soups": found}

    def share(self, context: Context, report: Report) -> None:
        """Evaluate points of the soups, in order; see `RecipeSoup.share`."""
        for call in self.calls:
            call.share(context, report)

    def code(self, context: Context) -> Code:
        """Return Python that builds and evaluates the soups, as `soups` by recipe."""
        pieces = [
            call.code(context) + Code(f"soups[{call.recipe!r}] = soup\n") for call in self.calls
        ]
        return sum(pieces, start=Code("soups = {}\n"))


@dataclass(frozen=True)
class _OfCall:
    """The report of one of several calls, including earlier soups."""

    report: Report
    index: int
    count: int
    found: Sequence[Mapping[str, Any]]

    def __call__(self, done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        total = max(total, 1)
        known = {"soups": [*self.found], "running": self.index, **(partial or {})}
        self.report(self.index * total + min(done, total), self.count * total, known)
