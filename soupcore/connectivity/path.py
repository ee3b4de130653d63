"""Loss and score along the straight line between two points, and the barriers on it.

A barrier is the maximum rise above the chord, the linear interpolation of the endpoint values, over
the evaluated α values (Entezari et al. 2022, arXiv:2110.06296):

* loss barrier: max over α of L(α) − [(1−α)L(0) + αL(1)];
* error barrier: the same for the error E = 1 − score.

Both are at least 0, since the endpoints lie on the chord. Frankle et al. (2020, arXiv:1912.05671)
measure the error above the mean of the endpoints instead: max over α of E(α) − ½[E(0) + E(1)]. This
includes half the difference of unequal endpoints: with 90 % and 70 %, the barrier is at least 10
percentage points even on a perfectly straight line. In that paper, pairs below 2 percentage points
count as connected.

A barrier between the evaluated α values can never be excluded. The upper end of a barrier's bracket
is an estimate of its height, by interpolation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import scipy  # its submodules load when they are first used

from soupcore.connectivity.adaptive import Adaptive, ceiling
from soupcore.display import number
from soupcore.evaluation import Evaluation
from soupcore.inner_products import Floats
from soupcore.mixtures import Coefficient, Mixture, as_fraction
from soupcore.sweeps import Ingredient
from soupcore.tasks import NO_LABELS, Labels

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

Pair = tuple[str, str]  # names of two ingredients
End = Ingredient | Mixture
Line = tuple[End, End]
Alphas = Adaptive | int | Sequence[Coefficient]


@dataclass(frozen=True)
class LinearPath:
    """Loss and score along (1−α)θ₀ + αθ₁ on one split.

    Attributes:
        alphas: The α values evaluated, ascending, including 0 and 1.
        losses: Mean loss at each α.
        scores: Mean score at each α (accuracy from 0 to 1 in classification).
        split: Name of the split.
        n: Number of examples in the split.
        names: Names of the points at α = 0 and α = 1.
        labels: Names of the loss and the score, and the unit of the score.
    """

    alphas: Floats
    losses: Floats
    scores: Floats
    split: str
    n: int
    names: tuple[str, str] = ("first", "second")
    labels: Labels = NO_LABELS

    @property
    def accuracies(self) -> Floats:
        """The scores, under their name in classification."""
        return self.scores

    @property
    def chord(self) -> Floats:
        """Linear interpolation of the endpoint losses at each α."""
        return self._chord_of(self.losses)

    @property
    def score_chord(self) -> Floats:
        """Linear interpolation of the endpoint scores at each α."""
        return self._chord_of(self.scores)

    @property
    def barrier(self) -> float:
        """Loss barrier over α in [0, 1], in units of the loss; NaN if a loss is NaN."""
        return float((self.losses - self.chord)[self._inside].max())

    @cached_property
    def barrier_bracket(self) -> tuple[float, float]:
        """The loss barrier and its estimated upper bound between the α values (see `bracket`).

        The upper bound is ∞ if only the endpoints are known.
        """
        rise = (self.losses - self.chord)[self._inside]
        return self.barrier, ceiling(self.alphas[self._inside], rise)

    @property
    def barrier_alpha(self) -> float:
        """The α with the largest rise of the loss above the chord."""
        return float(self.alphas[self._inside][(self.losses - self.chord)[self._inside].argmax()])

    @property
    def error_barrier(self) -> float:
        """Maximum drop of the score below its chord over α in [0, 1], in units of the score.

        This equals the maximum rise of the error E = 1 − score above its chord and is at least 0.
        NaN if the loss of an endpoint is not finite, since two broken networks, both always wrong,
        would otherwise be connected.
        """
        return self.error_barrier_bracket[0]

    @cached_property
    def error_barrier_bracket(self) -> tuple[float, float]:
        """The error barrier and its estimated upper bound between the α values."""
        return self._drop_below(self.score_chord)

    @property
    def error_barrier_over_mean(self) -> float:
        """Maximum drop of the score below the endpoint mean, in units of the score.

        This is the definition of Frankle et al. (2020). It is at least half the difference between
        the endpoints. NaN as for `error_barrier`.
        """
        return self.error_barrier_over_mean_bracket[0]

    @cached_property
    def error_barrier_over_mean_bracket(self) -> tuple[float, float]:
        """The same barrier and its estimated upper bound between the α values."""
        return self._drop_below(np.full(len(self.alphas), self._mean_score))

    @property
    def midpoint_advantage(self) -> float:
        """Score of the midpoint minus the mean of the endpoint scores; NaN without α = ½.

        This is the interpolation advantage of Model Soups (Wortsman et al. 2022, figure 3).
        """
        middle = self.scores[self.alphas == 0.5]
        return float(middle[0]) - self._mean_score if len(middle) else float("nan")

    @property
    def midpoint_gain(self) -> float:
        """Score of the midpoint minus that of the better endpoint; NaN without α = ½."""
        start, end = self._ends
        middle = self.scores[self.alphas == 0.5]
        better = max(self.scores[start], self.scores[end])
        return float(middle[0] - better) if len(middle) else float("nan")

    def interpolated(self, points: int = 129) -> tuple[Floats, Floats]:
        """Return α and a spline of the losses on a fine grid over [0, 1], for drawing.

        The spline is a straight line if only the endpoints are known, and NaN if a loss is not
        finite.
        """
        at, losses = self.alphas[self._inside], self.losses[self._inside]
        fine = np.linspace(0, 1, points)
        if not np.isfinite(losses).all():
            return fine, np.full(points, np.nan)
        return fine, scipy.interpolate.CubicSpline(at, losses)(fine)

    def figure(self) -> "go.Figure":
        """Plot loss and score along the line (see `soupcore.figures.path_curves`)."""
        from soupcore import figures  # loads Plotly

        return figures.path_curves({self.names: [self]}, **self.labels.for_figures)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per α with its loss, chord and score."""
        from soupcore.figures.tables import paths_table  # loads pandas

        return paths_table({self.names: [self]})

    def __repr__(self) -> str:
        line = f"{' → '.join(self.names)} on {self.split}"
        low, high = self.barrier_bracket
        barrier = f"{number(low)} to {number(high)}"
        return f"LinearPath({line}: {len(self.alphas)} α values, loss barrier {barrier})"

    def _chord_of(self, values: Floats) -> Floats:
        start, end = self._ends
        chord: Floats = (1 - self.alphas) * values[start] + self.alphas * values[end]
        return chord

    def _drop_below(self, reference: Floats) -> tuple[float, float]:
        """Return the maximum drop of the score below a reference, and its upper bound."""
        if not np.isfinite(self.losses[[*self._ends]]).all():
            return math.nan, math.nan
        drop = (reference - self.scores)[self._inside]
        return float(drop.max()), ceiling(self.alphas[self._inside], drop)

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
    """Return the α values to evaluate, ascending, including 0 and 1.

    Args:
        alphas: The number of evenly spaced values from 0 to 1 (11 in Model Soups), or the values.

    Raises:
        ValueError: The number is less than two.
    """
    if isinstance(alphas, int):
        if alphas < 2:
            raise ValueError(f"A path needs at least 2 α values, not {alphas}.")
        return [Fraction(i, alphas - 1) for i in range(alphas)]
    # Rounded, so that 0.30000000000000004 from a computed grid is the same point as 0.3.
    exact = (round(a, 12) if isinstance(a, float) else a for a in alphas)
    return sorted({Fraction(0), Fraction(1), *map(as_fraction, exact)})


def path_of(alphas: Sequence[Fraction], evaluations: Sequence[Evaluation]) -> LinearPath:
    """Make a path from the evaluations of its points, in the order of the α values."""
    return LinearPath(
        alphas=np.array([float(alpha) for alpha in alphas]),
        losses=np.array([evaluation.loss for evaluation in evaluations]),
        scores=np.array([evaluation.score for evaluation in evaluations]),
        split=evaluations[0].split,
        n=evaluations[0].n,
        labels=evaluations[0].labels,
    )


def point(end: End) -> Mixture:
    """Return the point in weight space of an ingredient or a mixture."""
    return end.mixture if isinstance(end, Ingredient) else end
