"""What follows from evaluations: how sure they are, what they say of ingredients and ensembles."""

from soupcore.analysis.attribution import Share, leave_one_out, shapley_values
from soupcore.analysis.calibration import Calibration, calibration, fit_temperature
from soupcore.analysis.ensemble import Ensemble, ensemble
from soupcore.analysis.greedy_ensemble import GreedyEnsemble, greedy_ensemble
from soupcore.analysis.optimism import CrossFit, cross_fit
from soupcore.analysis.paired import Paired, paired

__all__ = [
    "Calibration",
    "CrossFit",
    "Ensemble",
    "GreedyEnsemble",
    "Paired",
    "Share",
    "calibration",
    "cross_fit",
    "ensemble",
    "fit_temperature",
    "greedy_ensemble",
    "leave_one_out",
    "paired",
    "shapley_values",
]
