"""Loss and score along the straight line between two points, and the barriers on it.

Barriers follow two papers, on the α that were evaluated:

* loss barrier (Entezari et al. 2022, arXiv:2110.06296): max over α of
  L(α) − [(1−α)L(0) + αL(1)], at least 0 because the ends are on the line;
* error barrier (Frankle et al. 2020, arXiv:1912.05671): max over α of E(α) − ½[E(0) + E(1)],
  with E = 1 − score; pairs under 2 points count as connected there.

Points never prove that there is no barrier between them; how high it may be there, by
interpolation, is the upper end of a barrier's bracket.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import scipy  # its submodules load when they are first used

from soupcore.connectivity.bracket import Floats, ceiling
from soupcore.evaluation import Evaluation
from soupcore.mixtures import Coefficient, Mixture, as_fraction, interpolate
from soupcore.sweeps import Ingredient

End = Ingredient | Mixture


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

    @cached_property
    def barrier_bracket(self) -> tuple[float, float]:
        """The loss barrier, and how high it may be between the points (see `bracket`).

        The upper end is ∞ where nothing between the ends is known.
        """
        rise = (self.losses - self.chord)[self._inside]
        return self.barrier, ceiling(self.alphas[self._inside], rise)

    @property
    def barrier_alpha(self) -> float:
        """The α at which the loss is highest above the chord."""
        return float(self.alphas[self._inside][(self.losses - self.chord)[self._inside].argmax()])

    @property
    def error_barrier(self) -> float:
        """Error barrier over α in [0, 1], as a share of 1; negative where all points are better.

        NaN where the loss of an end is not finite: nothing is connected to a broken network, and
        two of them, both wrong everywhere, would have no barrier between them.
        """
        return float(self._drop.max())

    @cached_property
    def error_barrier_bracket(self) -> tuple[float, float]:
        """The error barrier, and how high it may be between the points."""
        return self.error_barrier, ceiling(self.alphas[self._inside], self._drop)

    @property
    def midpoint_advantage(self) -> float:
        """Score of the middle less the mean score of the ends; NaN where α = ½ is not known.

        The interpolation advantage of the soups' paper (Wortsman et al. 2022, figure 3).
        """
        middle = self.scores[self.alphas == 0.5]
        return float(middle[0]) - self._mean_score if len(middle) else float("nan")

    @property
    def midpoint_gain(self) -> float:
        """Score of the middle less that of the better end; NaN where α = ½ is not known."""
        start, end = self._ends
        middle = self.scores[self.alphas == 0.5]
        better = max(self.scores[start], self.scores[end])
        return float(middle[0] - better) if len(middle) else float("nan")

    def interpolated(self, points: int = 129) -> tuple[Floats, Floats]:
        """Return α and loss on a fine grid over [0, 1]: the spline through what is known, to draw.

        Straight where only the ends are known, NaN where a loss is.
        """
        at, losses = self.alphas[self._inside], self.losses[self._inside]
        fine = np.linspace(0, 1, points)
        if not np.isfinite(losses).all():
            return fine, np.full(points, np.nan)
        return fine, scipy.interpolate.CubicSpline(at, losses)(fine)

    @property
    def _drop(self) -> Floats:
        """How far scores in [0, 1] lie below the mean of the ends; NaN where an end is broken."""
        if not np.isfinite(self.losses[[*self._ends]]).all():
            return np.full(len(self.scores[self._inside]), np.nan)
        drop: Floats = self._mean_score - self.scores[self._inside]
        return drop

    @property
    def _mean_score(self) -> float:
        start, end = self._ends
        return float(self.scores[start] + self.scores[end]) / 2

    @property
    def _ends(self) -> tuple[int, int]:
        return int(np.flatnonzero(self.alphas == 0)[0]), int(np.flatnonzero(self.alphas == 1)[0])

    @property
    def _inside(self) -> slice:
        start, end = self._ends
        return slice(start, end + 1)


def grid(alphas: int | Sequence[Coefficient]) -> list[Fraction]:
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
    return [interpolate(point(start), point(end), alpha) for alpha in alphas]


def path_of(alphas: Sequence[Fraction], evaluations: Sequence[Evaluation]) -> LinearPath:
    """Make a path of the evaluations of its points, in the order of the alphas."""
    return LinearPath(
        alphas=np.array([float(alpha) for alpha in alphas]),
        losses=np.array([evaluation.loss for evaluation in evaluations]),
        scores=np.array([evaluation.score for evaluation in evaluations]),
        split=evaluations[0].split,
        n=evaluations[0].n,
    )


def point(end: End) -> Mixture:
    """Return where an end lies in weight space."""
    return end.mixture if isinstance(end, Ingredient) else end
