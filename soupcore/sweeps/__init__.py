"""The ingredients of a fine-tuning sweep."""

from soupcore.sweeps.findings import Finding, FitReport, NothingFitsError, UnusableSweepError
from soupcore.sweeps.sweep import Ingredient, Sweep
from soupcore.sweeps.tensor_rule import FixedTensors, TensorRule

__all__ = [
    "Finding",
    "FitReport",
    "FixedTensors",
    "Ingredient",
    "NothingFitsError",
    "Sweep",
    "TensorRule",
    "UnusableSweepError",
]
