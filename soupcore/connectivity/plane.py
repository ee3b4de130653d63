"""The loss on the plane through three points.

The plane's axes are the Gram–Schmidt basis of u = θ₁ − θ₀ and v = θ₂ − θ₀ (Garipov et al. 2018,
arXiv:1802.10026): x runs from θ₀ to θ₁, y at a right angle to it towards θ₂, and a unit on both is
a unit of distance between weights. Every point is a mixture (1−a−b)·θ₀ + a·θ₁ + b·θ₂ whose
coefficients are exact: multiples of 2⁻¹⁶.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from soupcore.checkpoints import Checkpoint
from soupcore.connectivity.bracket import Floats
from soupcore.connectivity.geometry import measured
from soupcore.connectivity.path import End, point
from soupcore.connectivity.products import (
    Products,
    Vector,
    difference,
    inner_products,
    stored_inner_products,
)
from soupcore.errors import ConnectivityError
from soupcore.evaluation import Evaluation, Evaluator, Progress, no_progress
from soupcore.mixtures import Mixture
from soupcore.sweeps import Sweep

SIZES = (7, 13, 25)  # points a side; each grid holds the one before it
MARGIN = 0.25  # of the corners' extent: puts two of the corners on the grids of these sizes
_STEPS = 1 << 16  # of a coefficient
_FLAT = 1e-6  # θ₂'s distance from the line through the others, as a share of that from θ₀

Corner = str | End


@dataclass(frozen=True)
class Place:
    """Where a point lies: its projection onto the plane, and its distance from it."""

    x: float
    y: float
    distance: float


class Frame:
    """The axes of the plane through three points.

    Args:
        corners: θ₀, θ₁ and θ₂.
        products: Inner products that cover their sources.

    Raises:
        ConnectivityError: The three lie on one line.
    """

    def __init__(self, corners: tuple[Mixture, Mixture, Mixture], products: Products) -> None:
        self.corners = corners
        self._products = products
        self._origin = products.vector(corners[0])
        self._u, self._v = (
            difference(products.vector(corner), self._origin) for corner in corners[1:]
        )
        (uu, uv), (_, vv) = self._inner([self._u, self._v], [self._u, self._v])
        if uu <= 0 or vv - uv**2 / uu <= _FLAT**2 * vv:
            raise ConnectivityError(
                "The three corners lie on one line, so no plane is set by them. Choose others."
            )
        self._width = math.sqrt(uu)  # |u|
        self._shear = uv / uu  # of v along u
        self._height = math.sqrt(vv - uv**2 / uu)  # of θ₂ above u

    @cached_property
    def places(self) -> tuple[Place, Place, Place]:
        """Where the three corners lie."""
        return (
            Place(0.0, 0.0, 0.0),
            Place(self._width, 0.0, 0.0),
            Place(self._shear * self._width, self._height, 0.0),
        )

    def locate(self, mixture: Mixture) -> Place:
        """Project a point onto the plane.

        Raises:
            KeyError: The inner products do not cover its sources.
        """
        w = difference(self._products.vector(mixture), self._origin)
        ((wu, wv, ww),) = self._inner([w], [self._u, self._v, w])
        x = wu / self._width
        y = (wv - self._shear * wu) / self._height
        return Place(float(x), float(y), math.sqrt(max(ww - x**2 - y**2, 0.0)))

    def at(self, x: float, y: float) -> Mixture:
        """Return the point of the plane at two coordinates, to within a 2⁻¹⁷th of its corners."""
        b = _rounded(y / self._height)
        a = _rounded(x / self._width - self._shear * y / self._height)
        return Mixture(
            (corner.sources[digest], coefficient * share)
            for corner, share in zip(self.corners, (1 - a - b, a, b), strict=True)
            for digest, coefficient in corner.coefficients.items()
        )

    def grid(self, size: int, margin: float) -> tuple[Floats, Floats]:
        """Return the coordinates of a grid around the corners, even in x and in y.

        Args:
            size: Points a side.
            margin: How far it reaches beyond the corners, as a share of their extent.
        """
        shares = np.array([step / (size - 1) for step in range(size)])
        sides = []
        for values in zip(*((place.x, place.y) for place in self.places), strict=True):
            low, high = min(values), max(values)
            reach = margin * (high - low)
            sides.append(low - reach + (high - low + 2 * reach) * shares)
        return sides[0], sides[1]

    def _inner(self, one: Sequence[Vector], other: Sequence[Vector]) -> Floats:
        found: Floats = self._products.inner(one, other).sum(axis=0)
        return found


@dataclass(frozen=True)
class Plane:
    """Loss and score on a grid of a plane.

    Attributes:
        frame: Its axes; `frame.locate` says where other points lie.
        xs: Coordinates along the first axis, shape [n].
        ys: Coordinates along the second, shape [n].
        losses: Mean loss, shape [n, n], a row for each y; NaN where it is not known.
        scores: Mean score, likewise.
        split: Which split.
        missing: How many points of the finest grid asked for are not known.
    """

    frame: Frame
    xs: Floats
    ys: Floats
    losses: Floats
    scores: Floats
    split: str
    missing: int = 0


def plane(
    sweep: Sweep,
    evaluator: Evaluator,
    corners: Sequence[Corner],
    size: int = SIZES[-1],
    *,
    margin: float = MARGIN,
    split: str | None = None,
    on_progress: Progress = no_progress,
) -> Plane:
    """Evaluate the plane through three points, coarse grids before the fine ones that hold them.

    Args:
        sweep: Where the corners, and all that is to be projected, are from.
        evaluator: Computes what the store does not have; size² evaluations at most. With the usual
            margin and 7, 13 or 25 points a side, two of the corners are points of the grid.
        corners: θ₀ (the base, where there is one), θ₁ and θ₂: names, or any mixtures.
        size: Points a side; 7, 13 and 25 hold each other, and the soups' papers have 21.
        margin: How far the grid reaches beyond the corners, as a share of their extent.
        split: Which split; the one with the role `select` unless given.
        on_progress: Called with examples done and in all; raise in it to stop.

    Raises:
        ConnectivityError: The corners lie on one line, or are not three.
    """
    points = _corners(sweep, corners)
    products = inner_products(*_measured(sweep, points), evaluator.store)
    frame = Frame(points, products)
    split = split or evaluator.task.select
    order = [p for level in _levels(size) for p in _points(frame, level, margin)]
    evaluator.evaluate_all(
        list(dict.fromkeys(order)), split, keep_outputs=False, on_progress=on_progress
    )
    return _known(frame, evaluator, size, margin, split)


def stored_plane(
    sweep: Sweep,
    evaluator: Evaluator,
    corners: Sequence[Corner],
    size: int = SIZES[-1],
    *,
    margin: float = MARGIN,
    split: str | None = None,
) -> Plane | None:
    """Return the finest grid that the store knows whole. Computes nothing.

    Where it knows none, the coarsest is returned with NaN where a point is not known; None where
    not even the inner products of the corners are.

    Raises:
        ConnectivityError: As for `plane`.
    """
    points = _corners(sweep, corners)
    products = stored_inner_products(*_measured(sweep, points), evaluator.store)
    if products is None:
        return None
    return _known(Frame(points, products), evaluator, size, margin, split or evaluator.task.select)


def _corners(sweep: Sweep, corners: Sequence[Corner]) -> tuple[Mixture, Mixture, Mixture]:
    if len(corners) != 3:
        raise ConnectivityError(f"A plane goes through three points, not {len(corners)}.")
    first, second, third = (
        point(sweep[corner] if isinstance(corner, str) else corner) for corner in corners
    )
    return first, second, third


def _measured(sweep: Sweep, corners: Iterable[Mixture]) -> tuple[Checkpoint, list[Checkpoint]]:
    reference, checkpoints = measured(sweep)
    return reference, [*checkpoints, *(c for corner in corners for c in corner.sources.values())]


def _levels(size: int) -> list[int]:
    """Return the sizes of the grids that the grid of a size holds, and its own."""
    return [level for level in SIZES if level < size and (size - 1) % (level - 1) == 0] + [size]


def _points(frame: Frame, size: int, margin: float) -> list[Mixture]:
    xs, ys = frame.grid(size, margin)
    return [frame.at(x, y) for y in ys.tolist() for x in xs.tolist()]


def _known(frame: Frame, evaluator: Evaluator, size: int, margin: float, split: str) -> Plane:
    stored = evaluator.stored(_points(frame, size, margin), split)
    cells = np.array(stored, dtype=object).reshape(size, size)
    levels = {level: cells[:: (size - 1) // (level - 1), :: (size - 1) // (level - 1)]
              for level in _levels(size)}  # fmt: skip
    whole = [level for level, grid in levels.items() if all(grid.ravel())]
    shown = max(whole, default=_levels(size)[0])
    xs, ys = frame.grid(shown, margin)
    return Plane(
        frame,
        xs,
        ys,
        losses=_array(levels[shown], lambda found: found.loss),
        scores=_array(levels[shown], lambda found: found.score),
        split=split,
        missing=stored.count(None),
    )


def _array(cells: npt.NDArray[np.object_], value: Callable[[Evaluation], float]) -> Floats:
    return np.array([[math.nan if c is None else value(c) for c in row] for row in cells])


def _rounded(coefficient: float) -> Fraction:
    return Fraction(round(coefficient * _STEPS), _STEPS)
