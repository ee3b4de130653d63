"""How sure a mean over examples is."""

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
        successes = int(scores.sum(dtype=torch.float64))
        interval = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
        return float(interval.low), float(interval.high)
    wide = scores.double()
    mean = float(wide.mean())
    if n == 1:
        return float("-inf"), float("inf")
    spread = float(wide.std()) / n**0.5
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1)) * spread
    return mean - half, mean + half
