"""What follows from evaluations without evaluating anything."""

from soupcore.analysis.ensemble import Ensemble, ensemble

__all__ = ["Ensemble", "ensemble"]
