"""The barriers between all pairs of a sweep."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import numpy as np

from soupcore.connectivity.path import (
    DEFAULT_ALPHAS,
    Floats,
    LinearPath,
    grid,
    path_of,
    path_points,
)
from soupcore.evaluation import Evaluation, Evaluator, Progress, no_progress
from soupcore.mixtures import Coefficient, Mixture
from soupcore.sweeps import Sweep

Pair = tuple[str, str]


@dataclass(frozen=True)
class Barriers:
    """The paths between all pairs, as far as they are known.

    Attributes:
        names: The ingredients.
        paths: `{(a, b): path}` for the pairs known, in the order of the names.
        missing: How many points would have to be evaluated to know them all.
    """

    names: tuple[str, ...]
    paths: Mapping[Pair, LinearPath]
    missing: int = 0

    @property
    def loss(self) -> Floats:
        """Loss barriers [k, k], symmetric: 0 on the diagonal, NaN where a pair is not known."""
        return self._matrix({pair: path.barrier for pair, path in self.paths.items()})

    @property
    def error(self) -> Floats:
        """Error barriers [k, k], as `loss`."""
        return self._matrix({pair: path.error_barrier for pair, path in self.paths.items()})

    def _matrix(self, values: Mapping[Pair, float]) -> Floats:
        matrix = np.full((len(self.names), len(self.names)), np.nan)
        np.fill_diagonal(matrix, 0.0)
        for i, j in combinations(range(len(self.names)), 2):
            value = values.get((self.names[i], self.names[j]), np.nan)
            matrix[i, j] = matrix[j, i] = value
        return matrix


def pairs(names: Sequence[str]) -> Iterator[Pair]:
    """Yield each pair once, in the order of the names."""
    return combinations(names, 2)


def barriers(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    alphas: int | Sequence[Coefficient] = DEFAULT_ALPHAS,
    *,
    split: str | None = None,
    on_progress: Progress = no_progress,
) -> Barriers:
    """Evaluate the straight lines between all pairs of ingredients.

    Args:
        sweep: Where the ingredients are from.
        evaluator: Computes what the store does not have; k(k−1)/2 · (alphas − 2) + k evaluations
            at most.
        names: Which ingredients; all unless given.
        alphas: How many α, evenly from 0 to 1, or which.
        split: Which split; the one with the role `select` unless given.
        on_progress: Called with examples done and in all; raise in it to stop.
    """
    chosen = sweep.names(names)
    steps = grid(alphas)
    points = _points(sweep, chosen, steps)
    found = evaluator.evaluate_all(
        points, split or evaluator.task.select, keep_outputs=False, on_progress=on_progress
    )
    return Barriers(tuple(chosen), _paths(chosen, steps, found))


def stored_barriers(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    alphas: int | Sequence[Coefficient] = DEFAULT_ALPHAS,
    *,
    split: str | None = None,
) -> Barriers:
    """Return the barriers of the pairs whose points the store has all of. Computes nothing."""
    chosen = sweep.names(names)
    steps = grid(alphas)
    points = _points(sweep, chosen, steps)
    known = evaluator.stored(points, split or evaluator.task.select)
    unknown = {point for point, found in zip(points, known, strict=True) if found is None}
    return Barriers(tuple(chosen), _paths(chosen, steps, known), len(unknown))


def _points(sweep: Sweep, names: Sequence[str], steps: Sequence[Fraction]) -> list[Mixture]:
    return [point for a, b in pairs(names) for point in path_points(sweep[a], sweep[b], steps)]


def _paths(
    names: Sequence[str], steps: Sequence[Fraction], evaluations: Sequence[Evaluation | None]
) -> dict[Pair, LinearPath]:
    """Put the evaluations of `_points` together to paths, the complete ones."""
    paths = {}
    for index, pair in enumerate(pairs(names)):
        path = evaluations[index * len(steps) : (index + 1) * len(steps)]
        known = [evaluation for evaluation in path if evaluation is not None]
        if len(known) == len(steps):
            paths[pair] = path_of(steps, known)
    return paths
