"""What follows from evaluations: comparators and theory."""

from soupcore.analysis.ensemble import Ensemble, ensemble
from soupcore.analysis.grids import Grid, ingredient_grid, pair_grid, varying
from soupcore.analysis.soup_vs_ensemble import (
    SoupVsEnsemble,
    soup_vs_ensemble,
    stored_soup_vs_ensemble,
)

__all__ = [
    "Ensemble",
    "Grid",
    "SoupVsEnsemble",
    "ensemble",
    "ingredient_grid",
    "pair_grid",
    "soup_vs_ensemble",
    "stored_soup_vs_ensemble",
    "varying",
]
