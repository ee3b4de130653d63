"""Ways to a soup, one file each. To add one, write its file and list its `RECIPE` here."""

from soupcore.recipes.greedy import RECIPE as _GREEDY
from soupcore.recipes.greedy import greedy
from soupcore.recipes.manual import manual
from soupcore.recipes.soup import Soup, Step
from soupcore.recipes.spec import Parameter, Recipe
from soupcore.recipes.uniform import RECIPE as _UNIFORM
from soupcore.recipes.uniform import uniform

RECIPES = {recipe.name: recipe for recipe in (_GREEDY, _UNIFORM)}

__all__ = ["RECIPES", "Parameter", "Recipe", "Soup", "Step", "greedy", "manual", "uniform"]
