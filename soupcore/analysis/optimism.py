"""What choosing promises, and what it gives on examples that it did not choose by.

The best of many on `select` is best partly by luck, so its score there is too high: the more
candidates and the fewer examples, the more so.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soupcore.errors import TaskError


@dataclass(frozen=True)
class CrossFit:
    """Choosing on one half of the examples and scoring on the other, many times.

    Attributes:
        promised: Mean score of the chosen on the half it was chosen by.
        delivered: Mean score of the chosen on the other half.
        chosen: How often each candidate was chosen, as shares that sum to 1.
    """

    promised: float
    delivered: float
    chosen: tuple[float, ...]

    @property
    def optimism(self) -> float:
        """By how much choosing on a half of the examples flatters."""
        return self.promised - self.delivered


def cross_fit(scores: Sequence[Tensor], *, repeats: int = 100, seed: int = 0) -> CrossFit:
    """Estimate what choosing the best of some points gives on examples that did not choose it.

    The examples are split at random into halves (of an odd number, one is left out); the candidate
    with the best mean on one half, the first where several are equal, is scored on the other; then
    the halves change places. Choosing on half of the examples is less sure than on all of them, so
    the optimism of the choice that was made on all is somewhat smaller than this one. No forward
    pass is needed: the scores of each example were kept.

    Args:
        scores: For each candidate a score an example on `select`, shape [n], n ≥ 2.
        repeats: How many times to halve.
        seed: Of the halving.

    Raises:
        TaskError: There are no candidates, or their scores are not of the same examples.
    """
    if not scores or len({len(each) for each in scores}) > 1 or len(scores[0]) < 2:
        raise TaskError("Cross-fitting needs scores of the same examples, two at least.")
    table = torch.stack([each.double() for each in scores])  # [candidates, n]
    n = table.shape[1] // 2
    generator = torch.Generator().manual_seed(seed)
    promised = delivered = 0.0
    chosen = torch.zeros(len(table))
    for _ in range(repeats):
        order = torch.randperm(table.shape[1], generator=generator)
        halves = [table[:, order[:n]].mean(1), table[:, order[n : 2 * n]].mean(1)]
        for here, there in (halves, halves[::-1]):
            best = int(here.argmax())
            promised += float(here[best])
            delivered += float(there[best])
            chosen[best] += 1
    count = 2 * repeats
    return CrossFit(promised / count, delivered / count, tuple((chosen / count).tolist()))
