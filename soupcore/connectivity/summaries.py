"""Stored summaries of lines, from which a matrix of barriers is read.

Bracketing the barriers of thousands of lines takes seconds. `evaluate_lines` therefore stores a
summary of each line, and `known_pairs` reads those of all pairs with one query.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields

import numpy as np
import numpy.typing as npt

from soupcore.connectivity.adaptive import ADAPTIVE, Adaptive
from soupcore.connectivity.path import Alphas, LinearPath, Pair, grid
from soupcore.evaluation import Evaluations
from soupcore.inner_products import Floats
from soupcore.sweeps import Sweep

SCREEN = 200  #: examples of a quick screen of pairs


@dataclass(frozen=True)
class LineSummary:
    """The barriers on a line; losses, scores and units are those of `LinearPath`.

    Attributes:
        n: Number of examples.
        points: Number of evaluated α values.
        barrier, barrier_bound: The loss barrier, and its estimated upper bound between the points.
        barrier_alpha: The α with the largest rise of the loss above the chord.
        error_barrier, error_bound: The error barrier, and its estimated upper bound.
        over_mean, over_mean_bound: The error barrier above the mean of the endpoints, and its
            estimated upper bound.
        midpoint_score: Score at α = ½. Like the next two, it is NaN if α = ½ was not evaluated.
        midpoint_advantage: This score minus the mean score of the endpoints.
        midpoint_gain: This score minus the score of the better endpoint.
    """

    n: float
    points: float
    barrier: float
    barrier_bound: float
    barrier_alpha: float
    error_barrier: float
    error_bound: float
    over_mean: float
    over_mean_bound: float
    midpoint_score: float
    midpoint_advantage: float
    midpoint_gain: float

    @classmethod
    def of(cls, path: LinearPath) -> "LineSummary":
        """Summarise a path."""
        middle = path.scores[path.alphas == 0.5]
        return cls(
            path.n,
            len(path.alphas),
            *path.barrier_bracket,
            path.barrier_alpha,
            *path.error_barrier_bracket,
            *path.error_barrier_over_mean_bracket,
            float(middle[0]) if len(middle) else math.nan,
            path.midpoint_advantage,
            path.midpoint_gain,
        )

    def to_bytes(self) -> bytes:
        """Return the fields as little-endian float64, the form in the store."""
        return np.array(astuple(self), dtype="<f8").tobytes()


_COLUMNS = {field.name: index for index, field in enumerate(fields(LineSummary))}


@dataclass(frozen=True)
class PairSummaries:
    """The stored summaries of the lines between pairs of ingredients.

    Attributes:
        names: Names of the k ingredients.
        pairs: The m pairs with a summary as indices of `names`, sorted, the lower index first;
            int64, shape [m, 2].
        values: Their summaries, shape [m, number of fields].
        settled: Whether no more α values are requested, shape [m].
        screened: Whether a summary is that of a part of the split, shape [m].
    """

    names: tuple[str, ...]
    pairs: npt.NDArray[np.int64]
    values: Floats
    settled: npt.NDArray[np.bool_]
    screened: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pairs)

    def column(self, field: str) -> Floats:
        """Return a field of `LineSummary` for each pair, shape [m]."""
        column: Floats = self.values[:, _COLUMNS[field]]
        return column

    def matrix(self, field: str) -> Floats:
        """Return a field of `LineSummary`, shape [k, k]: 0 on the diagonal, NaN without summary."""
        return self._spread(self.column(field), 0.0, np.nan)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Whether a pair has a summary, shape [k, k]; true on the diagonal."""
        return self._spread(np.ones(len(self)), 1.0, 0.0).astype(bool)

    @property
    def preliminary(self) -> list[Pair]:
        """The pairs whose barrier may still change."""
        return [
            (self.names[a], self.names[b])
            for a, b in self.pairs[~self.settled | self.screened].tolist()
        ]

    def doubtful(self, barrier: str, bound: str, threshold: float) -> list[Pair]:
        """Return the preliminary pairs that may lie on either side of a threshold.

        These are pairs whose barrier is at most twice and whose bound is at least half the
        threshold. On 200 examples, a barrier is rarely off by more.

        Args:
            barrier: Field of `LineSummary` with the barrier.
            bound: Field with its upper bound.
            threshold: Largest barrier between connected ingredients.
        """
        low, high = self.column(barrier), self.column(bound)
        near = (low <= 2 * threshold) & (high >= threshold / 2)
        waiting = near & (~self.settled | self.screened)
        return [(self.names[a], self.names[b]) for a, b in self.pairs[waiting].tolist()]

    @property
    def paths(self) -> dict[Pair, LineSummary]:
        """The summaries by the names of the pairs."""
        return {
            (self.names[a], self.names[b]): LineSummary(*values)
            for (a, b), values in zip(self.pairs.tolist(), self.values.tolist(), strict=True)
        }

    def by_pair(self, field: str) -> dict[Pair, float]:
        """Return a field of `LineSummary` by the names of the pairs."""
        ends = ([self.names[index] for index in column] for column in self.pairs.T.tolist())
        return dict(zip(zip(*ends, strict=True), self.column(field).tolist(), strict=True))

    def is_settled(self, pair: Pair) -> bool:
        """Return whether the barrier of a pair on the whole split is settled."""
        a, b = sorted(self.names.index(name) for name in pair)
        is_pair = (self.pairs == (a, b)).all(axis=1)
        return bool((is_pair & self.settled & ~self.screened).any())

    def or_screened(self, screen: "PairSummaries") -> "PairSummaries":
        """Return the better summary of each pair, on the whole split or on a part of it.

        The summary on the whole split is preferred, unless only the one on the part is settled.

        Args:
            screen: The summaries of the same ingredients on a part of the split.
        """
        k = len(self.names)
        ours, theirs = (summaries.pairs @ np.array([k, 1]) for summaries in (self, screen))
        settled_there = set(theirs[screen.settled].tolist())
        kept = self.settled | ~np.isin(ours, [*settled_there])
        other = ~np.isin(theirs, ours[kept])
        order = np.concatenate([ours[kept], theirs[other]]).argsort()
        return PairSummaries(
            self.names,
            np.concatenate([self.pairs[kept], screen.pairs[other]])[order],
            np.concatenate([self.values[kept], screen.values[other]])[order],
            np.concatenate([self.settled[kept], screen.settled[other]])[order],
            np.concatenate([self.screened[kept], np.ones(other.sum(), dtype=bool)])[order],
        )

    def _spread(self, values: Floats, diagonal: float, elsewhere: float) -> Floats:
        matrix = np.full((len(self.names), len(self.names)), elsewhere)
        np.fill_diagonal(matrix, diagonal)
        a, b = self.pairs.T
        matrix[a, b] = matrix[b, a] = values
        return matrix


def lines_key(evaluations: Evaluations, alphas: Alphas, split: str) -> str:
    """Return the key of summaries in the store: a digest of task, split and α values, 64 digits."""
    task = evaluations.task
    rule = repr(alphas) if isinstance(alphas, Adaptive) else " ".join(map(str, grid(alphas)))
    text = "\n".join([task.results_key, task.split(split).digest, rule])
    return hashlib.sha256(text.encode()).hexdigest()


def known_pairs(
    sweep: Sweep,
    evaluations: Evaluations,
    names: Iterable[str] | None = None,
    alphas: Alphas = ADAPTIVE,
    *,
    split: str | None = None,
) -> PairSummaries:
    """Return the stored summaries of the lines between all pairs.

    Args:
        sweep: The sweep of the ingredients.
        evaluations: Determines the store, the task and the BatchNorm statistics.
        names: Ingredients to use; by default, all.
        alphas: As for `evaluate_lines`.
        split: A split, or a part of one; by default, the select split.
    """
    chosen = sweep.names(names)
    rows = evaluations.store.lines(lines_key(evaluations, alphas, split or evaluations.task.select))
    # Vectorised, because 200 ingredients have 19,900 pairs, which pages read in each run.
    points: dict[str, int] = {}  # ingredients with the same weights are one point
    keys = [evaluations.key(sweep[name].mixture) for name in chosen]
    at = np.array([points.setdefault(key, len(points)) for key in keys], dtype=np.int64)
    starts = [points.get(start, -1) for start, _, _, _ in rows]
    ends = np.array([starts, [points.get(end, -1) for _, end, _, _ in rows]], dtype=np.int64).T
    used = np.flatnonzero((ends >= 0).all(axis=1))
    settled = np.array([row[2] for row in rows], dtype=bool)
    # If a line is stored in both directions, the settled one is used.
    rank = np.full((len(points), len(points)), -1)
    rank[ends[used, 0], ends[used, 1]] = used + settled[used] * len(rows)
    a, b = np.triu_indices(len(chosen), k=1)
    forwards, backwards = rank[at[a], at[b]], rank[at[b], at[a]]
    best = np.maximum(forwards, backwards)
    is_known = best >= 0
    which = best[is_known] % max(len(rows), 1)
    found = np.frombuffer(b"".join([rows[row][3] for row in which.tolist()]), dtype="<f8")
    values = found.reshape(-1, len(_COLUMNS)).copy()
    turned = (backwards > forwards)[is_known]
    values[turned, _COLUMNS["barrier_alpha"]] = 1 - values[turned, _COLUMNS["barrier_alpha"]]
    return PairSummaries(
        tuple(chosen),
        np.stack([a[is_known], b[is_known]], axis=1).astype(np.int64),
        values,
        settled[which],
        np.zeros(len(which), dtype=bool),
    )
