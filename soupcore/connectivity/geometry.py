"""Where the ingredients lie: norms and angles of task vectors, and distances, by layer too.

A task vector leads from the base to a fine-tuned network (Ilharco et al. 2023, arXiv:2212.04089).
Where a sweep has no base, vectors are measured from the mean of its ingredients.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from soupcore.checkpoints import Checkpoint
from soupcore.connectivity.bracket import Floats
from soupcore.connectivity.products import (
    Products,
    difference,
    inner_products,
    stored_inner_products,
)
from soupcore.evaluation import Progress, no_progress
from soupcore.mixtures import mean
from soupcore.store import Store
from soupcore.sweeps import Sweep

MEAN = "the mean of the ingredients"


@dataclass(frozen=True)
class Geometry:
    """Inner products of task vectors, layer by layer.

    Attributes:
        names: The ingredients, k of them.
        origin: What their vectors lead from: the base's name, or that of their mean.
        layers: Names of the layers, L of them.
        gram: Inner products of the task vectors in each layer, shape [L, k, k].
        origin_squares: Squared norm of the origin's weights in each layer, shape [L].
    """

    names: tuple[str, ...]
    origin: str
    layers: tuple[str, ...]
    gram: Floats
    origin_squares: Floats

    @property
    def norms(self) -> Floats:
        """Distance of each ingredient from the origin [k]."""
        return _norms(self.gram.sum(axis=0))

    @property
    def cosines(self) -> Floats:
        """Cosines between task vectors [k, k]; NaN where one is 0."""
        return _cosines(self.gram.sum(axis=0))

    @property
    def angles(self) -> Floats:
        """Angles between task vectors in degrees [k, k]; NaN where one is 0."""
        angles: Floats = np.degrees(np.arccos(self.cosines))
        return angles

    @property
    def distances(self) -> Floats:
        """Distances between ingredients [k, k]."""
        gram = self.gram.sum(axis=0)
        squares = np.diagonal(gram)
        between = squares[:, None] + squares[None, :] - 2 * gram
        distances: Floats = np.sqrt(np.clip(between, 0, None))
        return distances

    @property
    def norms_by_layer(self) -> Floats:
        """Distance of each ingredient from the origin in each layer [L, k]."""
        return np.stack([_norms(gram) for gram in self.gram])

    @property
    def moves_by_layer(self) -> Floats:
        """The distances by layer as shares of the norm of the origin's layer [L, k].

        NaN where the origin's layer is 0.
        """
        norms = np.sqrt(self.origin_squares)
        shares: Floats = self.norms_by_layer / np.where(norms > 0, norms, np.nan)[:, None]
        return shares

    def angles_by_layer(self, name: str) -> Floats:
        """Return the angles to one ingredient's task vector in each layer, in degrees [L, k]."""
        index = self.names.index(name)
        return np.degrees(np.arccos([_cosines(gram)[index] for gram in self.gram]))

    def grouped(self) -> "Geometry":
        """Return the same with the tensors of a block in one layer (see `block_of`)."""
        blocks = [block_of(layer) for layer in self.layers]
        names = tuple(dict.fromkeys(blocks))
        member = np.array([[block == name for block in blocks] for name in names], dtype=float)
        return Geometry(
            self.names,
            self.origin,
            names,
            np.einsum("bl,lij->bij", member, self.gram),
            member @ self.origin_squares,
        )


def block_of(tensor: str) -> str:
    """Return the block that a tensor belongs to.

    That is its name up to the first number in it, or, where there is none, without the last part:
    `blocks.3.attn.qkv.weight` belongs to `blocks.3`, `head.weight` to `head`.
    """
    parts = tensor.split(".")
    for index, part in enumerate(parts[:-1]):
        if part.isdigit():
            return ".".join(parts[: index + 1])
    return ".".join(parts[:-1]) or tensor


def geometry(
    sweep: Sweep,
    store: Store | None = None,
    names: Iterable[str] | None = None,
    *,
    on_progress: Progress = no_progress,
) -> Geometry:
    """Measure where ingredients lie, reading their files once and never again.

    Args:
        sweep: Where the ingredients are from.
        store: Where inner products are kept; the workspace's unless given.
        names: Which ingredients; all unless given.
        on_progress: Called with elements done and in all; raise in it to stop.
    """
    reference, checkpoints = measured(sweep)
    products = inner_products(reference, checkpoints, store or Store(), on_progress=on_progress)
    return _geometry(sweep, products, sweep.names(names))


def stored_geometry(
    sweep: Sweep, store: Store, names: Iterable[str] | None = None
) -> Geometry | None:
    """Return the geometry if the store has what it takes, else None. Reads no weights."""
    products = stored_inner_products(*measured(sweep), store)
    return None if products is None else _geometry(sweep, products, sweep.names(names))


def measured(sweep: Sweep) -> tuple[Checkpoint, list[Checkpoint]]:
    """Return the reference of a sweep, its base or first ingredient, and all its checkpoints."""
    checkpoints = [ingredient.checkpoint for ingredient in sweep.ingredients.values()]
    return (sweep.base.checkpoint if sweep.base else checkpoints[0]), checkpoints


def _geometry(sweep: Sweep, products: Products, names: Sequence[str]) -> Geometry:
    points = [sweep[name].mixture for name in names]
    everything = [ingredient.mixture for ingredient in sweep.ingredients.values()]
    origin = products.vector(sweep.base.mixture if sweep.base else mean(everything))
    vectors = [difference(products.vector(point), origin) for point in points]
    in_file = list(measured(sweep)[0].tensors)
    order = sorted(range(len(products.tensors)), key=lambda i: in_file.index(products.tensors[i]))
    return Geometry(
        names=tuple(names),
        origin=sweep.base.name if sweep.base else MEAN,
        layers=tuple(products.tensors[i] for i in order),
        gram=products.inner(vectors, vectors)[order],
        origin_squares=products.inner([origin], [origin])[order, 0, 0],
    )


def _norms(gram: Floats) -> Floats:
    return np.sqrt(np.clip(np.diagonal(gram), 0, None))


def _cosines(gram: Floats) -> Floats:
    norms = _norms(gram)
    norms = np.where(norms > 0, norms, np.nan)
    cosines = np.clip(gram / norms[:, None] / norms[None, :], -1, 1)
    np.fill_diagonal(cosines, np.where(np.isnan(norms), np.nan, 1.0))
    return cosines
