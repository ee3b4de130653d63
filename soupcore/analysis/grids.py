"""Means of a quantity over a grid of hyperparameters."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from natsort import natsorted

from soupcore.sweeps import Sweep
from soupcore.sweeps.tables import Scalar


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
