"""What follows from evaluations: comparators and theory."""

from soupcore.analysis.ensemble import Ensemble, ensemble
from soupcore.analysis.soup_vs_ensemble import (
    SoupVsEnsemble,
    soup_vs_ensemble,
    stored_soup_vs_ensemble,
)

__all__ = [
    "Ensemble",
    "SoupVsEnsemble",
    "ensemble",
    "soup_vs_ensemble",
    "stored_soup_vs_ensemble",
]
