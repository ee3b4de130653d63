"""Hyperparameters and scores: means over a grid of two, and the marginal importance of each.

The marginal importance of a hyperparameter is the adjusted share of the variance of the score's
ranks: R² = 1 - (1 - r²)(n - 1) / (n - p - 1). Ranks make it robust against diverged runs. For
numbers, r is Spearman's rank correlation and p = 1. For text, r² is the correlation ratio η² of the
ranks, and p is the number of values minus one; then R² is the effect size ε² of the Kruskal-Wallis
test (Kelley 1935; Tomczak and Tomczak 2014). The adjustment makes it 0 on average for a
hyperparameter without any effect. It ignores interactions, and it is low if the optimum is in the
middle of a range.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy  # its submodules load when they are first used
from natsort import natsorted

from soupcore.sweeps import Sweep
from soupcore.sweeps.tables import Scalar

_FEWEST = 4  # runs; the adjusted share of fewer is meaningless


@dataclass(frozen=True)
class Grid:
    """The mean of a quantity for each combination of two hyperparameters.

    Attributes:
        row_name: Hyperparameter of the rows.
        column_name: Hyperparameter of the columns.
        rows: Values of the rows, ascending.
        columns: Values of the columns, ascending.
        means: Shape [rows, columns]; NaN for a combination that does not occur.
        counts: Number of values averaged, shape [rows, columns].
    """

    row_name: str
    column_name: str
    rows: tuple[Scalar, ...]
    columns: tuple[Scalar, ...]
    means: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]


def ingredient_grid(sweep: Sweep, values: Mapping[str, float], row: str, column: str) -> Grid:
    """Average a quantity of ingredients over two of their hyperparameters.

    Ingredients that lack one of the hyperparameters, or whose value is NaN, are ignored.

    Args:
        sweep: The sweep.
        values: `{ingredient: value}`.
        row: Hyperparameter of the rows.
        column: Hyperparameter of the columns.
    """
    cells = []
    for name, value in values.items():
        hyperparameters = sweep[name].hyperparameters
        cells.append((hyperparameters.get(row), hyperparameters.get(column), value))
    return _grid(row, column, cells)


def pair_grid(sweep: Sweep, values: Mapping[tuple[str, str], float], hyperparameter: str) -> Grid:
    """Average a quantity of pairs over the values of a hyperparameter in both ingredients.

    Appendix F.1 of Model Soups does this for the gain of the midpoint over the better endpoint.
    The grid is symmetric. A pair counts in both directions, or once if its values are equal.

    Args:
        sweep: The sweep.
        values: `{(a, b): value}`.
        hyperparameter: Name of the hyperparameter.
    """
    names = {name for pair in values for name in pair}
    of_name = {name: sweep[name].hyperparameters.get(hyperparameter) for name in names}
    cells = []
    for (a, b), value in values.items():
        one, other = of_name[a], of_name[b]
        cells.append((one, other, value))
        if one != other:
            cells.append((other, one, value))
    return _grid(hyperparameter, f"{hyperparameter} of the other", cells)


def varying(sweep: Sweep) -> list[str]:
    """Return the hyperparameters that vary between ingredients, in the order of the table."""
    seen: dict[str, set[Scalar]] = defaultdict(set)
    for ingredient in sweep.ingredients.values():
        for key, value in ingredient.hyperparameters.items():
            seen[key].add(value)
    return [key for key, values in seen.items() if len(values) > 1]


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
        if (importance := _importance(pairs)) is not None:
            found[name] = importance
    return dict(sorted(found.items(), key=lambda item: -item[1].share))


def _grid(row: str, column: str, values: Iterable[tuple[Scalar, Scalar, float]]) -> Grid:
    cells: dict[tuple[Scalar, Scalar], list[float]] = defaultdict(list)
    for one, other, value in values:
        if one is not None and other is not None and not math.isnan(value):
            cells[one, other].append(value)
    rows = _ascending({one for one, _ in cells})
    columns = _ascending({other for _, other in cells})
    lists = [[cells.get((one, other), []) for other in columns] for one in rows]
    means = [[float(np.mean(cell)) if cell else np.nan for cell in line] for line in lists]
    counts = [[len(cell) for cell in line] for line in lists]
    shape = (len(rows), len(columns))
    return Grid(
        row,
        column,
        rows,
        columns,
        np.array(means, dtype=np.float64).reshape(shape),
        np.array(counts, dtype=np.int64).reshape(shape),
    )


def _ascending(values: Iterable[Scalar]) -> tuple[Scalar, ...]:
    listed = list(values)
    if all(isinstance(value, int | float) for value in listed):
        return tuple(sorted(listed))  # type: ignore[type-var]
    return tuple(natsorted(listed, key=str))


def _importance(pairs: Sequence[tuple[Any, float]]) -> Importance | None:
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
