"""All recipes by name, in display order."""

from soupcore.recipes.averages import EMA, SWA, UNIFORM
from soupcore.recipes.dare import DARE
from soupcore.recipes.greedy import GREEDY
from soupcore.recipes.learned import LEARNED
from soupcore.recipes.model_stock import MODEL_STOCK
from soupcore.recipes.slerp import SLERP
from soupcore.recipes.task_arithmetic import TASK_ARITHMETIC
from soupcore.recipes.ties import TIES
from soupcore.recipes.weighted import WEIGHTED
from soupcore.recipes.wise_ft import WISE_FT

RECIPES = {
    recipe.name: recipe
    for recipe in (
        GREEDY,
        UNIFORM,
        LEARNED,
        WEIGHTED,
        WISE_FT,
        SWA,
        EMA,
        TASK_ARITHMETIC,
        TIES,
        DARE,
        MODEL_STOCK,
        SLERP,
    )
}
