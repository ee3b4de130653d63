"""Recipes for soups. To add one, write its function and description, and list it in `registry`."""

from soupcore.recipes.averages import ema, manual, swa, uniform
from soupcore.recipes.cross_fit import SearchCrossFit, cross_fit_learned
from soupcore.recipes.curve import Curve, curve
from soupcore.recipes.dare import dare
from soupcore.recipes.greedy import Orders, greedy, greedy_orders
from soupcore.recipes.learned import learned
from soupcore.recipes.model_stock import model_stock
from soupcore.recipes.parts import Parts
from soupcore.recipes.registry import RECIPES
from soupcore.recipes.slerp import slerp
from soupcore.recipes.soup import Soup, other_statistics_of
from soupcore.recipes.spec import Choice, Number, Parameter, Recipe, Switch, Text
from soupcore.recipes.task_arithmetic import task_arithmetic
from soupcore.recipes.ties import ties
from soupcore.recipes.trace import Pass, Step
from soupcore.recipes.weighted import weighted
from soupcore.recipes.wise_ft import wise_ft

__all__ = [
    "RECIPES",
    "Choice",
    "Curve",
    "Number",
    "Orders",
    "Parameter",
    "Parts",
    "Pass",
    "Recipe",
    "SearchCrossFit",
    "Soup",
    "Step",
    "Switch",
    "Text",
    "cross_fit_learned",
    "curve",
    "dare",
    "ema",
    "greedy",
    "greedy_orders",
    "learned",
    "manual",
    "model_stock",
    "other_statistics_of",
    "slerp",
    "swa",
    "task_arithmetic",
    "ties",
    "uniform",
    "weighted",
    "wise_ft",
]
