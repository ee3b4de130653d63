"""The mean over examples, its confidence interval, and paired tests.

Two networks that are tested on the same examples agree on most of them. The comparison rests on the
examples on which they differ; two separate intervals hide that.
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


def defined(values: torch.Tensor, undefined: Undefined) -> torch.Tensor:
    """Return the numbers that a mean is over: all of them, or those that are not NaN.

    Args:
        values: One number an example, shape [n].
        undefined: What to do about examples without one (see `Task.undefined`).
    """
    return values[~values.isnan()] if undefined == "exclude" else values


def mean_of(values: torch.Tensor, undefined: Undefined) -> float:
    """Return the mean, summed in float64; NaN where a number is undefined or none is left.

    Args:
        values: One number an example, shape [n].
        undefined: As for `defined`.
    """
    return float(defined(values, undefined).double().mean())


def score_interval(scores: torch.Tensor, confidence: float = 0.95) -> tuple[float, float]:
    """Return a confidence interval for the mean score of the population.

    Scores that are all 0 or 1 get Wilson's interval (Wilson 1927, without continuity correction);
    others Student's t interval. It covers the choice of examples only, not that of the training
    run, and not the choice of this point among many.

    Args:
        scores: One score an example, shape [n].
        confidence: Between 0 and 1.

    Returns:
        Both ends; NaN where there is no interval: for scores that are not 0 or 1, there is none for
        a single one or where all are equal, which says nothing of the population's spread, nor
        where one is not finite.
    """
    n = len(scores)
    if n == 0:
        return NO_INTERVAL
    if bool(((scores == 0) | (scores == 1)).all()):
        return _wilson(int(scores.sum(dtype=torch.float64)), n, confidence)
    wide = scores.double()
    mean = float(wide.mean())
    if n == 1:
        return NO_INTERVAL
    spread = float(wide.std()) / n**0.5
    half = float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1)) * spread
    low, high = mean - half, mean + half
    return (low, high) if math.isfinite(half) and low < high else NO_INTERVAL


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


_RESAMPLES = 200


def resamples(n: int, count: int = _RESAMPLES, seed: int = 0) -> Iterator[Tensor]:
    """Yield bootstrap resamples of n examples: int64, shape [n].

    They depend on n and the seed only, so that points on a split see the same ones.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randint(n, (n,), generator=generator)


def bootstrap_interval(
    estimate: float, replicates: Tensor, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the normal interval with the bootstrap's standard error; NaN where there is none.

    Efron and Tibshirani 1993, chapters 6 and 13: 200 resamples suffice for a standard error, where
    percentiles take a thousand. Resamples on which the metric is undefined, as without an example
    of a class, are left out.

    Args:
        estimate: The metric on all examples.
        replicates: The metric on each resample, shape [count].
        confidence: Between 0 and 1.
    """
    found = replicates.double()
    found = found[~found.isnan()]
    if len(found) < max(2, len(replicates) / 2) or not found.isfinite().all():
        return NO_INTERVAL
    half = NormalDist().inv_cdf((1 + confidence) / 2) * float(found.std())
    low, high = estimate - half, estimate + half
    return (low, high) if low < high else NO_INTERVAL


@dataclass(frozen=True)
class Paired:
    """How two points compare on the same examples.

    Attributes:
        n: Number of examples.
        difference: Mean score of the first less that of the second; NaN where one is undefined.
        interval: 95 % confidence interval of the difference in the population; None where the
            scores do not say how sure it is.
        why_no_interval: Why there is none, as a sentence; empty where there is one.
        changed: Examples on which the two differ.
        gained: Examples on which the first is right and the second is wrong; None where scores are
            not all 0 or 1.
        lost: The other way round.
        p_value: Two-sided, of McNemar's exact test: how often chance alone would split the examples
            that differ at least as unevenly. None where scores are not all 0 or 1.
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
    one: Tensor, other: Tensor, confidence: float = 0.95, *, undefined: Undefined = "refuse"
) -> Paired:
    """Compare two points by their scores on the same examples.

    Scores that are all 0 or 1 get McNemar's test in its exact form (binomial, on the examples that
    differ) and Agresti and Min's interval for matched proportions (2005, "Simple improved
    confidence intervals for comparing matched proportions": Wald's after half an example is added
    to each of the four cells). Other scores get Student's t interval of the differences, and no
    test. Both cover the choice of examples only: not that of the training run, and not the choice
    of a point among many.

    Where examples are excluded, each mean is over the examples where that point's score is defined,
    as in an evaluation. If these are not the same for both, the interval is that of the difference
    of two ratios by linearisation, which is Student's where none is excluded.

    Args:
        one: A score an example, shape [n], n ≥ 1.
        other: The same of the other point, in the same order.
        confidence: Between 0 and 1.
        undefined: What to do about scores that are NaN: the task's `undefined`.

    Raises:
        TaskError: They are not scores of as many examples.
    """
    if one.shape != other.shape or one.dim() != 1 or len(one) == 0:
        raise TaskError(
            f"Scores of shapes {list(one.shape)} and {list(other.shape)} are not those of the same "
            "examples."
        )
    scores = torch.stack([one, other]).double()
    difference = mean_of(scores[0], undefined) - mean_of(scores[1], undefined)
    without = scores.isnan()
    scores = scores[:, ~without.all(dim=0)]
    n, changed = scores.shape[1], int((scores[0] != scores[1]).sum())
    if n == 0 or (undefined == "refuse" and without.any()):
        count = int(without.any(dim=0).sum())
        why = f"The score is undefined (NaN) for {count} of {len(one)} examples."
        return Paired(len(one), difference, None, why, changed, None, None, None)
    split = gained_and_lost(*scores)
    if split is None:
        half, why = _half_width(scores, confidence)
        interval = None if why else (difference - half, difference + half)
        return Paired(len(one), difference, interval, why, changed, None, None, None)
    test = scipy.stats.binomtest(split[0], changed) if changed else None
    p_value = 1.0 if test is None else float(test.pvalue)
    interval = _matched_proportions(n, *split, confidence)
    return Paired(len(one), difference, interval, "", changed, *split, p_value)


def gained_and_lost(one: Tensor, other: Tensor) -> tuple[int, int] | None:
    """Return how many examples one point gets right and the other does not, and the reverse.

    None where scores are not all 0 or 1: those of other kinds are neither right nor wrong.

    Args:
        one: A score an example, shape [n].
        other: The same of the other point, in the same order.
    """
    if not all(bool(((scores == 0) | (scores == 1)).all()) for scores in (one, other)):
        return None
    return int((one > other).sum()), int((one < other).sum())


# Of the largest score: differences of float32 scores that vary by less are equal.
_ROUNDING = 1e-7


def _matched_proportions(n: int, gained: int, lost: int, confidence: float) -> tuple[float, float]:
    # Half an example in each cell: of the four, one gains, one loses and two stay as they are.
    n, plus, minus = n + 2, gained + 0.5, lost + 0.5
    mean = (plus - minus) / n
    variance = (plus + minus) / n - mean**2
    half = float(scipy.stats.norm.ppf((1 + confidence) / 2)) * (variance / n) ** 0.5
    return max(mean - half, -1.0), min(mean + half, 1.0)


def _half_width(scores: Tensor, confidence: float) -> tuple[float, str]:
    """Return half the width of the interval of the difference, or why there is none.

    Args:
        scores: Float64, shape [2, n]; NaN where undefined, but not for both points.
        confidence: Between 0 and 1.
    """
    n = scores.shape[1]
    counts = (~scores.isnan()).sum(dim=1, keepdim=True)
    if not counts.all():
        return 0.0, "The score of one point is undefined (NaN) for every example."
    if n == 1:
        return 0.0, "One example says nothing about others."
    if not bool(scores[~scores.isnan()].isfinite().all()):
        return 0.0, "A network failed on an example, so the difference is not finite."
    # How much each example moves the difference of the two means; zero on average.
    moves = ((scores - scores.nanmean(dim=1, keepdim=True)) / counts).nan_to_num(0.0)
    by_example = moves[0] - moves[1]
    error = float(by_example.square().sum() * n / (n - 1)) ** 0.5
    if error * n**0.5 <= _ROUNDING * float(scores.nan_to_num(0.0).abs().max()):
        return 0.0, "The difference is the same on every example, so its spread is unknown."
    return float(scipy.stats.t.ppf((1 + confidence) / 2, n - 1)) * error, ""
