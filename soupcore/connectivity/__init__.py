"""The loss between points in weight space."""

from soupcore.connectivity.adaptive import Adaptive
from soupcore.connectivity.barriers import Barriers, barriers, stored_barriers
from soupcore.connectivity.basins import Basin, Tree, basins, tree
from soupcore.connectivity.geometry import Geometry, geometry, stored_geometry
from soupcore.connectivity.lines import evaluate_lines, linear_path, stored_lines, stored_path
from soupcore.connectivity.path import LinearPath, point
from soupcore.connectivity.plane import Plane, plane, stored_plane

__all__ = [
    "Adaptive",
    "Barriers",
    "Basin",
    "Geometry",
    "LinearPath",
    "Plane",
    "Tree",
    "barriers",
    "basins",
    "evaluate_lines",
    "geometry",
    "linear_path",
    "plane",
    "point",
    "stored_barriers",
    "stored_geometry",
    "stored_lines",
    "stored_path",
    "stored_plane",
    "tree",
]
