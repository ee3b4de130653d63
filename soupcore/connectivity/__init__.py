"""The loss landscape between points in weight space: lines, planes, barriers and basins."""

from soupcore.connectivity.adaptive import Adaptive
from soupcore.connectivity.barriers import Barriers, barriers
from soupcore.connectivity.basins import Basin, Between, Tree, basins, between, tight_clusters, tree
from soupcore.connectivity.geometry import (
    Geometry,
    geometry,
    stored_distances,
    stored_geometry,
)
from soupcore.connectivity.lines import evaluate_lines, linear_path, stored_lines
from soupcore.connectivity.path import LinearPath, point
from soupcore.connectivity.plane import Plane, plane, stored_plane
from soupcore.connectivity.summaries import LineSummary, PairSummaries, known_pairs

__all__ = [
    "Adaptive",
    "Barriers",
    "Basin",
    "Between",
    "Geometry",
    "LineSummary",
    "LinearPath",
    "PairSummaries",
    "Plane",
    "Tree",
    "barriers",
    "basins",
    "between",
    "evaluate_lines",
    "geometry",
    "known_pairs",
    "linear_path",
    "plane",
    "point",
    "stored_distances",
    "stored_geometry",
    "stored_lines",
    "stored_plane",
    "tight_clusters",
    "tree",
]
