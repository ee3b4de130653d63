"""Plotly figures: data in, figure out. Nothing is computed here."""

from soupcore.figures.evidence import attribution_bars, reliability_diagram
from soupcore.figures.overview import accuracy_overview, shift_scatter
from soupcore.figures.paths import barrier_heatmap, path_curves
from soupcore.figures.style import colours
from soupcore.figures.trace import greedy_trace, learning_curve

__all__ = [
    "accuracy_overview",
    "attribution_bars",
    "barrier_heatmap",
    "colours",
    "greedy_trace",
    "learning_curve",
    "path_curves",
    "reliability_diagram",
    "shift_scatter",
]
