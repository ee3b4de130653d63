"""What follows from evaluations: how sure they are, what they say of ingredients and ensembles."""

from soupcore.analysis.attribution import Share, leave_one_out, shapley_values
from soupcore.analysis.calibration import Calibration, calibration, fit_temperature
from soupcore.analysis.ensemble import Ensemble, ensemble
from soupcore.analysis.greedy_ensemble import GreedyEnsemble, greedy_ensemble
from soupcore.analysis.grids import Grid, ingredient_grid, pair_grid, varying
from soupcore.analysis.optimism import CrossFit, cross_fit
from soupcore.analysis.paired import Paired, paired
from soupcore.analysis.soup_vs_ensemble import (
    SoupVsEnsemble,
    soup_vs_ensemble,
    stored_soup_vs_ensemble,
)

__all__ = [
    "Calibration",
    "CrossFit",
    "Ensemble",
    "GreedyEnsemble",
    "Grid",
    "Paired",
    "Share",
    "SoupVsEnsemble",
    "calibration",
    "cross_fit",
    "ensemble",
    "fit_temperature",
    "greedy_ensemble",
    "ingredient_grid",
    "leave_one_out",
    "pair_grid",
    "paired",
    "shapley_values",
    "soup_vs_ensemble",
    "stored_soup_vs_ensemble",
    "varying",
]
