"""The loss between points in weight space."""

from soupcore.connectivity.adaptive import Adaptive
from soupcore.connectivity.barriers import Barriers, barriers, stored_barriers
from soupcore.connectivity.lines import evaluate_lines, linear_path, stored_lines, stored_path
from soupcore.connectivity.path import LinearPath

__all__ = [
    "Adaptive",
    "Barriers",
    "LinearPath",
    "barriers",
    "evaluate_lines",
    "linear_path",
    "stored_barriers",
    "stored_lines",
    "stored_path",
]
