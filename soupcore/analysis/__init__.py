"""Analyses of evaluations: selection bias, attribution, calibration, ensembles."""

from soupcore.analysis.attribution import Divisible, Share, leave_one_out, points, shapley_values
from soupcore.analysis.calibration import Calibration, calibration, fit_temperature
from soupcore.analysis.ensemble import (
    Ensemble,
    GreedyEnsemble,
    calibrate,
    ensemble,
    ensemble_outputs,
    ensemble_scores,
    greedy_ensemble,
    pair_ensembles,
)
from soupcore.analysis.hyperparameters import (
    Grid,
    Importance,
    ingredient_grid,
    marginal_importance,
    pair_grid,
    varying,
)
from soupcore.analysis.optimism import (
    CrossFit,
    GreedyCrossFit,
    cross_fit,
    cross_fit_evaluations,
    cross_fit_greedy,
)
from soupcore.analysis.soup_vs_ensemble import SoupVsEnsemble, soup_vs_ensemble
from soupcore.evaluation import compare
from soupcore.intervals import Paired, paired

__all__ = [
    "Calibration",
    "CrossFit",
    "Divisible",
    "Ensemble",
    "GreedyCrossFit",
    "GreedyEnsemble",
    "Grid",
    "Importance",
    "Paired",
    "Share",
    "SoupVsEnsemble",
    "calibrate",
    "calibration",
    "compare",
    "cross_fit",
    "cross_fit_evaluations",
    "cross_fit_greedy",
    "ensemble",
    "ensemble_outputs",
    "ensemble_scores",
    "fit_temperature",
    "greedy_ensemble",
    "ingredient_grid",
    "leave_one_out",
    "marginal_importance",
    "pair_ensembles",
    "pair_grid",
    "paired",
    "points",
    "shapley_values",
    "soup_vs_ensemble",
    "varying",
]
