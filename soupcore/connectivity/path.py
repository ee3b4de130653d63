"""Linear mode connectivity: the loss along the straight line between two points.

Barriers follow two papers, on the α that were evaluated:

* loss barrier (Entezari et al. 2022, arXiv:2110.06296): max over α of
  L(α) − [(1−α)L(0) + αL(1)], at least 0 because the ends are on the line;
* error barrier (Frankle et al. 2020, arXiv:1912.05671): max over α of E(α) − ½[E(0) + E(1)],
  with E = 1 − score; pairs under 2 points count as connected there.

A grid never proves that there is no barrier between its points. Averaged BatchNorm statistics are
evaluated as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from soupcore.evaluation import Evaluation, Evaluator, Progress, no_progress
from soupcore.mixtures import Coefficient, Mixture, as_fraction, interpolate
from soupcore.sweeps import Ingredient

Floats = npt.NDArray[np.float64]
End = Ingredient | Mixture

DEFAULT_ALPHAS = 11


@dataclass(frozen=True)
class LinearPath:
    """Loss and score along (1−α)θ₀ + αθ₁ on one split.

    Attributes:
        alphas: The α evaluated, ascending, with 0 and 1 among them.
        losses: Mean loss at each.
        scores: Mean score at each (accuracy, 0 to 1, in classification).
        split: Which split.
        n: Number of examples in it.
    """

    alphas: Floats
    losses: Floats
    scores: Floats
    split: str
    n: int

    @property
    def accuracies(self) -> Floats:
        """The scores, under the name they have in classification."""
        return self.scores

    @property
    def chord(self) -> Floats:
        """The straight line between the losses of the ends, at each α."""
        start, end = self._ends
        chord: Floats = (1 - self.alphas) * self.losses[start] + self.alphas * self.losses[end]
        return chord

    @property
    def barrier(self) -> float:
        """Loss barrier over α in [0, 1], in the units of the loss; NaN if a loss there is."""
        return float((self.losses - self.chord)[self._inside].max())

    @property
    def barrier_alpha(self) -> float:
        """The α at which the loss is highest above the chord."""
        return float(self.alphas[self._inside][(self.losses - self.chord)[self._inside].argmax()])

    @property
    def error_barrier(self) -> float:
        """Error barrier over α in [0, 1], as a share of 1; negative where all points are better."""
        start, end = self._ends
        middle = (self.scores[start] + self.scores[end]) / 2
        return float(middle - self.scores[self._inside].min())

    @property
    def _ends(self) -> tuple[int, int]:
        return int(np.flatnonzero(self.alphas == 0)[0]), int(np.flatnonzero(self.alphas == 1)[0])

    @property
    def _inside(self) -> slice:
        start, end = self._ends
        return slice(start, end + 1)


def grid(alphas: int | Sequence[Coefficient] = DEFAULT_ALPHAS) -> list[Fraction]:
    """Return the α to evaluate, ascending, with 0 and 1 among them.

    Args:
        alphas: How many, evenly from 0 to 1 (11 in the soups' papers), or which.

    Raises:
        ValueError: There are fewer than two.
    """
    if isinstance(alphas, int):
        if alphas < 2:
            raise ValueError("A path needs at least its two ends.")
        return [Fraction(i, alphas - 1) for i in range(alphas)]
    # Rounded, so that the 0.30000000000000004 of a computed grid is the same point as 0.3.
    exact = (round(a, 12) if isinstance(a, float) else a for a in alphas)
    return sorted({Fraction(0), Fraction(1), *map(as_fraction, exact)})


def path_points(start: End, end: End, alphas: Sequence[Fraction]) -> list[Mixture]:
    """Return the points on the line from `start` (α = 0) to `end` (α = 1)."""
    return [interpolate(_point(start), _point(end), alpha) for alpha in alphas]


def path_of(alphas: Sequence[Fraction], evaluations: Sequence[Evaluation]) -> LinearPath:
    """Make a path of the evaluations of its points, in the order of the alphas."""
    return LinearPath(
        alphas=np.array([float(alpha) for alpha in alphas]),
        losses=np.array([evaluation.loss for evaluation in evaluations]),
        scores=np.array([evaluation.score for evaluation in evaluations]),
        split=evaluations[0].split,
        n=evaluations[0].n,
    )


def linear_path(
    start: End,
    end: End,
    evaluator: Evaluator,
    alphas: int | Sequence[Coefficient] = DEFAULT_ALPHAS,
    *,
    split: str | None = None,
    on_progress: Progress = no_progress,
) -> LinearPath:
    """Evaluate the straight line between two points.

    Args:
        start: The end at α = 0: an ingredient or any mixture.
        end: The end at α = 1.
        evaluator: Computes what the store does not have.
        alphas: How many α, evenly from 0 to 1, or which; 0 and 1 are always among them.
        split: Which split; the one with the role `select` unless given.
        on_progress: Called with examples done and in all; raise in it to stop.
    """
    split = split or evaluator.task.select
    steps = grid(alphas)
    points = path_points(start, end, steps)
    return path_of(
        steps, evaluator.evaluate_all(points, split, keep_outputs=False, on_progress=on_progress)
    )


def stored_path(
    start: End,
    end: End,
    evaluator: Evaluator,
    alphas: int | Sequence[Coefficient] = DEFAULT_ALPHAS,
    *,
    split: str | None = None,
) -> LinearPath | None:
    """Return the path if the store has all of its points, else None. Computes nothing."""
    steps = grid(alphas)
    known = evaluator.stored(path_points(start, end, steps), split or evaluator.task.select)
    found = [evaluation for evaluation in known if evaluation is not None]
    return path_of(steps, found) if len(found) == len(steps) else None


def _point(end: End) -> Mixture:
    return end.mixture if isinstance(end, Ingredient) else end
