"""Long computations, each defined once: to queue it, to run it, and to read its result.

A call is a computation with its arguments, as JSON. A worker runs it and stores the results. A page
makes the same call to read the results, and computes nothing.
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
from soupcore.calls.context import Context, OpenSweep
from soupcore.calls.files import PushedSoup, SoupFiles
from soupcore.calls.selection import (
    BestIngredientBias,
    GreedyOrders,
    Optimism,
    ParameterCurve,
    SearchOptimism,
)
from soupcore.calls.soups import (
    IngredientScores,
    ManualSoup,
    MetricIntervals,
    OtherStatistics,
    Preview,
    RecipeSoup,
    SeveralSoups,
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
    "OpenSweep",
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
