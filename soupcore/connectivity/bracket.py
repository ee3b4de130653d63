"""Estimates the maximum of a curve between the points where it is known.

A cubic spline interpolates the known points. Its uncertainty near a point is estimated by leaving
the point out: by the error with which the cubic through its four neighbours predicts it. In each
interval, half the larger error of its two ends is added to the spline, scaled by a parabola that is
1 in the middle of the interval and 0 at its ends.

The factor ½ is empirical. It kept the barriers of all 215 pairs of three synthetic sweeps, with
heights from 0 to 1.6, within tolerances of 0.005, 0.01 and 0.02 of those on a grid of 129 points.
(The spline uses one more point than the predictions, so its own error would be a sixteenth of
theirs on a grid that is fine enough.)

The result is an estimate and not a bound: no number of points excludes a peak between them.
"""

import math

import numpy as np
import numpy.typing as npt
import scipy  # its submodules load when they are first used

Floats = npt.NDArray[np.float64]

_TRUST = 0.5  # fraction of the error of prediction that is added to the spline
_FINE = 512  # intervals of the grid on which the spline is evaluated


class Curves:
    """Several curves with values at the same points, and their estimated maxima.

    Args:
        at: The points, ascending, shape [m], m ≥ 3.
        values: The values, shape [m, p] for p curves.
        found: Which points count for `highest`, shape [m]; by default, all.
    """

    def __init__(
        self, at: Floats, values: Floats, found: npt.NDArray[np.bool_] | None = None
    ) -> None:
        self.at = at
        self.values = values
        self._found = np.ones(len(at), dtype=bool) if found is None else found
        self.fine = np.linspace(at[0], at[-1], _FINE + 1)
        self.spline: Floats = scipy.interpolate.CubicSpline(at, values)(self.fine)  # [fine, p]
        inside = np.clip(np.searchsorted(at, self.fine, side="right") - 1, 0, len(at) - 2)
        self._interval = inside
        share = (self.fine - at[inside]) / (at[inside + 1] - at[inside])
        bubble = 4 * share * (1 - share)  # 0 at the ends of an interval, 1 in its middle
        errors = self._errors()
        doubt = _TRUST * np.maximum(errors[:-1], errors[1:])  # [intervals, p]
        self._ceiling = self.spline + doubt[inside] * bubble[:, None]  # [fine, p]

    @property
    def highest(self) -> Floats:
        """The largest known value of each curve, shape [p]."""
        highest: Floats = self.values[self._found].max(axis=0)
        return highest

    @property
    def ceiling(self) -> Floats:
        """The estimated maximum of each curve, at least `highest`, shape [p]."""
        ceiling: Floats = np.maximum(self._ceiling.max(axis=0), self.highest)
        return ceiling

    def contested(self, tolerance: Floats) -> npt.NDArray[np.bool_]:
        """Return in which intervals a curve may exceed `highest` by more than its tolerance.

        Args:
            tolerance: Shape [p].

        Returns:
            Shape [m − 1, p].
        """
        above = self._ceiling > self.highest + tolerance
        contested = np.zeros((len(self.at) - 1, self.values.shape[1]), dtype=bool)
        np.logical_or.at(contested, self._interval, above)
        return contested

    def _errors(self) -> Floats:
        """Distance of each point from the cubic through its neighbours, 0 at the ends, [m, p]."""
        errors = np.zeros_like(self.values)
        for index in range(1, len(self.at) - 1):
            others = np.delete(np.arange(len(self.at)), index)
            first = max(min(index - 2, len(others) - 4), 0)  # two on either side if possible
            near = others[first : first + 4]
            predicted = _lagrange(self.at[near], self.at[index]) @ self.values[near]
            errors[index] = np.abs(self.values[index] - predicted)
        return errors


def _lagrange(nodes: Floats, at: float) -> Floats:
    """Return the weights of the values at the nodes in the interpolating polynomial at `at`."""
    apart = nodes[:, None] - nodes[None, :]
    np.fill_diagonal(apart, 1.0)
    away = np.broadcast_to(at - nodes, apart.shape).copy()
    np.fill_diagonal(away, 1.0)
    weights: Floats = (away / apart).prod(axis=1)
    return weights


def ceiling(at: Floats, values: Floats) -> float:
    """Return the estimated maximum of a curve from its values at some points.

    Args:
        at: The points, ascending, shape [m].
        values: The values, shape [m].

    Returns:
        The estimate; ∞ if only the two ends are known, NaN if a value is not finite.
    """
    if not np.isfinite(values).all():
        return math.nan
    if len(at) < 3:
        return math.inf
    return float(Curves(at, values[:, None]).ceiling[0])
