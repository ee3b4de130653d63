"""Estimates of losses and scores on a split from evaluations on a part of it.

The difference between the loss on the part and the loss on the whole split changes little along a
line, because the same examples are easy at all of its points. A point that was evaluated only on
the part is therefore estimated by its value there plus the interpolated difference of the points
around it. In statistics, this is called a control variate.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import scipy  # its submodules load when they are first used

from soupcore.connectivity.adaptive import Line, alike, table
from soupcore.tasks import TaskInfo

_LEAST = 200  # minimum number of examples in the part
_SHARE = 8  # the part has 1/8 of the examples


def part_of(task: TaskInfo[Any], split: str) -> str | None:
    """Return the name of the part of a split that suffices for estimates.

    None if the part would be half of the split or more, or if the split is itself a part.
    """
    examples = len(task.split(split))
    n = max(_LEAST, examples // _SHARE)
    if 2 * n >= examples or task.whole_of(split) != split:
        return None
    return task.part(split, n)


def estimates(lines: Sequence[Line], on_subset: Sequence[Line]) -> Sequence[Line]:
    """Estimate the values of lines on the whole split at α values known only on the part.

    Args:
        lines: For each line the values on the whole split, including α = 0 and 1.
        on_subset: For each line the values on the part, at the same α values and others.
    """
    estimated: list[dict[Fraction, tuple[float, float]]] = [{} for _ in lines]
    for alphas, indices in alike(lines):
        at, whole = table(alphas, [lines[index] for index in indices])
        _, part = table(alphas, [on_subset[index] for index in indices])
        difference = scipy.interpolate.CubicSpline(at, whole - part)
        for alpha in on_subset[indices[0]].keys() - set(alphas):  # the same for lines of a group
            _, there = table([alpha], [on_subset[index] for index in indices])
            values = (there[0] + difference(float(alpha))).tolist()  # [lines, 2]
            for index, (loss, score) in zip(indices, values, strict=True):
                estimated[index][alpha] = loss, score
    return estimated
