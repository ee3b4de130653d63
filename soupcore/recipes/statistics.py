"""A soup of a network with BatchNorm, with averaged statistics and with re-estimated ones.

Which is better differs from case to case (see `soupcore.evaluation.batchnorm`), so both are made
and the select split decides.
"""

import math
from dataclasses import replace

from soupcore.evaluation import Evaluator, Progress, no_progress
from soupcore.evaluation.progress import part
from soupcore.recipes.soup import Soup


def both_statistics(
    soup: Soup, evaluator: Evaluator, on_progress: Progress = no_progress
) -> tuple[Soup, ...]:
    """Return the soup with both kinds of statistics, the better on select first.

    Of equal ones it is that with averaged statistics. Where the network has no BatchNorm, or the
    task no training data to estimate on, there is only the soup itself.

    Args:
        soup: The soup, its statistics averaged.
        evaluator: Evaluates both on select.
        on_progress: Called with examples done and in all; raise in it to stop.
    """
    if not evaluator.has_batchnorm or not evaluator.task.splits_with_role("train"):
        return (soup,)
    again = replace(soup, evaluations={}, recorded={}).re_estimate(evaluator)
    for index, each in enumerate((soup, again)):
        each.evaluate(evaluator, [evaluator.task.select], part(on_progress, index, 2))

    def rank(each: Soup) -> list[float]:
        found = each.evaluations[evaluator.task.select]
        return [-math.inf if math.isnan(value) else value for value in (found.score, -found.loss)]

    return (again, soup) if rank(again) > rank(soup) else (soup, again)
