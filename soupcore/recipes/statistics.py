"""A soup of a network with BatchNorm, with its other statistics.

Whether averaged or re-estimated ones are better differs from case to case (see
`soupcore.evaluation.batchnorm`), so both are made and the select split says.
"""

from dataclasses import replace

from soupcore.evaluation import Evaluator
from soupcore.recipes.soup import Soup


def other_statistics_of(soup: Soup, evaluator: Evaluator) -> Soup | None:
    """Return the soup with re-estimated statistics where its own are averaged, and the reverse.

    Args:
        soup: The soup.
        evaluator: Estimates them.

    Returns:
        The other soup, not evaluated; None where the network has no BatchNorm, or the task no
        training data to estimate on.
    """
    if not evaluator.can_re_estimate:
        return None
    other = replace(soup, estimate=None, statistics={}, evaluations={}, recorded={})
    return other.re_estimate(evaluator) if soup.estimate is None else other
