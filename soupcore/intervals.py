"""Means over examples, their confidence intervals, bootstrap resamples, and paired tests.

Two networks that are tested on the same examples agree on most of them. Only the examples on which
they differ say which one is better, so a paired test is more precise than two separate intervals.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import scipy  # its submodules load when they are first used, and scipy.stats takes a while
import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.tasks import Undefined

NO_INTERVAL = (math.nan, math.nan)

_RESAMPLES = 200

# Relative to the largest score. Differences of float32 scores that vary by less count as equal.
_ROUNDING = 1e-7


def defined(values: torch.Tensor, undefined: Undefined) -> torch.Tensor:
    """Return the values that enter the mean: all of them, or those that are not NaN.

    Args:
        values: One number per example, shape [n].
        undefined: How to treat examples whose value is NaN (see `Task.undefined`).
    """
    return values[~values.isnan()] if undefined == "exclude" else values


def mean_of(values: Tensor, undefined: Undefined, weights: Tensor | None = None) -> float:
    """Return the mean, summed in float64; NaN if a value in it is NaN or it is empty.

    Args:
        values: One number per example, shape [n].
        undefined: See `defined`.
        weights: The weight of each example, shape [n]; examples of weight zero are left out. None
            for equal weights.
    """
    if weights is None:
        return float(defined(values, undefined).double().mean())
    values, weights = _counted(values, undefined, weights)
    return float((values * weights).sum() / weights.sum())


def score_interval(
    scores: torch.Tensor,
    confidence: float = 0.95,
    *,
    undefined: Undefined = "refuse",
    weights: Tensor | None = None,
) -> tuple[float, float]:
    """Return a confidence interval for the mean score of the population.

    Scores that are all 0 or 1 get Wilson's interval (Wilson 1927, without continuity correction),
    others Student's t interval. The interval covers the sampling of examples only, not the variance
    between training runs, and not the selection of this point among many.

    Weighted shares get Wilson's interval for the effective number of examples: that which would
    give an unweighted share the variance that linearisation gives this one (Franco et al. 2019,
    "Comparative study of confidence intervals for proportions in complex sample surveys"). Where
    all scores are equal it is Kish's (1965), (Σw)² ⁄ Σw². Weighted means of other scores get the t
    interval with the variance by linearisation. With equal weights, both are the intervals above.

    Args:
        scores: One score per example, shape [n].
        confidence: Confidence level, between 0 and 1.
        undefined: See `defined`.
        weights: As for `mean_of`.

    Returns:
        Lower and upper bound. Both are NaN without examples. If some score is not 0 or 1, both are
        also NaN for a single example, for equal scores (their spread is unknown), and for scores
        that are not all finite.
    """
    if weights is not None:
        return _weighted_interval(*_counted(scores, undefined, weights), confidence)
    scores = defined(scores, undefined)
    n = len(scores)
    if n == 0:
        return NO_INTERVAL
    if bool(((scores == 0) | (scores == 1)).all()):
        return _wilson(int(scores.sum(dtype=torch.float64)) / n, n, confidence)
    wide = scores.double()
    mean = float(wide.mean())
    if n == 1:
        return NO_INTERVAL
    spread = float(wide.std()) / n**0.5
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1)) * spread
    low, high = mean - half, mean + half
    return (low, high) if math.isfinite(half) and low < high else NO_INTERVAL


def resamples(n: int, count: int = _RESAMPLES, seed: int = 0) -> Iterator[Tensor]:
    """Yield bootstrap resamples of n examples, as int64 indices of shape [n].

    They depend only on n and the seed, so all points on a split share the same resamples.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randint(n, (n,), generator=generator)


def halves(examples: int, repeats: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield random halves of the examples in both orders; with an odd number, one is ignored.

    Args:
        examples: Number of examples.
        repeats: Number of divisions; each is yielded twice.
        seed: Seed of the divisions.
    """
    generator = torch.Generator().manual_seed(seed)
    n = examples // 2
    for _ in range(repeats):
        order = torch.randperm(examples, generator=generator)
        yield order[:n], order[n : 2 * n]
        yield order[n : 2 * n], order[:n]


def bootstrap_interval(
    estimate: float, replicates: Tensor, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the normal interval with the bootstrap's standard error.

    200 resamples suffice for a standard error, whereas percentiles need a thousand (Efron and
    Tibshirani 1993, chapters 6 and 13). Resamples on which the metric is NaN, for example because
    a class is missing, are excluded.

    Args:
        estimate: The metric on all examples.
        replicates: The metric on each resample, shape [count].
        confidence: Confidence level, between 0 and 1.

    Returns:
        Lower and upper bound. Both are NaN if more than half of the replicates are NaN, or if the
        others are not all finite or all equal.
    """
    values = replicates.double()
    values = values[~values.isnan()]
    if len(values) < max(2, len(replicates) / 2) or not values.isfinite().all():
        return NO_INTERVAL
    half = NormalDist().inv_cdf((1 + confidence) / 2) * float(values.std())
    low, high = estimate - half, estimate + half
    return (low, high) if low < high else NO_INTERVAL


@dataclass(frozen=True)
class Paired:
    """Comparison of two points on the same examples.

    Attributes:
        n: Number of examples.
        difference: Mean score of the first minus that of the second, weighted where examples have
            weights; NaN where one is undefined.
        interval: Confidence interval of the difference in the population; None where the scores do
            not determine one.
        why_no_interval: Why `interval` is None, as a sentence; empty if it is not None.
        changed: Number of examples on which the scores differ.
        gained: Number of examples on which the first is right and the second is wrong; None if
            scores are not all 0 or 1, or examples have weights.
        lost: Number of examples on which the second is right and the first is wrong; None as for
            `gained`.
        p_value: Two-sided p-value of McNemar's exact test: the probability of a split of the
            changed examples that is at least as uneven, if both are equally likely to gain. None as
            for `gained`.
    """

    n: int
    difference: float
    interval: tuple[float, float] | None
    why_no_interval: str
    changed: int
    gained: int | None
    lost: int | None
    p_value: float | None


def paired(
    one: Tensor,
    other: Tensor,
    confidence: float = 0.95,
    *,
    undefined: Undefined = "refuse",
    weights: Tensor | None = None,
) -> Paired:
    """Compare two points by their scores on the same examples.

    Scores that are all 0 or 1 get McNemar's test in its exact form (binomial, on the examples that
    differ) and Agresti and Min's interval for matched proportions (2005, "Simple improved
    confidence intervals for comparing matched proportions": Wald's after half an example is added
    to each of the four cells). Other scores get Student's t interval of the differences, and no
    test. Both cover the sampling of examples only, not the variance between training runs, and not
    the selection of a point among many.

    If examples are excluded, each mean is over the examples where that point's score is defined, as
    in an evaluation. If these examples differ between the points, the interval is that of the
    difference of two ratios by linearisation, which equals Student's if none is excluded. So is
    that of weighted means, for any scores; there is no test then.

    Args:
        one: Scores of the first point, one per example, shape [n], n ≥ 1.
        other: Scores of the second point on the same examples, in the same order.
        confidence: Confidence level, between 0 and 1.
        undefined: How to treat scores that are NaN; the task's `undefined`.
        weights: The weight of each example, shape [n]; None for equal weights.

    Raises:
        TaskError: The shapes differ, or are not [n] with n ≥ 1.
    """
    if one.shape != other.shape or one.dim() != 1 or len(one) == 0:
        raise TaskError(
            f"Scores of shapes {list(one.shape)} and {list(other.shape)} cannot be paired: both "
            "need one score per example of the same split."
        )
    scores = torch.stack([one, other]).double()
    difference = mean_of(scores[0], undefined, weights) - mean_of(scores[1], undefined, weights)
    if weights is not None:
        scores, weights = scores[:, weights > 0], weights[weights > 0].double()
    without = scores.isnan()
    either = ~without.all(dim=0)
    scores, weights = scores[:, either], None if weights is None else weights[either]
    n, changed = scores.shape[1], int((scores[0] != scores[1]).sum())
    if n == 0 or (undefined == "refuse" and without.any()):
        count = int(without.any(dim=0).sum())
        why = f"The score is undefined (NaN) for {count} of {len(one)} examples."
        return Paired(len(one), difference, None, why, changed, None, None, None)
    split = gained_and_lost(*scores) if weights is None else None
    if split is None:
        half, why = _half_width(scores, confidence, weights)
        interval = None if why else (difference - half, difference + half)
        return Paired(len(one), difference, interval, why, changed, None, None, None)
    test = scipy.stats.binomtest(split[0], changed) if changed else None
    p_value = 1.0 if test is None else float(test.pvalue)
    interval = _matched_proportions(n, *split, confidence)
    return Paired(len(one), difference, interval, "", changed, *split, p_value)


def gained_and_lost(one: Tensor, other: Tensor) -> tuple[int, int] | None:
    """Return how many examples only the first point gets right, and how many only the second.

    Returns None if scores are not all 0 or 1: other scores are neither right nor wrong.

    Args:
        one: Scores of the first point, one per example, shape [n].
        other: Scores of the second point on the same examples, in the same order.
    """
    if not all(bool(((scores == 0) | (scores == 1)).all()) for scores in (one, other)):
        return None
    return int((one > other).sum()), int((one < other).sum())


def _counted(values: Tensor, undefined: Undefined, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values that enter a weighted mean, and their weights, in float64."""
    counted = weights.to(values.device) > 0
    if undefined == "exclude":
        counted &= ~values.isnan()
    return values[counted].double(), weights.to(values.device)[counted].double()


def _weighted_interval(scores: Tensor, weights: Tensor, confidence: float) -> tuple[float, float]:
    """Return the interval of a weighted mean; all weights are above zero."""
    n, total = len(scores), float(weights.sum())
    if n == 0:
        return NO_INTERVAL
    mean = float((scores * weights).sum()) / total
    variance = float((weights * (scores - mean)).square().sum()) / total**2
    if bool(((scores == 0) | (scores == 1)).all()):
        if bool((scores == scores[0]).all()):
            return _wilson(float(scores[0]), total**2 / float(weights.square().sum()), confidence)
        return _wilson(mean, mean * (1 - mean) / variance, confidence)
    if n == 1:
        return NO_INTERVAL
    spread = (variance * n / (n - 1)) ** 0.5
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1)) * spread
    low, high = mean - half, mean + half
    return (low, high) if math.isfinite(half) and low < high else NO_INTERVAL


def _wilson(share: float, n: float, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval for a share of n examples."""
    # scipy's binomtest gives the same interval, but also runs the test, which takes a millisecond:
    # as long as a small network takes for the whole split.
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = share + z**2 / (2 * n)
    half = z * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5
    # Without this, rounding would move the bounds away from 0 and 1.
    low = 0.0 if share == 0 else (middle - half) / (1 + z**2 / n)
    high = 1.0 if share == 1 else (middle + half) / (1 + z**2 / n)
    return low, high


def _matched_proportions(n: int, gained: int, lost: int, confidence: float) -> tuple[float, float]:
    """Return Agresti and Min's interval for the difference of matched proportions."""
    # Half an example is added to each of the four cells: one is gained, one lost, two unchanged.
    n, plus, minus = n + 2, gained + 0.5, lost + 0.5
    mean = (plus - minus) / n
    variance = (plus + minus) / n - mean**2
    half = float(scipy.stats.norm.ppf((1 + confidence) / 2)) * (variance / n) ** 0.5
    return max(mean - half, -1.0), min(mean + half, 1.0)


def _half_width(
    scores: Tensor, confidence: float, weights: Tensor | None = None
) -> tuple[float, str]:
    """Return half the width of the interval of the difference, and why there is none, or "".

    Args:
        scores: Float64, shape [2, n]; NaN where undefined, but not for both points.
        confidence: Between 0 and 1.
        weights: Float64, above zero, shape [n]; None for equal weights.
    """
    n = scores.shape[1]
    counts = (~scores.isnan()).sum(dim=1, keepdim=True)
    if not counts.all():
        return 0.0, "The score of one point is undefined (NaN) for every example."
    if n == 1:
        return 0.0, "A single example does not determine an interval."
    if not bool(scores[~scores.isnan()].isfinite().all()):
        return 0.0, "A network failed on an example, so the difference is not finite."
    # The influence of each example on the two means. Its mean is 0.
    if weights is None:
        influence = ((scores - scores.nanmean(dim=1, keepdim=True)) / counts).nan_to_num(0.0)
    else:
        totals = (weights * ~scores.isnan()).sum(dim=1, keepdim=True)
        means = (weights * scores).nansum(dim=1, keepdim=True) / totals
        influence = (weights * (scores - means) / totals).nan_to_num(0.0)
    by_example = influence[0] - influence[1]
    error = float(by_example.square().sum() * n / (n - 1)) ** 0.5
    if error * n**0.5 <= _ROUNDING * float(scores.nan_to_num(0.0).abs().max()):
        return 0.0, "The difference is the same on every example, so its spread is unknown."
    return float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1)) * error, ""
