"""Which α to evaluate next: few where a line is smooth, more where its barrier is in doubt.

The first three points between the ends are the Chebyshev–Lobatto points ½(1 − cos(jπ/4)), the
middle before the other two. After that an interval is halved, in the angle jπ/4, only where the
line may rise above the barrier found so far by more than the tolerance (see `bracket`), and where
the interpolated curve has its maximum, that is where the interval is cut: so the barrier is in the
end a loss that was evaluated at that maximum, and not the interpolant's.

No line is settled without two points of the next Lobatto grid, 0.31 and 0.69, which halve the two
widest gaps of the first five: equal hills in both would look like one low hill to these. What still
goes unseen is what is narrower than the gaps between the points. Of two equal hills 0.5 high,
wherever they stood, those 0.3 wide (at half height) were found to within 0.01, those 0.25 wide to
within 0.025, those 0.2 wide to within 0.1; hills that are narrower yet may be missed altogether.

Which points come next follows from what the known ones are, and from nothing else. So a line that
is looked up in the store asks for the same points as when it was evaluated. Every α is a multiple
of 1/4096: an exact number, so that a point is known again, and symmetric, so that a line walked
back is the same line.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from soupcore.connectivity.bracket import Curves, Floats

_STEPS = 4096
_MOST = 48  # points between the ends; a curve that needs more is noise
_MARGIN = 0.1  # of an interval: how near to its ends the maximum does not cut it
_NEAREST = 1 / 256  # a maximum nearer than this to a known point is that point
_HALF = Fraction(1, 2)

Value = tuple[float, float]  # loss, score


@dataclass(frozen=True)
class Adaptive:
    """As many points as a barrier takes to be known to within a tolerance.

    The tolerance holds for curves whose hills are at least about 0.3 wide, at half of their height,
    on a line from 0 to 1; narrower ones may lie between the points unseen.

    Attributes:
        tolerance: Of the loss barrier, in the units of the loss; of a barrier above 1, the share.
        score_tolerance: Of the error barrier, as a share of 1. A mean of right and wrong answers
            goes in steps, so this is coarser than it is for the loss.
    """

    tolerance: float = 0.01
    score_tolerance: float = 0.01

    def __post_init__(self) -> None:
        if not (self.tolerance > 0 and self.score_tolerance > 0):
            raise ValueError("A tolerance must be above 0; finitely many points prove no less.")

    def wanted(self, lines: Sequence[Mapping[Fraction, Value]]) -> list[list[Fraction]]:
        """Return the α to evaluate next on each line, none where its barriers are known.

        Args:
            lines: Of each line the loss and the score at the α known.
        """
        wanted: list[list[Fraction]] = [[] for _ in lines]
        alike: dict[tuple[Fraction, ...], list[int]] = {}
        for index, line in enumerate(lines):
            if (first := _first(line)) or not all(map(_is_finite, line.values())):
                wanted[index] = first
            else:
                alike.setdefault(tuple(sorted(line)), []).append(index)
        in_widest_gaps = lobatto(8)[3:6:2]
        # Lines known at the same α are looked at together: most are, and one by one it is slow.
        for alphas, indices in alike.items():
            at = np.array([float(alpha) for alpha in alphas])
            values = np.array([[lines[index][alpha] for index in indices] for alpha in alphas])
            for index, cuts in zip(indices, self._cuts(at, values), strict=True):
                room = _MOST + 2 - len(alphas)
                wanted[index] = sorted(set(cuts or in_widest_gaps) - set(alphas))[: max(room, 0)]
        return wanted

    def _cuts(self, at: Floats, values: Floats) -> list[list[Fraction]]:
        """Return where to cut the intervals of lines known at the same α; values [m, p, 2]."""
        losses, scores = values[..., 0], values[..., 1]
        rise = losses - ((1 - at)[:, None] * losses[0] + at[:, None] * losses[-1])
        loss = Curves(at, rise)
        error = Curves(at, -scores)
        cuts: list[list[Fraction]] = [[] for _ in range(values.shape[1])]
        for curves, tolerance in (
            (loss, self.tolerance * np.maximum(loss.highest, 1)),
            (error, np.full(values.shape[1], self.score_tolerance)),
        ):
            contested = curves.contested(tolerance)  # [m − 1, p]
            tops = curves.fine[curves.spline.argmax(axis=0)]  # [p]
            for interval, line in zip(*np.nonzero(contested), strict=True):
                cuts[line].append(_cut(at[interval], at[interval + 1], tops[line]))
        for line, found in enumerate(cuts):
            top = loss.spline[:, line].argmax()
            gain = loss.spline[top, line] - loss.highest[line]
            is_new = np.abs(at - loss.fine[top]).min() > _NEAREST
            if not found and is_new and gain > 0.1 * self.tolerance:
                found.append(_rounded(loss.fine[top]))
        return cuts


def lobatto(intervals: int) -> list[Fraction]:
    """Return the Chebyshev–Lobatto points ½(1 − cos(jπ/n)), as multiples of 1/4096."""
    return [_rounded(_at_angle(math.pi * j / intervals)) for j in range(intervals + 1)]


def _first(line: Mapping[Fraction, Value]) -> list[Fraction]:
    """Return what every line starts with and this one lacks: the middle, then the quarters."""
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


def _is_finite(value: Value) -> bool:
    return math.isfinite(value[0]) and math.isfinite(value[1])
