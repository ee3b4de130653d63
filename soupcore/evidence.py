"""The evidence for a soup: paired comparisons with the best ingredient, and selection bias.

The page of a soup and the report share these comparisons and stored estimates. No function here
runs a forward pass.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from soupcore.calls import (
    BestIngredientBias,
    Context,
    Optimism,
    ParameterCurve,
    Result,
    SearchOptimism,
)
from soupcore.evaluation import Evaluation, compare
from soupcore.intervals import Paired
from soupcore.overview import Overview
from soupcore.recipes import RECIPES, Number
from soupcore.stored_soups import StoredSoup
from soupcore.sweeps import Sweep

AnyContext = TypeVar("AnyContext", bound=Context)


@dataclass(frozen=True)
class Comparison:
    """A soup and the best ingredient on a split, compared on the same examples.

    Attributes:
        soup: The evaluation of the soup.
        best: The evaluation of the best ingredient.
        difference: Score of the soup minus that of the ingredient, paired over the examples.
    """

    soup: Evaluation
    best: Evaluation
    difference: Paired


def against_best(known: Overview, stored: StoredSoup) -> dict[str, Comparison | None]:
    """Compare a soup with the best ingredient, by split; None where one of them is not evaluated.

    Args:
        known: The stored results, which include the soup.
        stored: The soup.
    """
    found: dict[str, Comparison | None] = {}
    for split in known.context.task.reported:
        soup = known.of_soups[stored.soup.id][split]
        best = None if known.best is None else known.runs[known.best][split]
        if soup is None or best is None:
            found[split] = None
        else:
            found[split] = Comparison(soup, best, compare(known.context.task, soup, best))
    return found


def why_no_intervals(found: Mapping[str, Comparison | None]) -> dict[str, list[str]]:
    """Return why differences have no interval, `{reason: splits}`."""
    reasons: dict[str, list[str]] = {}
    for split, compared in found.items():
        if compared is not None and compared.difference.interval is None:
            reasons.setdefault(compared.difference.why_no_interval, []).append(split)
    return reasons


def candidates(sweep: Sweep, stored: StoredSoup) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the candidates that a recipe with a trace tried.

    Returns:
        Their names, soups last, and the ids of those that are soups, `{name: id}`.

    Raises:
        SweepError: A rejected candidate is no longer in the sweep.
    """
    tried = {step.candidate for step in stored.soup.trace}
    soups = {name: soup_id for name, soup_id in stored.offered.items() if name in tried}
    return (*sweep.names(tried - soups.keys()), *soups), soups


def as_chosen(
    context: AnyContext, stored: StoredSoup, soups: Mapping[str, StoredSoup]
) -> AnyContext:
    """Return the context in which a recipe chose a soup: its candidates, metric and tensors.

    Args:
        context: The sweep and the task.
        stored: The soup.
        soups: `{candidate: soup}` of the candidates that are soups.
    """
    primary = stored.soup.chosen_by(context.task).primary
    return context.including(soups).with_primary(primary).with_tensors(stored.soup.rule)


def best_ingredient_bias(known: Overview) -> BestIngredientBias | None:
    """Return the estimate for the choice of the best ingredient; None if there is no choice."""
    return BestIngredientBias(tuple(known.evaluated)) if len(known.evaluated) > 1 else None


def greedy_bias(context: AnyContext, stored: StoredSoup) -> tuple[AnyContext, Optimism] | None:
    """Return the cross-fitted estimate for greedy in its default order, and its context.

    Returns:
        None if the soup is of another recipe or order, or if it had only one candidate.

    Raises:
        StockpotError: A rejected candidate is no longer in the sweep.
    """
    soup = stored.soup
    given = soup.parameters
    if soup.recipe != "greedy" or given.get("order") == "random" or given.get("backward"):
        return None
    names, ids = candidates(context.sweep, stored)
    if len(names) < 2:
        return None
    seen = as_chosen(context, stored, context.soups.by_name(ids))
    return seen, Optimism(names, greedy_parameters(given))


def greedy_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a greedy soup that its estimates take."""
    return {"accept": given["accept"], "metric": given.get("metric", "score")}


def search_bias(
    context: AnyContext, stored: StoredSoup
) -> tuple[AnyContext, SearchOptimism] | None:
    """Return the cross-fitted estimate for coefficients that CMA-ES searched, and its context.

    Returns:
        None if the soup is of another recipe, or if its split cannot be halved.
    """
    call = SearchOptimism.of_soup(stored.soup, stored.soup.ingredients)
    if call is None or len(context.task.split(context.task.select)) < 2 or len(call.names) < 2:
        return None
    return as_chosen(context, stored, stored.soups), call


def curves_with(context: Context, stored: StoredSoup) -> Iterator[tuple[Number, Result]]:
    """Yield the parameters of a recipe with the stored curves on which the soup is a point."""
    soup = stored.soup
    recipe = RECIPES.get(soup.recipe)
    seen = context.including(stored.soups).with_tensors(soup.rule)
    for number in recipe.parameters if recipe else ():
        if isinstance(number, Number) and number.curve:
            found = ParameterCurve.of_soup(soup, number, soup.ingredients).result(seen)
            if found is not None and any(point["soup"] == soup.id for point in found["points"]):
                yield number, found
