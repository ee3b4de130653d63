"""A soup with its other BatchNorm statistics: averaged or re-estimated.

Which of them are better differs from case to case (see `soupcore.evaluation.batchnorm`), so both
soups are built and compared on the select split.
"""

from dataclasses import replace

from soupcore.evaluation import Evaluator
from soupcore.recipes.soup import Soup


def other_statistics_of(soup: Soup, evaluator: Evaluator) -> Soup | None:
    """Return the soup with re-estimated statistics if its own are averaged, and vice versa.

    Args:
        soup: The soup.
        evaluator: Estimates the statistics.

    Returns:
        The other soup without evaluations. None if the network has no BatchNorm or the task has no
        split with the role `train`.
    """
    if not evaluator.task.can_re_estimate:
        return None
    other = replace(soup, estimate=None, statistics={}, evaluations={}, recorded={})
    return other.re_estimate(evaluator) if soup.estimate is None else other
