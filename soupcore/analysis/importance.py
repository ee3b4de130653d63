"""How much of a score each hyperparameter explains by itself.

The measure is the adjusted share of the variance of the score's ranks: R² = 1 - (1 - r²)(n - 1) /
(n - p - 1). Ranks make it robust against diverged runs. For numbers, r is Spearman's rank
correlation and p = 1. For text, r² is the correlation ratio η² of the ranks, and p is the number of
values minus one; then R² is the effect size ε² of the Kruskal-Wallis test (Kelley 1935; Tomczak and
Tomczak 2014). The adjustment makes it 0 on average for a hyperparameter without any effect.

The measure is marginal. It does not see interactions, nor an optimum in the middle of a range.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its submodules load when they are first used

_FEWEST = 4  # runs; the adjusted share of fewer says nothing


@dataclass(frozen=True)
class Importance:
    """The marginal importance of a hyperparameter for a score.

    Attributes:
        share: Adjusted share of the variance of the ranks, at most 1; about 0 without an effect,
            also below 0.
        rho: Spearman's rank correlation; None for text.
        n: Number of runs with the hyperparameter and a finite score.
    """

    share: float
    rho: float | None
    n: int


def marginal_importance(
    columns: Mapping[str, Sequence[Any]], scores: Sequence[float | None]
) -> dict[str, Importance]:
    """Return the marginal importance of hyperparameters, the largest first.

    Hyperparameters without two different values, or with a value of its own for each run if they
    are text, are left out, and so are those with fewer than four runs.

    Args:
        columns: `{hyperparameter: values}`, one value per run; None or NaN if a run has none.
            Values that are not all numbers count as text.
        scores: The score of each run; None or not finite if it has none.
    """
    found = {}
    for name, values in columns.items():
        pairs = [
            (value, score)
            for value, score in zip(values, scores, strict=True)
            if not _is_missing(value) and score is not None and math.isfinite(score)
        ]
        if (importance := _of(pairs)) is not None:
            found[name] = importance
    return dict(sorted(found.items(), key=lambda item: -item[1].share))


def _of(pairs: Sequence[tuple[Any, float]]) -> Importance | None:
    n = len(pairs)
    if n < _FEWEST or len({score for _, score in pairs}) < 2:
        return None
    ranks = scipy.stats.rankdata([score for _, score in pairs])
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in pairs):
        numbers = np.array([value for value, _ in pairs], dtype=float)
        if len(np.unique(numbers)) < 2:
            return None
        rho = float(np.corrcoef(scipy.stats.rankdata(numbers), ranks)[0, 1])
        return Importance(_adjusted(rho**2, n, 1), rho, n)
    groups: dict[str, list[float]] = {}
    for (value, _), rank in zip(pairs, ranks.tolist(), strict=True):
        groups.setdefault(str(value), []).append(rank)
    if not 1 < len(groups) < n - 1:
        return None
    centre = float(ranks.mean())
    between = sum(len(group) * (np.mean(group) - centre) ** 2 for group in groups.values())
    eta = float(between / ((ranks - centre) ** 2).sum())
    return Importance(_adjusted(eta, n, len(groups) - 1), None, n)


def _adjusted(share: float, n: int, parameters: int) -> float:
    return 1 - (1 - share) * (n - 1) / (n - parameters - 1)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
