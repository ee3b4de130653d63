"""A candidate is rejected as soon as it can no longer reach the score of an incumbent.

Where scores have a largest value, the upper bound of a candidate's sum is its sum so far plus that
value for each example it has not seen. Once the bound is too low, the other examples cannot change
the decision, so it is always the decision of the full pass. The hardest examples come first, which
makes it early: a candidate that scores worse is rejected after about as many examples as the
incumbent gets wrong.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from soupcore.errors import TaskError

# Sums of scores that are no whole numbers depend on their order in the last bits. A candidate
# within this share of the incumbent's sum is seen to the end.
_ROUNDING = 1e-9

_SMALLEST_STEP = 32  # examples between two looks


@dataclass(frozen=True)
class UpperBound:
    """An upper bound of the score of a rejected point, which is below the incumbent's score.

    Attributes:
        mixture_key: Which point.
        split: Name of the split.
        n: Number of examples in the split.
        score: The upper bound of its mean score.
        rows: Which examples it has seen, int64, shape [m].
        scores: Their scores, float32, shape [m].
    """

    mixture_key: str
    split: str
    n: int
    score: float
    rows: Tensor
    scores: Tensor

    @property
    def seen(self) -> int:
        """How many examples it has seen."""
        return len(self.rows)


class EarlyRejection:
    """Decides whether a candidate can still reach the score of an incumbent.

    Args:
        incumbent: The incumbent's score of each example, shape [n].
        strictly: Whether the candidate has to be better, or may be as good.
        lowest, highest: Between what the score of an example lies.
        difficulty: A number for each example, shape [n]; those with larger ones are seen first.

    Attributes:
        order: The examples in the order to see them, int64, shape [n].
    """

    def __init__(
        self,
        incumbent: Tensor,
        *,
        strictly: bool,
        lowest: float,
        highest: float,
        difficulty: Tensor,
    ) -> None:
        self.order = difficulty.argsort(descending=True, stable=True)
        self._n = len(incumbent)
        self._needed = float(incumbent.double().sum())
        self._is_whole = _is_whole(incumbent)
        self._strictly = strictly
        self._lowest, self._highest = lowest, highest
        # A candidate that gets none right is lost after this many: no use in looking before.
        missed = (highest * self._n - self._needed) / (highest - lowest)
        self._first = math.floor(missed) + 1 if math.isfinite(missed) else self._n
        self._step = max(_SMALLEST_STEP, self._first // 4)

    def size(self, seen: int, batch: int) -> int:
        """Return how many examples to see next, of a batch at most, having seen some."""
        until_look = self._first - seen if seen < self._first else self._step
        rest = self._n - seen
        # A few left over at the end would cost a batch of their own.
        return min(batch, rest if rest < 1.5 * until_look else until_look)

    def reach(self, scores: Tensor) -> float:
        """Return the sum of scores that a candidate may reach with these so far, shape [m]."""
        return float(scores.double().sum()) + self._highest * (self._n - len(scores))

    def bound(self, mixture_key: str, split: str, rows: Tensor, scores: Tensor) -> UpperBound:
        """Return what is known of a candidate that has these scores of these rows."""
        n = self._n
        return UpperBound(mixture_key, split, n, self.reach(scores) / n, rows, scores)

    def is_rejected(self, scores: Tensor) -> bool:
        """Return whether no scores of the other examples could win.

        Args:
            scores: The candidate's scores so far, shape [m].

        Raises:
            TaskError: A score lies outside the range.
        """
        # A score of −∞ says that the network failed, whatever the range.
        if bool(((scores.isfinite() & (scores < self._lowest)) | (scores > self._highest)).any()):
            raise TaskError(
                f"The task's `score_range` says that a score lies between {self._lowest} and "
                f"{self._highest}, but an example scored outside of it. Correct the range."
            )
        reach = self.reach(scores)
        if not (math.isfinite(reach) and math.isfinite(self._needed)):
            return False  # a broken point is seen to the end, and marked by what it scores
        if not (self._is_whole and _is_whole(scores)):
            reach += _ROUNDING * max(1.0, abs(reach), abs(self._needed))
        return reach <= self._needed if self._strictly else reach < self._needed


def _is_whole(scores: Tensor) -> bool:
    return bool(torch.equal(scores, scores.round()))
