"""The loss between points in weight space."""

from soupcore.connectivity.barriers import Barriers, barriers, stored_barriers
from soupcore.connectivity.path import LinearPath, linear_path, stored_path

__all__ = [
    "Barriers",
    "LinearPath",
    "barriers",
    "linear_path",
    "stored_barriers",
    "stored_path",
]
