"""What a part of the examples tells of points that were not evaluated on all of them.

By how much the loss of a part differs from that of the whole changes little along a line: the same
examples are easy at all of its points. So a point that was evaluated on the part alone is, on the
whole, what it is there plus that difference, as the points around it have it (in statistics, a
control variate).
"""

from collections.abc import Sequence
from fractions import Fraction

import scipy  # its submodules load when they are first used

from soupcore.connectivity.adaptive import Line, alike, table
from soupcore.tasks import Task

_LEAST = 200  # examples
_SHARE = 8  # of how many examples one is in the part


def part_of(task: Task, split: str) -> str | None:
    """Return the name of the part of a split that is enough for a glance.

    It is None where that would be half of the split or more, and where this is a part itself.
    """
    examples = len(task.split(split))
    n = max(_LEAST, examples // _SHARE)
    if 2 * n >= examples or task.whole_of(split) != split:
        return None
    return task.part(split, n)


def estimates(lines: Sequence[Line], glances: Sequence[Line]) -> Sequence[Line]:
    """Return what lines are, on the whole split, where they are known on a part of it only.

    Args:
        lines: Of each line what it is on the whole, at 0 and 1 and in between.
        glances: What it is on the part, there and elsewhere.
    """
    found: list[dict[Fraction, tuple[float, float]]] = [{} for _ in lines]
    for alphas, indices in alike(lines):
        at, whole = table(alphas, [lines[index] for index in indices])
        _, part = table(alphas, [glances[index] for index in indices])
        difference = scipy.interpolate.CubicSpline(at, whole - part)
        for alpha in glances[indices[0]].keys() - set(alphas):  # alike lines have the same gaps
            _, there = table([alpha], [glances[index] for index in indices])
            values = (there[0] + difference(float(alpha))).tolist()  # [lines, 2]
            for index, (loss, score) in zip(indices, values, strict=True):
                found[index][alpha] = loss, score
    return found
