"""The ingredients of a fine-tuning sweep."""

from soupcore.sweeps.fit import Finding, FitReport
from soupcore.sweeps.sweep import Ingredient, Sweep

__all__ = ["Finding", "FitReport", "Ingredient", "Sweep"]
