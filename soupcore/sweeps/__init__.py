"""The ingredients of a fine-tuning sweep."""

from soupcore.sweeps.findings import Finding, FitReport, NothingFitsError, UnusableSweepError
from soupcore.sweeps.sweep import Ingredient, Sweep

__all__ = ["Finding", "FitReport", "Ingredient", "NothingFitsError", "Sweep", "UnusableSweepError"]
