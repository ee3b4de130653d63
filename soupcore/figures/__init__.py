"""Plotly figures of results. They take computed data and run no evaluations."""

from soupcore.figures.columns import column_scatter, importance_bars
from soupcore.figures.comparisons import (
    angle_scatter,
    grid_heatmap,
    soup_ensemble_scatter,
    theory_scatter,
)
from soupcore.figures.geometry import layer_heatmap, norm_bars
from soupcore.figures.overview import (
    accuracy_overview,
    basin_map,
    logged_overview,
    select_scatter,
    shift_scatter,
)
from soupcore.figures.pairs import MEASURES, Measure, barrier_heatmap, measures, pair_heatmap
from soupcore.figures.parallel import parallel_coordinates
from soupcore.figures.paths import from_base, path_curves
from soupcore.figures.planes import plane_contours
from soupcore.figures.soups import (
    attribution_bars,
    coefficient_bars,
    difference_forest,
    greedy_trace,
    learning_curve,
    recipe_curve,
    reliability_diagram,
    trade_off,
)
from soupcore.figures.style import colours, curve_colours, ingredient_colours, titled

__all__ = [
    "MEASURES",
    "Measure",
    "accuracy_overview",
    "angle_scatter",
    "attribution_bars",
    "barrier_heatmap",
    "basin_map",
    "coefficient_bars",
    "colours",
    "column_scatter",
    "curve_colours",
    "difference_forest",
    "from_base",
    "greedy_trace",
    "grid_heatmap",
    "importance_bars",
    "ingredient_colours",
    "layer_heatmap",
    "learning_curve",
    "logged_overview",
    "measures",
    "norm_bars",
    "pair_heatmap",
    "parallel_coordinates",
    "path_curves",
    "plane_contours",
    "recipe_curve",
    "reliability_diagram",
    "select_scatter",
    "shift_scatter",
    "soup_ensemble_scatter",
    "theory_scatter",
    "titled",
    "trade_off",
]
