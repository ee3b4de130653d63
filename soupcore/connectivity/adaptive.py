"""Adaptive choice of α: few values on a smooth line, more while its barrier is uncertain.

The first three values between the endpoints are the Chebyshev–Lobatto points ½(1 − cos(jπ/4)),
starting with the midpoint. Then an interval is bisected (in the angle jπ/4) only if the line may
exceed the highest loss found so far by more than the tolerance (see `bracket`). If the interpolated
curve has its maximum in the interval, the cut is made there, so that the barrier is a loss that was
evaluated and not interpolated.

Before a line is finished, it is also evaluated at two points of the next Lobatto grid, 0.31 and
0.69. They bisect the two widest gaps between the first five points, where two equal peaks would
look like one low peak. On a large split, a part of it suffices for this check (see
`subset_estimates`). Peaks narrower than the gaps between the points can still be missed. In a test
with two equal peaks of height 0.5 at arbitrary positions, peaks of width 0.3 (at half height) were
found to within 0.01, those of width 0.25 to within 0.025, and those of width 0.2 to within 0.1.
Narrower peaks may be missed entirely.

The next values depend only on the known evaluations, so a stored line requests the same values as
during its evaluation. Every α is a multiple of 1/4096: exact, so that points are recognised, and
symmetric, so that a reversed line has the same points.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from soupcore.connectivity.bracket import Curves, Floats

_STEPS = 4096
_MOST = 48  # maximum number of values between the endpoints; a curve that needs more is noise
_MARGIN = 0.1  # fraction of an interval near its ends in which a maximum is not a place to cut
_NEAREST = 1 / 256  # a maximum closer than this to a known value counts as that value
_HALF = Fraction(1, 2)

Line = Mapping[Fraction, tuple[float, float]]  # loss and score by α


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
            raise ValueError("Tolerances must be positive.")

    def wanted(self, lines: Sequence[Line]) -> list[list[Fraction]]:
        """Return the α values to evaluate next on each line.

        The list of a line is empty if its barriers are within the tolerance, judging by the known
        α values. Then its `gaps` remain to be checked.

        Args:
            lines: For each line the loss and the score at the known α values.
        """
        wanted: list[list[Fraction]] = [[] for _ in lines]
        ready = []
        for index, line in enumerate(lines):
            if (first := _first(line)) or not is_finite(line):
                wanted[index] = first
            else:
                ready.append(index)
        for alphas, places in alike([lines[index] for index in ready]):
            indices = [ready[place] for place in places]
            at, values = table(alphas, [lines[index] for index in indices])
            room = max(_MOST + 2 - len(alphas), 0)
            for index, cuts in zip(indices, self._cuts(at, values), strict=True):
                wanted[index] = sorted(set(cuts) - set(alphas))[:room]
        return wanted

    def doubtful(self, lines: Sequence[Line], estimates: Sequence[Line]) -> list[bool]:
        """Return for each line whether estimates in its gaps make its barrier uncertain.

        Args:
            lines: As for `wanted`, which returns no α values for them.
            estimates: For each line the estimated loss and score at its `gaps`.
        """
        doubtful = [not is_finite(estimate) for estimate in estimates]
        sure = [index for index, doubt in enumerate(doubtful) if not doubt]
        for alphas, places in alike([lines[index] for index in sure]):
            indices = [sure[place] for place in places]
            both = [{**lines[index], **estimates[index]} for index in indices]
            at, values = table(sorted(both[0]), both)
            found = np.isin(at, np.array([float(alpha) for alpha in alphas]))
            for index, cuts in zip(indices, self._cuts(at, values, found), strict=True):
                doubtful[index] = bool(cuts)
        return doubtful

    def _cuts(
        self, at: Floats, values: Floats, found: npt.NDArray[np.bool_] | None = None
    ) -> list[list[Fraction]]:
        """Return where to cut the intervals of lines with the same known α values.

        Args:
            at: The α values, shape [m].
            values: Losses and scores, shape [m, p, 2] for p lines.
            found: Which values were evaluated and not estimated, shape [m]; by default, all.
        """
        losses, scores = values[..., 0], values[..., 1]
        loss = Curves(at, losses - _chord(at, losses), found)
        error = Curves(at, _chord(at, scores) - scores, found)
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


def _chord(at: Floats, values: Floats) -> Floats:
    """Return the linear interpolation between the first and the last of values [m, p]."""
    chord: Floats = (1 - at)[:, None] * values[0] + at[:, None] * values[-1]
    return chord


def gaps(line: Line) -> list[Fraction]:
    """Return the α values in wide gaps that must be checked before a line is finished."""
    return [alpha for alpha in lobatto(8)[3:6:2] if alpha not in line] if is_finite(line) else []


def is_finite(line: Line) -> bool:
    """Return whether all known losses and scores of a line are finite."""
    return all(math.isfinite(loss) and math.isfinite(score) for loss, score in line.values())


def alike(lines: Sequence[Line]) -> Iterable[tuple[tuple[Fraction, ...], list[int]]]:
    """Group lines by their known α values: pairs of ascending α values and indices of lines.

    Most lines have the same α values, and processing them one by one would be slow.
    """
    groups: dict[tuple[Fraction, ...], list[int]] = {}
    for index, line in enumerate(lines):
        groups.setdefault(tuple(sorted(line)), []).append(index)
    return groups.items()


def table(alphas: Sequence[Fraction], lines: Sequence[Line]) -> tuple[Floats, Floats]:
    """Return the α values, shape [m], and losses and scores of p lines, shape [m, p, 2]."""
    at = np.array([float(alpha) for alpha in alphas])
    return at, np.array([[line[alpha] for line in lines] for alpha in alphas])


def lobatto(intervals: int) -> list[Fraction]:
    """Return the Chebyshev–Lobatto points ½(1 − cos(jπ/n)), rounded to multiples of 1/4096."""
    return [_rounded(_at_angle(math.pi * j / intervals)) for j in range(intervals + 1)]


def _first(line: Line) -> list[Fraction]:
    """Return the missing initial α values of a line: first ends and midpoint, then the others."""
    for points in (lobatto(2), lobatto(4)):
        if missing := [alpha for alpha in points if alpha not in line]:
            return missing
    return []


def _cut(start: float, stop: float, top: float) -> Fraction:
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
