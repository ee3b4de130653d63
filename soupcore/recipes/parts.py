"""A soup taken apart: what it would be with some of its ingredients only."""

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction

from soupcore.errors import RecipeError
from soupcore.merges import Group, Grouped
from soupcore.mixtures import Mixture, mean
from soupcore.recipes.registry import RECIPES
from soupcore.recipes.soup import Soup
from soupcore.sweeps import Sweep

Coefficients = Mapping[str, Fraction]


def follows_recipe(soup: Soup) -> bool:
    """Whether a part of a soup is its recipe followed with less; elsewhere proportions are kept.

    It is where the recipe starts from a base, or computes weights one by one, and does not choose
    on `select`: choosing again would answer another question.
    """
    recipe = RECIPES.get(soup.recipe)
    if recipe is None or recipe.chooses:
        return False
    return recipe.needs_base or soup.merge is not None


class Parts:
    """The soups of some of a soup's ingredients.

    Where `follows_recipe`, a part is the recipe followed with these ingredients: TIES votes anew,
    the base keeps the share that its formula gives it. In all other soups the ingredients keep
    their proportions and are scaled to the same sum, group by group where tensors have coefficients
    of their own.

    Args:
        sweep: Where the ingredients are from.
        soup: The soup.

    Attributes:
        names: Its ingredients.
        nothing: The point that stands for a soup of none: the base, where the sweep has one.
    """

    def __init__(self, sweep: Sweep, soup: Soup) -> None:
        self._sweep = sweep
        self._soup = soup
        self._recipe = RECIPES.get(soup.recipe)
        self.names = tuple(soup.ingredients)
        self.nothing = sweep.base.mixture if sweep.base else None

    def of(self, names: Sequence[str]) -> Mixture:
        """Return the soup of some of the ingredients, one at least.

        Raises:
            RecipeError: Their coefficients sum to 0, so a soup of these alone has no scale.
        """
        soup, recipe = self._soup, self._recipe
        if set(names) == set(self.names):
            return soup.mixture
        if recipe is not None and follows_recipe(soup):
            if len(names) < recipe.takes[0]:
                return mean(self._sweep[name].mixture for name in names)
            parameters = {p.name: soup.parameters[p.name] for p in recipe.parameters}
            return recipe.function(self._sweep, names, **parameters).mixture
        if isinstance(soup.merge, Grouped):
            groups = {
                label: Group(group.tensors, self._scaled(self._by_name(group.mixture), names))
                for label, group in soup.merge.groups.items()
            }
            return Mixture([(Grouped(groups), 1)])
        return self._scaled(soup.coefficients, names)

    def _scaled(self, coefficients: Coefficients, names: Sequence[str]) -> Mixture:
        whole = sum((coefficients.get(name, 0) for name in self.names), start=Fraction())
        kept = sum((coefficients.get(name, 0) for name in names), start=Fraction())
        if kept == 0:
            raise RecipeError(
                f"The coefficients of {', '.join(names)} sum to 0, so a soup of these alone has "
                "no scale."
            )
        scaled = {name: coefficients.get(name, Fraction()) * whole / kept for name in names}
        if self._soup.base is not None:
            scaled[self._soup.base] = coefficients.get(self._soup.base, Fraction())
        return self._sweep.mixture(scaled)

    def _by_name(self, mixture: Mixture) -> Coefficients:
        # The same weights twice are one term of a mixture; each of them has half of it.
        digests = self._soup.digests
        twice = Counter(digests.values())
        return {
            name: mixture.coefficients.get(digest, Fraction()) / twice[digest]
            for name, digest in digests.items()
        }
