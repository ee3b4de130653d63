"""How sure a mean over examples is."""

from statistics import NormalDist

import scipy  # its submodules load when they are first used, and scipy.stats takes a while
import torch


def score_interval(scores: torch.Tensor, confidence: float = 0.95) -> tuple[float, float]:
    """Return a confidence interval for the mean score of the population.

    Scores that are all 0 or 1 get Wilson's interval (Wilson 1927, without continuity correction);
    others Student's t interval. It covers the choice of examples only, not that of the training
    run, and not the choice of this point among many.

    Args:
        scores: One score an example, shape [n], n ≥ 1.
        confidence: Between 0 and 1.
    """
    n = len(scores)
    if bool(((scores == 0) | (scores == 1)).all()):
        return _wilson(int(scores.sum(dtype=torch.float64)), n, confidence)
    wide = scores.double()
    mean = float(wide.mean())
    if n == 1:
        return float("-inf"), float("inf")
    spread = float(wide.std()) / n**0.5
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1)) * spread
    return mean - half, mean + half


def _wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    # scipy's binomtest gives the same, but does the test too, which takes a millisecond: as long
    # as it takes a small network to see all examples.
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    middle = share + z**2 / (2 * n)
    half = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    # At the ends of the range the bounds are 0 and 1, but for rounding.
    low = 0.0 if successes == 0 else (middle - half) / (1 + z**2 / n)
    high = 1.0 if successes == n else (middle + half) / (1 + z**2 / n)
    return low, high
