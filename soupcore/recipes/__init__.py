"""Recipes for soups, one file each. To add one, write its file and list it in `registry`."""

from soupcore.recipes.cross_fit import SearchCrossFit, cross_fit_learned
from soupcore.recipes.curve import Curve, curve
from soupcore.recipes.dare import dare
from soupcore.recipes.ema import ema
from soupcore.recipes.greedy import greedy
from soupcore.recipes.learned import learned
from soupcore.recipes.manual import manual
from soupcore.recipes.model_stock import model_stock
from soupcore.recipes.orders import Orders, greedy_orders
from soupcore.recipes.parts import Parts
from soupcore.recipes.registry import RECIPES
from soupcore.recipes.slerp import slerp
from soupcore.recipes.soup import Soup
from soupcore.recipes.spec import Choice, Number, Parameter, Recipe, Switch, Text
from soupcore.recipes.statistics import other_statistics_of
from soupcore.recipes.swa import swa
from soupcore.recipes.task_arithmetic import task_arithmetic
from soupcore.recipes.ties import ties
from soupcore.recipes.trace import Pass, Step
from soupcore.recipes.uniform import uniform
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
