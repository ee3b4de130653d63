"""The loss on the plane through three points.

The axes are the Gram–Schmidt basis of u = θ₁ − θ₀ and v = θ₂ − θ₀ (Garipov et al. 2018,
arXiv:1802.10026): x runs from θ₀ to θ₁, and y is orthogonal to it, towards θ₂. Both are in units of
L2 distance between weights. Every point is a mixture (1−a−b)·θ₀ + a·θ₁ + b·θ₂ with exact
coefficients, multiples of 2⁻¹⁶.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from soupcore.checkpoints import Checkpoint
from soupcore.connectivity.geometry import reference_and_checkpoints
from soupcore.connectivity.path import End, point
from soupcore.display import number
from soupcore.errors import ConnectivityError
from soupcore.evaluation import Evaluation, Evaluations, Evaluator
from soupcore.inner_products import (
    Floats,
    Products,
    Vector,
    difference,
    inner_products,
    stored_inner_products,
)
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, no_progress, with_bar
from soupcore.sweeps import Ingredient, Sweep
from soupcore.tasks import NO_LABELS, Labels

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

SIZES = (7, 13, 25)  # points per side of nested grids
MARGIN = 0.25  # relative to the extent of the corners; with it, two corners are grid points
_STEPS = 1 << 16  # coefficients are multiples of its inverse
_FLAT = 1e-6  # minimum distance of θ₂ from the line through θ₀ and θ₁, relative to that from θ₀

Corner = str | End


@dataclass(frozen=True)
class Place:
    """The projection of a point onto the plane, and its distance from the plane."""

    x: float
    y: float
    distance: float


class Frame:
    """The axes of the plane through three points.

    Args:
        corners: θ₀, θ₁ and θ₂.
        products: Inner products that cover the sources of the corners.

    Raises:
        ConnectivityError: The corners lie on one line.
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
                "The three corners lie on one line and do not define a plane. Choose others."
            )
        self._width = math.sqrt(uu)  # |u|
        self._shear = uv / uu  # component of v along u, in units of |u|
        self._height = math.sqrt(vv - uv**2 / uu)  # distance of θ₂ from the x axis

    @cached_property
    def places(self) -> tuple[Place, Place, Place]:
        """The coordinates of the three corners."""
        return (
            Place(0.0, 0.0, 0.0),
            Place(self._width, 0.0, 0.0),
            Place(self._shear * self._width, self._height, 0.0),
        )

    def covers(self, mixture: Mixture) -> bool:
        """Whether `locate` has the inner products that it needs."""
        return self._products.covers(mixture)

    def locate(self, mixture: Mixture) -> Place:
        """Project a point onto the plane.

        Raises:
            KeyError: The inner products do not cover the sources of the mixture.
        """
        w = difference(self._products.vector(mixture), self._origin)
        ((wu, wv, ww),) = self._inner([w], [self._u, self._v, w])
        x = wu / self._width
        y = (wv - self._shear * wu) / self._height
        return Place(float(x), float(y), math.sqrt(max(ww - x**2 - y**2, 0.0)))

    def at(self, x: float, y: float) -> Mixture:
        """Return the point at the given coordinates, with coefficients rounded to 2⁻¹⁶."""
        b = _rounded(y / self._height)
        a = _rounded(x / self._width - self._shear * y / self._height)
        return Mixture(
            (corner.sources[digest], coefficient * share)
            for corner, share in zip(self.corners, (1 - a - b, a, b), strict=True)
            for digest, coefficient in corner.coefficients.items()
        )

    def grid(self, size: int, margin: float) -> tuple[Floats, Floats]:
        """Return the x and y coordinates of an evenly spaced grid around the corners.

        Args:
            size: Points per side.
            margin: Extension beyond the corners, relative to their extent.
        """
        shares = np.array([step / (size - 1) for step in range(size)])
        sides = []
        for values in zip(*((place.x, place.y) for place in self.places), strict=True):
            low, high = min(values), max(values)
            reach = margin * (high - low)
            sides.append(low - reach + (high - low + 2 * reach) * shares)
        return sides[0], sides[1]

    def _inner(self, one: Sequence[Vector], other: Sequence[Vector]) -> Floats:
        products: Floats = self._products.inner(one, other).sum(axis=0)
        return products


@dataclass(frozen=True)
class Plane:
    """Loss and score on a grid of a plane.

    Attributes:
        frame: The axes. `frame.locate` projects other points onto the plane: the sweep's
            checkpoints, mixtures of them, and the `points` requested.
        xs: x coordinates, shape [n].
        ys: y coordinates, shape [n].
        losses: Mean losses, shape [n, n], one row per y; NaN if not evaluated.
        scores: Mean scores, in the same form.
        split: Name of the split.
        missing: Number of points of the finest requested grid that are not evaluated.
        corners: Names of the three corners.
        labels: Names of the loss and the score, and the unit of the score.
    """

    frame: Frame
    xs: Floats
    ys: Floats
    losses: Floats
    scores: Floats
    split: str
    missing: int = 0
    corners: tuple[str, str, str] = ("A", "B", "C")
    labels: Labels = NO_LABELS

    def figure(self) -> "go.Figure":
        """Draw contours of loss and error, and the corners (see `figures.plane_contours`)."""
        from soupcore import figures  # loads Plotly

        places = dict(zip(self.corners, self.frame.places, strict=True))
        kinds = dict.fromkeys(self.corners, "ingredient")
        inks = figures.colours(self.corners)
        return figures.plane_contours(self, places, kinds, inks, **self.labels.for_figures)

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per grid point, then one row per corner."""
        from soupcore.figures.tables import plane_table  # loads pandas

        return plane_table(self, dict(zip(self.corners, self.frame.places, strict=True)))

    def __repr__(self) -> str:
        known = self.losses[np.isfinite(self.losses)]
        span = f", loss {number(known.min())} to {number(known.max())}" if len(known) else ""
        size = f"{len(self.xs)}×{len(self.ys)} points"
        return f"Plane({', '.join(self.corners)} on {self.split}: {size}{span})"


@with_bar("Plane")
def plane(
    sweep: Sweep,
    evaluator: Evaluator,
    corners: Sequence[Corner],
    size: int = SIZES[-1],
    *,
    margin: float = MARGIN,
    split: str | None = None,
    points: Iterable[End] = (),
    on_progress: Progress = no_progress,
    progress: bool = True,
) -> Plane:
    """Evaluate the plane through three points, from coarse to fine grids.

    Args:
        sweep: The sweep of the corners and projected points.
        evaluator: Computes evaluations that are not stored, at most size². With the default margin
            and 7, 13 or 25 points per side, two of the corners are grid points.
        corners: θ₀ (usually the base), θ₁ and θ₂: names or mixtures.
        size: Points per side. Grids of 7, 13 and 25 are nested; Model Soups uses 21.
        margin: Extension of the grid beyond the corners, relative to their extent.
        split: Name of the split; by default, the select split.
        points: Other points to project onto the plane. Those that are not mixtures of the sweep's
            checkpoints, such as a TIES soup, are read once for their inner products.
        on_progress: Called with the number of examples done and in total. Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.

    Raises:
        ConnectivityError: The corners lie on one line, or there are not three.
    """
    through = _corners(sweep, corners)
    reference, checkpoints = _with_corners(sweep, through)
    checkpoints += _sources(map(point, points))
    frame = Frame(through, inner_products(reference, checkpoints, evaluator.store))
    split = split or evaluator.task.select
    order = [p for level in _levels(size) for p in _points(frame, level, margin)]
    evaluator.evaluate_all(
        list(dict.fromkeys(order)), split, keep_outputs=False, on_progress=on_progress
    )
    return _known(frame, evaluator, size, margin, split, _names(corners))


def stored_plane(
    sweep: Sweep,
    evaluations: Evaluations,
    corners: Sequence[Corner],
    size: int = SIZES[-1],
    *,
    margin: float = MARGIN,
    split: str | None = None,
    points: Iterable[End] = (),
) -> Plane | None:
    """Return the finest grid that is stored completely, without computing evaluations.

    If no grid is complete, the coarsest is returned with NaN for missing points. Without the inner
    products of the corners, the result is None. The frame covers those of the `points` whose inner
    products are stored.

    Raises:
        ConnectivityError: As for `plane`.
    """
    through = _corners(sweep, corners)
    products = stored_inner_products(
        *_with_corners(sweep, through), evaluations.store, optional=_sources(map(point, points))
    )
    if products is None:
        return None
    return _known(
        Frame(through, products),
        evaluations,
        size,
        margin,
        split or evaluations.task.select,
        _names(corners),
    )


def _names(corners: Sequence[Corner]) -> tuple[str, str, str]:
    """Return the names of the corners, or letters for those without."""
    names = [corner.name if isinstance(corner, Ingredient) else corner for corner in corners]
    first, second, third = (
        name if isinstance(name, str) else letter for name, letter in zip(names, "ABC", strict=True)
    )
    return first, second, third


def _corners(sweep: Sweep, corners: Sequence[Corner]) -> tuple[Mixture, Mixture, Mixture]:
    if len(corners) != 3:
        raise ConnectivityError(f"A plane needs three points, not {len(corners)}.")
    first, second, third = (
        point(sweep[corner] if isinstance(corner, str) else corner) for corner in corners
    )
    return first, second, third


def _with_corners(sweep: Sweep, corners: Iterable[Mixture]) -> tuple[Checkpoint, list[Checkpoint]]:
    """Return the reference of a sweep, and its checkpoints and those of the corners."""
    reference, checkpoints = reference_and_checkpoints(sweep)
    return reference, [*checkpoints, *_sources(corners)]


def _sources(points: Iterable[Mixture]) -> list[Checkpoint]:
    return [checkpoint for each in points for checkpoint in each.sources.values()]


def _levels(size: int) -> list[int]:
    """Return the sizes of the grids nested in a grid, including its own."""
    return [level for level in SIZES if level < size and (size - 1) % (level - 1) == 0] + [size]


def _points(frame: Frame, size: int, margin: float) -> list[Mixture]:
    xs, ys = frame.grid(size, margin)
    return [frame.at(x, y) for y in ys.tolist() for x in xs.tolist()]


def _known(
    frame: Frame,
    evaluations: Evaluations,
    size: int,
    margin: float,
    split: str,
    corners: tuple[str, str, str],
) -> Plane:
    stored = evaluations.stored(_points(frame, size, margin), split)
    cells = np.array(stored, dtype=object).reshape(size, size)
    levels = {level: cells[:: (size - 1) // (level - 1), :: (size - 1) // (level - 1)]
              for level in _levels(size)}  # fmt: skip
    complete = [level for level, grid in levels.items() if all(grid.ravel())]
    shown = max(complete, default=_levels(size)[0])
    xs, ys = frame.grid(shown, margin)
    return Plane(
        frame,
        xs,
        ys,
        losses=_array(levels[shown], lambda evaluation: evaluation.loss),
        scores=_array(levels[shown], lambda evaluation: evaluation.score),
        split=split,
        missing=stored.count(None),
        corners=corners,
        labels=evaluations.task.labels,
    )


def _array(cells: npt.NDArray[np.object_], value: Callable[[Evaluation], float]) -> Floats:
    return np.array([[math.nan if c is None else value(c) for c in row] for row in cells])


def _rounded(coefficient: float) -> Fraction:
    return Fraction(round(coefficient * _STEPS), _STEPS)
