"""Which α to evaluate next: few where a line is smooth, more where its barrier is in doubt.

The first three points between the ends are the Chebyshev–Lobatto points ½(1 − cos(jπ/4)), the
middle before the other two. After that an interval is halved, in the angle jπ/4, only where the
line may rise above the barrier found so far by more than the tolerance (see `bracket`), and where
the interpolated curve has its maximum, that is where the interval is cut: so the barrier is in the
end a loss that was evaluated at that maximum, and not the interpolant's.

No line is settled without a look at two points of the next Lobatto grid, 0.31 and 0.69, which halve
the two widest gaps of the first five: equal hills in both would look like one low hill to these. On
a large split a part of it is enough for that (see `glances`). What still goes unseen is what is
narrower than the gaps between the points. Of two equal hills 0.5 high, wherever they stood, those
0.3 wide (at half height) were found to within 0.01, those 0.25 wide to within 0.025, those 0.2 wide
to within 0.1; hills that are narrower yet may be missed altogether.

Which points come next follows from what the known ones are, and from nothing else. So a line that
is looked up in the store asks for the same points as when it was evaluated. Every α is a multiple
of 1/4096: an exact number, so that a point is known again, and symmetric, so that a line walked
back is the same line.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from soupcore.connectivity.bracket import Curves, Floats

_STEPS = 4096
_MOST = 48  # points between the ends; a curve that needs more is noise
_MARGIN = 0.1  # of an interval: how near to its ends the maximum does not cut it
_NEAREST = 1 / 256  # a maximum nearer than this to a known point is that point
_HALF = Fraction(1, 2)

Line = Mapping[Fraction, tuple[float, float]]  # loss and score by α


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

    def wanted(self, lines: Sequence[Line]) -> list[list[Fraction]]:
        """Return the α to evaluate next on each line.

        There are none where its barriers are known, as far as the α show that are known: what else
        has to be looked at then are its `gaps`.

        Args:
            lines: Of each line the loss and the score at the α known.
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
        """Return whether the barrier of each line is in doubt, by what is estimated of it.

        Args:
            lines: As for `wanted`, which wants no α there.
            estimates: Of each line the loss and the score at its `gaps`, as far as can be told
                without evaluating these.
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
        """Return where to cut the intervals of lines known at the same α.

        Args:
            at: These α, shape [m].
            values: Losses and scores there, shape [m, p, 2] for p lines.
            found: Which of them were evaluated, and not only estimated, shape [m]; all unless
                given.
        """
        losses, scores = values[..., 0], values[..., 1]
        rise = losses - ((1 - at)[:, None] * losses[0] + at[:, None] * losses[-1])
        loss = Curves(at, rise, found)
        error = Curves(at, -scores, found)
        cuts: list[list[Fraction]] = [[] for _ in range(values.shape[1])]
        for curves, tolerance in (
            (loss, self.tolerance * np.maximum(loss.highest, 1)),
            (error, np.full(values.shape[1], self.score_tolerance)),
        ):
            contested = curves.contested(tolerance)  # [m − 1, p]
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


def gaps(line: Line) -> list[Fraction]:
    """Return the α that have to be looked at before a line that wants no others is settled."""
    return [alpha for alpha in lobatto(8)[3:6:2] if alpha not in line] if is_finite(line) else []


def is_finite(line: Line) -> bool:
    """Return whether all that is known of a line are numbers."""
    return all(math.isfinite(loss) and math.isfinite(score) for loss, score in line.values())


def alike(lines: Sequence[Line]) -> Iterable[tuple[tuple[Fraction, ...], list[int]]]:
    """Return the α that lines are known at, ascending, each with the lines known there.

    These are looked at together: most lines are known at the same α, and one by one it is slow.
    """
    found: dict[tuple[Fraction, ...], list[int]] = {}
    for index, line in enumerate(lines):
        found.setdefault(tuple(sorted(line)), []).append(index)
    return found.items()


def table(alphas: Sequence[Fraction], lines: Sequence[Line]) -> tuple[Floats, Floats]:
    """Return α, shape [m], and the losses and scores of p lines there, shape [m, p, 2]."""
    at = np.array([float(alpha) for alpha in alphas])
    return at, np.array([[line[alpha] for line in lines] for alpha in alphas])


def lobatto(intervals: int) -> list[Fraction]:
    """Return the Chebyshev–Lobatto points ½(1 − cos(jπ/n)), as multiples of 1/4096."""
    return [_rounded(_at_angle(math.pi * j / intervals)) for j in range(intervals + 1)]


def _first(line: Line) -> list[Fraction]:
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
