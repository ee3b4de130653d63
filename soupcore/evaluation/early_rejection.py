"""Early rejection: a candidate is rejected once it can no longer reach an incumbent's score.

If scores have a maximum, an upper bound of a candidate's sum is its sum so far plus this maximum
for each remaining example. Once the bound is too low, the remaining examples cannot change the
decision, so it always agrees with that of the full pass. The hardest examples come first, so that
rejection is early: a worse candidate is rejected after about as many examples as the incumbent gets
wrong.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.tasks.examples import Rows

# The last bits of sums of scores that are not integers depend on their order. A candidate within
# this relative distance of the incumbent's sum is evaluated on all examples.
_ROUNDING = 1e-9

_SMALLEST_STEP = 32  # examples between two checks


@dataclass(frozen=True)
class UpperBound:
    """An upper bound of the score of a rejected point, which is below the incumbent's score.

    Attributes:
        mixture_key: Key of the point.
        split: Name of the split.
        n: Number of examples in the split.
        score: The upper bound of its mean score, weighted if examples have weights.
        rows: Indices of the evaluated examples, int64, shape [m].
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
        """Number of evaluated examples."""
        return len(self.rows)


class EarlyRejection:
    """Decides whether a candidate can still reach the score of an incumbent.

    Args:
        incumbent: The incumbent's score of each example, shape [n].
        strictly: Whether the candidate has to be better; if not, an equal score suffices.
        lowest, highest: Range of the score of an example.
        difficulty: A number for each example, shape [n]. Examples with larger ones come first.
        weights: The weight of each example, shape [n]; None for equal weights. Difficulty is
            multiplied by it.

    Attributes:
        order: Indices of the examples in the order of evaluation, int64, shape [n].
    """

    def __init__(
        self,
        incumbent: Tensor,
        *,
        strictly: bool,
        lowest: float,
        highest: float,
        difficulty: Tensor,
        weights: Tensor | None = None,
    ) -> None:
        if weights is not None:
            weights = weights * (len(weights) / weights.sum())
            difficulty = difficulty * weights
        self.order = difficulty.argsort(descending=True, stable=True)
        self._n = len(incumbent)
        self._weights = weights
        self._total = float(self._n if weights is None else weights.sum())
        self._needed = self._sum(incumbent, slice(None))
        self._is_whole = weights is None and _is_whole(incumbent)
        self._strictly = strictly
        self._lowest, self._highest = lowest, highest
        # Even a candidate with the lowest scores is rejected only after this many examples.
        missed = (highest * self._total - self._needed) / (highest - lowest)
        self._first = self._n
        if math.isfinite(missed):
            self._first = math.floor(missed) + 1
            if weights is not None:
                self._first = 1 + int((weights[self.order].cumsum(0) <= missed).sum())
        self._step = max(_SMALLEST_STEP, self._first // 4)

    def size(self, seen: int, batch: int) -> int:
        """Return the number of examples for the next batch, at most `batch`, after `seen`."""
        until_check = self._first - seen if seen < self._first else self._step
        rest = self._n - seen
        # A small remainder at the end would need a separate batch.
        return min(batch, rest if rest < 1.5 * until_check else until_check)

    def sum_bound(self, scores: Tensor, rows: Tensor | None = None) -> float:
        """Return the upper bound of a candidate's sum of scores.

        Args:
            scores: The scores so far, shape [m].
            rows: Their examples; by default, the first ones in `order`.
        """
        if self._weights is None:
            return self._sum(scores, slice(None)) + self._highest * (self._n - len(scores))
        rows = self.order[: len(scores)] if rows is None else rows
        rest = self._total - float(self._weights[rows].sum())
        # Rounding of the difference must not make the bound of a whole pass infinite.
        return self._sum(scores, rows) + (self._highest * rest if len(scores) < self._n else 0.0)

    def _sum(self, scores: Tensor, rows: Rows) -> float:
        """Return the weighted sum of the scores of some examples, ignoring weights of zero."""
        if self._weights is None:
            return float(scores.double().sum())
        weights = self._weights[rows]
        return float((scores.double() * weights)[weights > 0].sum())

    def bound(self, mixture_key: str, split: str, rows: Tensor, scores: Tensor) -> UpperBound:
        """Return the upper bound of a candidate's score, given its scores on some rows."""
        score = self.sum_bound(scores, rows) / self._total
        return UpperBound(mixture_key, split, self._n, score, rows, scores)

    def is_rejected(self, scores: Tensor, rows: Tensor | None = None) -> bool:
        """Return whether the candidate is rejected for any scores of the remaining examples.

        Args:
            scores: The candidate's scores so far, shape [m].
            rows: As for `sum_bound`.

        Raises:
            TaskError: A score is out of range.
        """
        # A score of −∞ means that the network failed, and is allowed for any range.
        outside = scores[(scores.isfinite() & (scores < self._lowest)) | (scores > self._highest)]
        if len(outside):
            raise TaskError(
                f"The task's `score_range` is {self._lowest} to {self._highest}, but an example "
                f"has the score {float(outside[0]):.6g}. Correct the range."
            )
        bound = self.sum_bound(scores, rows)
        if not (math.isfinite(bound) and math.isfinite(self._needed)):
            return False  # a point whose network failed is evaluated on all examples
        if not (self._is_whole and _is_whole(scores)):
            bound += _ROUNDING * max(1.0, abs(bound), abs(self._needed))
        return bound <= self._needed if self._strictly else bound < self._needed


def _is_whole(scores: Tensor) -> bool:
    return bool(torch.equal(scores, scores.round()))
