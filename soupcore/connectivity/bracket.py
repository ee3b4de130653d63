"""How high a curve may be between the points where it is known.

The estimate is one of interpolation. A cubic spline goes through the known points; how far it can
be trusted at one of them is how badly the cubic through its four neighbours predicts it. Half the
larger of the two errors at an interval's ends, largest in its middle and 0 at its ends, is added to
the spline there. (The spline that is used
has a point more than each of those that were tried, and would err a sixteenth as much if they were
fine enough. Half is what kept the barriers of all 215 pairs of three made sweeps, from 0 to 1.6
high, within tolerances of 0.005, 0.01 and 0.02 of those of a grid of 129 points.)

It is an estimate and no bound: no number of points proves that nothing is hidden between them.
"""

import math

import numpy as np
import numpy.typing as npt
import scipy  # its submodules load when they are first used

Floats = npt.NDArray[np.float64]

_TRUST = 0.5  # of the error that a point's neighbours make in predicting it
_FINE = 512  # intervals of the grid on which the spline is looked at


class Curves:
    """Several curves known at the same points, and what may lie between these.

    Args:
        at: Where they are known, ascending, shape [m], m ≥ 3.
        values: What they are there, shape [m, p] for p curves.
        found: Which of these values count as found, shape [m]; all unless given.
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
        bubble = 4 * share * (1 - share)  # 0 at an interval's ends, 1 in its middle
        errors = self._errors()
        doubt = _TRUST * np.maximum(errors[:-1], errors[1:])  # [intervals, p]
        self._ceiling = self.spline + doubt[inside] * bubble[:, None]  # [fine, p]

    @property
    def highest(self) -> Floats:
        """The largest value found of each curve, shape [p]."""
        highest: Floats = self.values[self._found].max(axis=0)
        return highest

    @property
    def ceiling(self) -> Floats:
        """How high each curve may be, as estimated; at least `highest`, shape [p]."""
        ceiling: Floats = np.maximum(self._ceiling.max(axis=0), self.highest)
        return ceiling

    def contested(self, tolerance: Floats) -> npt.NDArray[np.bool_]:
        """Whether a curve may be higher than `highest` by more than its tolerance in an interval.

        Args:
            tolerance: Shape [p].

        Returns:
            Shape [m − 1, p].
        """
        above = self._ceiling > self.highest + tolerance
        found = np.zeros((len(self.at) - 1, self.values.shape[1]), dtype=bool)
        np.logical_or.at(found, self._interval, above)
        return found

    def _errors(self) -> Floats:
        """How far each point lies from the cubic through its neighbours; 0 at the ends, [m, p]."""
        errors = np.zeros_like(self.values)
        for index in range(1, len(self.at) - 1):
            others = np.delete(np.arange(len(self.at)), index)
            first = max(min(index - 2, len(others) - 4), 0)  # two on either side, where there are
            near = others[first : first + 4]
            predicted = _lagrange(self.at[near], self.at[index]) @ self.values[near]
            errors[index] = np.abs(self.values[index] - predicted)
        return errors


def _lagrange(nodes: Floats, at: float) -> Floats:
    """Return the weights that a polynomial's values at the nodes have in its value elsewhere."""
    apart = nodes[:, None] - nodes[None, :]
    np.fill_diagonal(apart, 1.0)
    away = np.broadcast_to(at - nodes, apart.shape).copy()
    np.fill_diagonal(away, 1.0)
    weights: Floats = (away / apart).prod(axis=1)
    return weights


def ceiling(at: Floats, values: Floats) -> float:
    """Return how high a curve may be, as estimated from its values at some points.

    Args:
        at: Where it is known, ascending, shape [m].
        values: What it is there, shape [m].

    Returns:
        ∞ where only the ends are known, NaN where a value is.
    """
    if not np.isfinite(values).all():
        return math.nan
    if len(at) < 3:
        return math.inf
    return float(Curves(at, values[:, None]).ceiling[0])
