"""Adaptive choice of α: few values on a smooth line, more while its barrier is uncertain.

The first three values between the endpoints are the Chebyshev–Lobatto points ½(1 − cos(jπ/4)),
starting with the midpoint. Then an interval is bisected (in the angle jπ/4) only if the line may
exceed the highest loss found so far by more than the tolerance (see `Curves`). If the interpolated
curve has its maximum in the interval, the cut is made there, so that the barrier is a loss that was
evaluated and not interpolated.

Before a line is finished, it is also evaluated at two points of the next Lobatto grid, 0.31 and
0.69. They bisect the two widest gaps between the first five points, where two equal peaks would
look like one low peak. On a large split, a part of it suffices for this check (see
`estimates_of_whole`). Peaks narrower than the gaps between the points can still be missed. In a
test with two equal peaks of height 0.5 at arbitrary positions, peaks of width 0.3 (at half height)
were found to within 0.01, those of width 0.25 to within 0.025, and those of width 0.2 to within
0.1. Narrower peaks may be missed entirely.

The next values depend only on the known evaluations, so a stored line requests the same values as
during its evaluation. Every α is a multiple of 1/4096: exact, so that points are recognised, and
symmetric, so that a reversed line has the same points.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its submodules load when they are first used

from soupcore.inner_products import Floats
from soupcore.tasks import TaskInfo

#: Evaluations of a line with adaptive α and a low barrier, roughly: its midpoint and four more.
EVALUATIONS_PER_LINE = 5

_STEPS = 4096
_MOST = 48  # maximum number of values between the endpoints; a curve that needs more is noise
_MARGIN = 0.1  # fraction of an interval near its ends in which a maximum is not a place to cut
_NEAREST = 1 / 256  # a maximum closer than this to a known value counts as that value

_ERROR_FRACTION = 0.5  # fraction of the error of prediction that is added to the spline
_FINE = 512  # intervals of the grid on which the spline is evaluated

_LEAST = 200  # minimum number of examples in the part of a split
_SHARE = 8  # the part has 1/8 of the examples

Points = Mapping[Fraction, tuple[float, float]]  # loss and score of a line by α


@dataclass(frozen=True)
class Adaptive:
    """As many α values as are needed to know a barrier to within a tolerance.

    The tolerance holds for curves whose peaks have a width of at least about 0.3 in α at half
    height. Narrower peaks can be missed.

    Attributes:
        tolerance: Absolute tolerance of loss barriers up to 1, in units of the loss; relative
            tolerance of larger ones.
        score_tolerance: Absolute tolerance of error barriers up to 1, in units of the score;
            relative tolerance of larger ones. Accuracies have discrete steps.
    """

    tolerance: float = 0.01
    score_tolerance: float = 0.01

    def __post_init__(self) -> None:
        if not (self.tolerance > 0 and self.score_tolerance > 0):
            raise ValueError(
                f"Tolerances must be positive, not {self.tolerance} and {self.score_tolerance}."
            )

    def wanted(self, lines: Sequence[Points]) -> list[list[Fraction]]:
        """Return the α values to evaluate next on each line.

        The list of a line is empty if its barriers are within the tolerance, judging by the known
        α values. Then its `gaps` remain to be checked.

        Args:
            lines: For each line the loss and the score at the known α values.
        """
        wanted: list[list[Fraction]] = [[] for _ in lines]
        ready = []
        for index, line in enumerate(lines):
            if (first := _first(line)) or not _is_finite(line):
                wanted[index] = first
            else:
                ready.append(index)
        for alphas, places in _by_alphas([lines[index] for index in ready]):
            indices = [ready[place] for place in places]
            at, values = _table(alphas, [lines[index] for index in indices])
            room = max(_MOST + 2 - len(alphas), 0)
            for index, cuts in zip(indices, self._cuts(at, values), strict=True):
                wanted[index] = sorted(set(cuts) - set(alphas))[:room]
        return wanted

    def doubtful(self, lines: Sequence[Points], estimates: Sequence[Points]) -> list[bool]:
        """Return for each line whether estimates in its gaps make its barrier uncertain.

        Args:
            lines: As for `wanted`, which returns no α values for them.
            estimates: For each line the estimated loss and score at its `gaps`.
        """
        doubtful = [not _is_finite(estimate) for estimate in estimates]
        finite = [index for index, doubt in enumerate(doubtful) if not doubt]
        for alphas, places in _by_alphas([lines[index] for index in finite]):
            indices = [finite[place] for place in places]
            both = [{**lines[index], **estimates[index]} for index in indices]
            at, values = _table(sorted(both[0]), both)
            is_evaluated = np.isin(at, np.array([float(alpha) for alpha in alphas]))
            for index, cuts in zip(indices, self._cuts(at, values, is_evaluated), strict=True):
                doubtful[index] = bool(cuts)
        return doubtful

    def _cuts(
        self, at: Floats, values: Floats, is_evaluated: npt.NDArray[np.bool_] | None = None
    ) -> list[list[Fraction]]:
        """Return where to cut the intervals of lines with the same known α values.

        Args:
            at: The α values, shape [m].
            values: Losses and scores, shape [m, p, 2] for p lines.
            is_evaluated: Which values were evaluated and not estimated, shape [m]; by default, all.
        """
        losses, scores = values[..., 0], values[..., 1]
        loss = Curves(at, losses - _chord(at, losses), is_evaluated)
        error = Curves(at, _chord(at, scores) - scores, is_evaluated)
        cuts: list[list[Fraction]] = [[] for _ in range(values.shape[1])]
        for curves, tolerance in ((loss, self.tolerance), (error, self.score_tolerance)):
            contested = curves.contested(tolerance * np.maximum(curves.highest, 1))  # [m − 1, p]
            tops = curves.fine[curves.spline.argmax(axis=0)]  # [p]
            for interval, line in zip(*np.nonzero(contested), strict=True):
                cuts[line].append(_cut(at[interval], at[interval + 1], tops[line]))
        for line, cut in enumerate(cuts):
            top = loss.spline[:, line].argmax()
            gain = loss.spline[top, line] - loss.highest[line]
            is_new = np.abs(at - loss.fine[top]).min() > _NEAREST
            if not cut and is_new and gain > 0.1 * self.tolerance:
                cut.append(_rounded(loss.fine[top]))
        return cuts


ADAPTIVE = Adaptive()


def gaps(line: Points) -> list[Fraction]:
    """Return the α values in wide gaps that must be checked before a line is finished."""
    return [alpha for alpha in lobatto(8)[3:6:2] if alpha not in line] if _is_finite(line) else []


def lobatto(intervals: int) -> list[Fraction]:
    """Return the Chebyshev–Lobatto points ½(1 − cos(jπ/n)), rounded to multiples of 1/4096."""
    return [_rounded(_at_angle(math.pi * j / intervals)) for j in range(intervals + 1)]


def part_of(task: TaskInfo[Any], split: str) -> str | None:
    """Return the name of the part of a split that suffices for estimates.

    None if the part would be half of the split or more, or if the split is itself a part.
    """
    examples = len(task.split(split))
    n = max(_LEAST, examples // _SHARE)
    if 2 * n >= examples or task.whole_of(split) != split:
        return None
    return task.part(split, n)


def estimates_of_whole(lines: Sequence[Points], on_subset: Sequence[Points]) -> Sequence[Points]:
    """Estimate the values of lines on the whole split at α values known only on a part of it.

    The difference between the loss on the part and the loss on the whole split changes little along
    a line, because the same examples are easy at all of its points. A point that was evaluated only
    on the part is therefore estimated by its value there plus the interpolated difference of the
    points around it. In statistics, this is called a control variate.

    Args:
        lines: For each line the values on the whole split, including α = 0 and 1.
        on_subset: For each line the values on the part, at the same α values and others.
    """
    estimated: list[dict[Fraction, tuple[float, float]]] = [{} for _ in lines]
    for alphas, indices in _by_alphas(lines):
        at, whole = _table(alphas, [lines[index] for index in indices])
        _, part = _table(alphas, [on_subset[index] for index in indices])
        difference = scipy.interpolate.CubicSpline(at, whole - part)
        for alpha in on_subset[indices[0]].keys() - set(alphas):  # the same for lines of a group
            _, there = _table([alpha], [on_subset[index] for index in indices])
            values = (there[0] + difference(float(alpha))).tolist()  # [lines, 2]
            for index, (loss, score) in zip(indices, values, strict=True):
                estimated[index][alpha] = loss, score
    return estimated


class Curves:
    """Several curves with values at the same points, and their estimated maxima between these.

    A cubic spline interpolates the known points. Its uncertainty near a point is estimated by
    leaving the point out: by the error with which the cubic through its four neighbours predicts
    it. In each interval, half the larger error of its two ends is added to the spline, scaled by a
    parabola that is 1 in the middle of the interval and 0 at its ends.

    The factor ½ is empirical. It kept the barriers of all 215 pairs of three synthetic sweeps, with
    heights from 0 to 1.6, within tolerances of 0.005, 0.01 and 0.02 of those on a grid of 129
    points. (The spline uses one more point than the predictions, so its own error would be a
    sixteenth of theirs on a grid that is fine enough.)

    The result is an estimate and not a bound: no number of points excludes a peak between them.

    Args:
        at: The points, ascending, shape [m], m ≥ 3.
        values: The values, shape [m, p] for p curves.
        is_evaluated: Which values were evaluated and not estimated, shape [m]; by default, all.
            Only these count for `highest`.
    """

    def __init__(
        self, at: Floats, values: Floats, is_evaluated: npt.NDArray[np.bool_] | None = None
    ) -> None:
        self.at = at
        self.values = values
        self._is_evaluated = np.ones(len(at), dtype=bool) if is_evaluated is None else is_evaluated
        self.fine = np.linspace(at[0], at[-1], _FINE + 1)
        self.spline: Floats = scipy.interpolate.CubicSpline(at, values)(self.fine)  # [fine, p]
        inside = np.clip(np.searchsorted(at, self.fine, side="right") - 1, 0, len(at) - 2)
        self._interval = inside
        share = (self.fine - at[inside]) / (at[inside + 1] - at[inside])
        bubble = 4 * share * (1 - share)  # 0 at the ends of an interval, 1 in its middle
        errors = self._errors()
        doubt = _ERROR_FRACTION * np.maximum(errors[:-1], errors[1:])  # [intervals, p]
        self._ceiling = self.spline + doubt[inside] * bubble[:, None]  # [fine, p]

    @property
    def highest(self) -> Floats:
        """The largest known value of each curve, shape [p]."""
        highest: Floats = self.values[self._is_evaluated].max(axis=0)
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
        """Return the distance of each point from the cubic through its neighbours, shape [m, p].

        It is 0 at the ends.
        """
        errors = np.zeros_like(self.values)
        for index in range(1, len(self.at) - 1):
            others = np.delete(np.arange(len(self.at)), index)
            first = max(min(index - 2, len(others) - 4), 0)  # two on either side if possible
            near = others[first : first + 4]
            predicted = _lagrange(self.at[near], self.at[index]) @ self.values[near]
            errors[index] = np.abs(self.values[index] - predicted)
        return errors


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


def _chord(at: Floats, values: Floats) -> Floats:
    """Return the linear interpolation between the first and the last of values [m, p]."""
    chord: Floats = (1 - at)[:, None] * values[0] + at[:, None] * values[-1]
    return chord


def _is_finite(line: Points) -> bool:
    """Return whether all known losses and scores of a line are finite."""
    return all(math.isfinite(loss) and math.isfinite(score) for loss, score in line.values())


def _by_alphas(lines: Sequence[Points]) -> Iterable[tuple[tuple[Fraction, ...], list[int]]]:
    """Group lines by their known α values: pairs of ascending α values and indices of lines.

    Most lines have the same α values, and processing them one by one would be slow.
    """
    groups: dict[tuple[Fraction, ...], list[int]] = {}
    for index, line in enumerate(lines):
        groups.setdefault(tuple(sorted(line)), []).append(index)
    return groups.items()


def _table(alphas: Sequence[Fraction], lines: Sequence[Points]) -> tuple[Floats, Floats]:
    """Return the α values, shape [m], and losses and scores of p lines, shape [m, p, 2]."""
    at = np.array([float(alpha) for alpha in alphas])
    return at, np.array([[line[alpha] for line in lines] for alpha in alphas])


def _first(line: Points) -> list[Fraction]:
    """Return the missing initial α values of a line: first ends and midpoint, then the others."""
    for points in (lobatto(2), lobatto(4)):
        if missing := [alpha for alpha in points if alpha not in line]:
            return missing
    return []


def _cut(start: float, stop: float, top: float) -> Fraction:
    """Return where to cut an interval: at a maximum well inside it, else in the middle by angle."""
    margin = _MARGIN * (stop - start)
    if start + margin < top < stop - margin:
        return _rounded(top)
    return _rounded(_at_angle((_angle(start) + _angle(stop)) / 2))


def _angle(alpha: float) -> float:
    return math.acos(1 - 2 * alpha)


def _at_angle(angle: float) -> float:
    return (1 - math.cos(angle)) / 2


def _rounded(alpha: float) -> Fraction:
    return Fraction(round(alpha * _STEPS), _STEPS)


def _lagrange(nodes: Floats, at: float) -> Floats:
    """Return the weights of the values at the nodes in the interpolating polynomial at `at`."""
    apart = nodes[:, None] - nodes[None, :]
    np.fill_diagonal(apart, 1.0)
    away = np.broadcast_to(at - nodes, apart.shape).copy()
    np.fill_diagonal(away, 1.0)
    weights: Floats = (away / apart).prod(axis=1)
    return weights
