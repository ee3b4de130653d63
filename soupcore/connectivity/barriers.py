"""The barriers between all pairs of a sweep."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from soupcore.connectivity.bracket import Floats
from soupcore.connectivity.known_lines import Alphas, Line
from soupcore.connectivity.lines import ADAPTIVE, evaluate_lines, stored_lines
from soupcore.connectivity.path import LinearPath
from soupcore.evaluation import Evaluator, Progress, no_progress
from soupcore.sweeps import Sweep

Pair = tuple[str, str]


@dataclass(frozen=True)
class Barriers:
    """The paths between all pairs, as far as they are known.

    Attributes:
        names: The ingredients.
        paths: `{(a, b): path}` for the pairs known, in the order of the names.
        missing: How many points have to be evaluated to know more; more may follow from these.
        open: The pairs in `paths` whose barrier is not known to within the tolerance yet.
    """

    names: tuple[str, ...]
    paths: Mapping[Pair, LinearPath]
    missing: int = 0
    open: frozenset[Pair] = frozenset()

    @property
    def loss(self) -> Floats:
        """Loss barriers [k, k], symmetric: 0 on the diagonal, NaN where a pair is not known."""
        return self.matrix(lambda path: path.barrier)

    @property
    def error(self) -> Floats:
        """Error barriers [k, k], as `loss`; NaN too where the loss of an end is not finite."""
        return self.matrix(lambda path: path.error_barrier)

    @property
    def midpoint_advantage(self) -> Floats:
        """Score of the two-model soup less the mean of both [k, k], as `loss`.

        NaN too where α = ½ was not evaluated: an even number of α has no middle.
        """
        return self.matrix(lambda path: path.midpoint_advantage)

    def matrix(self, measure: Callable[[LinearPath], float]) -> Floats:
        """Return a measure of the paths [k, k], as `loss`."""
        matrix = np.full((len(self.names), len(self.names)), np.nan)
        np.fill_diagonal(matrix, 0.0)
        index = {name: number for number, name in enumerate(self.names)}
        for (a, b), path in self.paths.items():
            matrix[index[a], index[b]] = matrix[index[b], index[a]] = measure(path)
        return matrix


def pairs(names: Sequence[str]) -> Iterator[Pair]:
    """Yield each pair once, in the order of the names."""
    return combinations(names, 2)


def barriers(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    alphas: Alphas = ADAPTIVE,
    *,
    split: str | None = None,
    on_progress: Progress = no_progress,
) -> Barriers:
    """Evaluate the straight lines between all pairs of ingredients.

    Args:
        sweep: Where the ingredients are from.
        evaluator: Computes what the store does not have. With adaptive α that is k evaluations and
            about 3 for each of the k(k−1)/2 pairs where there is no barrier, and 2 on a part of the
            split (5 on all of it where it is small).
        names: Which ingredients; all unless given.
        alphas: As `evaluate_lines` takes them.
        split: Which split, or the name of a part of one (`Task.part`) for a cheap first look; the
            one with the role `select` unless given.
        on_progress: Called with examples done and in all; raise in it to stop.
    """
    chosen = sweep.names(names)
    wanted = list(pairs(chosen))
    paths = evaluate_lines(
        _lines(sweep, wanted), evaluator, alphas, split=split, on_progress=on_progress
    )
    return Barriers(tuple(chosen), dict(zip(wanted, paths, strict=True)))


def stored_barriers(
    sweep: Sweep,
    evaluator: Evaluator,
    names: Iterable[str] | None = None,
    alphas: Alphas = ADAPTIVE,
    *,
    split: str | None = None,
) -> Barriers:
    """Return the barriers as far as the store knows them. Computes nothing.

    On a fixed grid a pair is known when all of its points are. With adaptive α it is when its ends
    and its middle are, and it is among the `open` ones until its barrier is known to within the
    tolerance.
    """
    chosen = sweep.names(names)
    wanted = list(pairs(chosen))
    known = stored_lines(_lines(sweep, wanted), evaluator, alphas, split=split)
    paths = {pair: path for pair, path in zip(wanted, known.paths, strict=True) if path is not None}
    still_open = {pair for pair, is_open in zip(wanted, known.open, strict=True) if is_open}
    return Barriers(tuple(chosen), paths, known.missing, frozenset(still_open & paths.keys()))


def _lines(sweep: Sweep, wanted: Iterable[Pair]) -> list[Line]:
    return [(sweep[a], sweep[b]) for a, b in wanted]
