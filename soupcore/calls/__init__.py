"""Long computations, each described once: to queue it, to do it, and to read its result.

A call is a computation with its arguments, as JSON. A worker does its work and keeps the results
in the store. A page makes the same call to read the result, and computes nothing.
"""

from soupcore.calls.analysis import (
    Attribution,
    Breakdown,
    Calibrations,
    EnsembleScores,
    GreedyEnsembleScores,
    ShownExamples,
    TwoModelEnsembles,
    TwoModelTheory,
    by_pair,
)
from soupcore.calls.base import Call, Report, Result, StoredCall
from soupcore.calls.code import Code
from soupcore.calls.connectivity import (
    ClickedPath,
    Pairs,
    Paths,
    PlaneGrid,
    WeightGeometry,
    alphas_of,
)
from soupcore.calls.context import Context
from soupcore.calls.push import PushedSoup
from soupcore.calls.selection import (
    BestIngredientBias,
    GreedyOrders,
    Optimism,
    ParameterCurve,
    SearchOptimism,
)
from soupcore.calls.several_soups import SeveralSoups
from soupcore.calls.soups import (
    IngredientScores,
    ManualSoup,
    MetricIntervals,
    OtherStatistics,
    Preview,
    RecipeSoup,
    SoupFiles,
    SoupScores,
)

CALLS: dict[str, type[Call]] = {
    call.kind: call
    for call in (
        IngredientScores,
        MetricIntervals,
        RecipeSoup,
        SeveralSoups,
        SoupScores,
        ManualSoup,
        Preview,
        OtherStatistics,
        SoupFiles,
        PushedSoup,
        EnsembleScores,
        GreedyEnsembleScores,
        ShownExamples,
        TwoModelEnsembles,
        TwoModelTheory,
        Calibrations,
        Attribution,
        Breakdown,
        BestIngredientBias,
        Optimism,
        SearchOptimism,
        GreedyOrders,
        ParameterCurve,
        ClickedPath,
        Paths,
        Pairs,
        PlaneGrid,
        WeightGeometry,
    )
}

__all__ = [
    "CALLS",
    "Attribution",
    "BestIngredientBias",
    "Breakdown",
    "Calibrations",
    "Call",
    "ClickedPath",
    "Code",
    "Context",
    "EnsembleScores",
    "GreedyEnsembleScores",
    "GreedyOrders",
    "IngredientScores",
    "ManualSoup",
    "MetricIntervals",
    "Optimism",
    "OtherStatistics",
    "Pairs",
    "ParameterCurve",
    "Paths",
    "PlaneGrid",
    "Preview",
    "PushedSoup",
    "RecipeSoup",
    "Report",
    "Result",
    "SearchOptimism",
    "SeveralSoups",
    "ShownExamples",
    "SoupFiles",
    "SoupScores",
    "StoredCall",
    "TwoModelEnsembles",
    "TwoModelTheory",
    "WeightGeometry",
    "alphas_of",
    "by_pair",
]
