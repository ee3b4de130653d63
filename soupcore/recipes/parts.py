"""Sub-soups: soups of some of the ingredients of a given soup."""

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
    """Return whether sub-soups are rebuilt with the soup's recipe instead of rescaled.

    True if the recipe starts from a base or merges weights one by one, and does not choose on
    `select`. A recipe that chooses could make a different selection, which would not be a part of
    the same soup.
    """
    recipe = RECIPES.get(soup.recipe)
    if recipe is None or recipe.chooses:
        return False
    return recipe.needs_base or soup.merge is not None


class Parts:
    """The sub-soups of a soup.

    If `follows_recipe`, a sub-soup is rebuilt with the recipe: TIES elects signs again, and the
    base gets the share that the formula gives it. Otherwise the ingredients keep their relative
    weights and are scaled to the same sum, separately for each group of tensors.

    Args:
        sweep: The sweep of the ingredients.
        soup: The soup.

    Attributes:
        names: Ingredients of the soup.
        nothing: The point of an empty sub-soup: the base, or None without a base.
    """

    def __init__(self, sweep: Sweep, soup: Soup) -> None:
        sweep = sweep.fix(soup.fixed, soup.ingredients)
        self._sweep = sweep
        self._soup = soup
        self._recipe = RECIPES.get(soup.recipe)
        self.names = tuple(soup.ingredients)
        self.nothing = sweep.base.mixture if sweep.base else None

    def of(self, names: Sequence[str]) -> Mixture:
        """Return the sub-soup of some of the ingredients, at least one.

        Raises:
            RecipeError: Their coefficients sum to 0, so they cannot be scaled.
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
                f"The coefficients of {', '.join(names)} sum to 0; a sub-soup of only these is "
                "undefined."
            )
        scaled = {name: coefficients.get(name, Fraction()) * whole / kept for name in names}
        if self._soup.base is not None:
            scaled[self._soup.base] = coefficients.get(self._soup.base, Fraction())
        return self._sweep.mixture(scaled)

    def _by_name(self, mixture: Mixture) -> Coefficients:
        # Ingredients with equal weights are one term of a mixture and share its coefficient.
        digests = {name: self._sweep[name].digest for name in self._soup.digests}
        twice = Counter(digests.values())
        return {
            name: mixture.coefficients.get(digest, Fraction()) / twice[digest]
            for name, digest in digests.items()
        }
