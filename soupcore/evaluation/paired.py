"""Whether one point is better than another on the same examples.

Two networks that were tested on the same images agree on most of them, so what counts are the
images on which they differ; two separate intervals hide that.
"""

from dataclasses import dataclass

import scipy  # its submodules load when they are first used, and scipy.stats takes a while
from torch import Tensor

from soupcore.errors import TaskError


@dataclass(frozen=True)
class Paired:
    """How two points compare on the same examples.

    Attributes:
        n: Number of examples.
        difference: Mean score of the first less that of the second.
        interval: 95 % confidence interval of the difference in the population.
        gained: Examples on which the first scores higher.
        lost: Examples on which the first scores lower.
        p_value: Two-sided: how often chance alone would split the examples that differ at least as
            unevenly.
    """

    n: int
    difference: float
    interval: tuple[float, float]
    gained: int
    lost: int
    p_value: float

    @property
    def changed(self) -> int:
        """Examples on which the two differ."""
        return self.gained + self.lost


def paired(one: Tensor, other: Tensor, confidence: float = 0.95) -> Paired:
    """Compare two points by their scores on the same examples.

    The p-value is that of McNemar's test in its exact form (binomial, on the examples that differ);
    where scores are not all 0 or 1 this is the sign test. The interval is Agresti and Min's for
    matched proportions (2005, "Simple improved confidence intervals for comparing matched
    proportions": Wald's after half an example is added to each of the four cells), and Student's t
    interval of the differences where scores are not all 0 or 1. Both cover the choice of examples
    only: not that of the training run, and not the choice of a point among many.

    Args:
        one: A score an example, shape [n], n ≥ 1.
        other: The same of the other point, in the same order.
        confidence: Between 0 and 1.

    Raises:
        TaskError: They are not scores of as many examples.
    """
    if one.shape != other.shape or one.dim() != 1 or len(one) == 0:
        raise TaskError(
            f"Scores of shapes {list(one.shape)} and {list(other.shape)} are not those of the same "
            "examples."
        )
    differences = one.double() - other.double()
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    binary = all(bool(((scores == 0) | (scores == 1)).all()) for scores in (one, other))
    interval = _matched_proportions if binary else _student
    test = scipy.stats.binomtest(gained, gained + lost) if gained + lost else None
    return Paired(
        n=len(one),
        difference=float(differences.mean()),
        interval=interval(differences, confidence),
        gained=gained,
        lost=lost,
        p_value=float(test.pvalue) if test is not None else 1.0,
    )


def _matched_proportions(differences: Tensor, confidence: float) -> tuple[float, float]:
    # Half an example in each cell: of the four, one gains, one loses and two stay as they are.
    n = len(differences) + 2
    gained = float((differences > 0).sum()) + 0.5
    lost = float((differences < 0).sum()) + 0.5
    mean = (gained - lost) / n
    variance = (gained + lost) / n - mean**2
    half = float(scipy.stats.norm.ppf((1 + confidence) / 2)) * (variance / n) ** 0.5
    return max(mean - half, -1.0), min(mean + half, 1.0)


def _student(differences: Tensor, confidence: float) -> tuple[float, float]:
    n = len(differences)
    if n == 1:
        return float("-inf"), float("inf")
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1)) * float(differences.std()) / n**0.5
    mean = float(differences.mean())
    return mean - half, mean + half
