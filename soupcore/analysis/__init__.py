"""What follows from evaluations without evaluating anything."""

from soupcore.analysis.ensemble import Ensemble, ensemble
from soupcore.analysis.greedy_ensemble import GreedyEnsemble, greedy_ensemble

__all__ = ["Ensemble", "GreedyEnsemble", "ensemble", "greedy_ensemble"]
