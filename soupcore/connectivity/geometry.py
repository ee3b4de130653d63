"""Weight geometry: norms of and angles between task vectors, and distances, also by layer.

A task vector is the difference between fine-tuned weights and the base (Ilharco et al. 2023,
arXiv:2212.04089). In a sweep without a base, the mean of the ingredients takes its place.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.names import layer_of
from soupcore.display import number
from soupcore.inner_products import (
    Floats,
    Products,
    difference,
    inner_products,
    stored_inner_products,
)
from soupcore.mixtures import mean
from soupcore.progress import Progress, no_progress, with_bar
from soupcore.sweeps import Sweep

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from soupcore.store import Store

MEAN = "the mean of the ingredients"


@dataclass(frozen=True)
class Geometry:
    """Inner products of task vectors, layer by layer.

    Attributes:
        names: Names of the k ingredients.
        origin: Name of the origin of the vectors: the base, or "the mean of the ingredients".
        layers: Names of the L layers.
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
        """The distances by layer, relative to the norm of the origin in that layer [L, k].

        NaN if that norm is 0.
        """
        norms = np.sqrt(self.origin_squares)
        shares: Floats = self.norms_by_layer / np.where(norms > 0, norms, np.nan)[:, None]
        return shares

    def angles_by_layer(self, name: str) -> Floats:
        """Return the angles to one ingredient's task vector in each layer, in degrees [L, k]."""
        index = self.names.index(name)
        return np.degrees(np.arccos([_cosines(gram)[index] for gram in self.gram]))

    def grouped(self) -> "Geometry":
        """Return the geometry with all tensors of a block as one layer (see `layer_of`)."""
        blocks = [layer_of(layer) for layer in self.layers]
        names = tuple(dict.fromkeys(blocks))
        member = np.array([[block == name for block in blocks] for name in names], dtype=float)
        return Geometry(
            self.names,
            self.origin,
            names,
            np.einsum("bl,lij->bij", member, self.gram),
            member @ self.origin_squares,
        )

    def figure(self, *, by_layer: bool = False) -> "go.Figure":
        """Draw the distance of each ingredient from the origin.

        Args:
            by_layer: Whether to draw a heat map by block instead, in percent of the block's norm.
        """
        from soupcore import figures  # loads Plotly

        if not by_layer:
            return figures.norm_bars(self, figures.ingredient_colours(self.names))
        blocks = self.grouped()
        values, title = blocks.moves_by_layer * 100, "% of the block's norm"
        return figures.layer_heatmap(
            blocks.layers, blocks.names, values, title=title, unit=" %", decimals=1
        )

    def to_frame(self) -> "pd.DataFrame":
        """Return one row per ingredient and layer: distance, and that relative to the origin."""
        import pandas as pd

        cells = pd.MultiIndex.from_product([self.names, self.layers], names=["ingredient", "layer"])
        columns = {
            "distance": self.norms_by_layer.T.ravel(),
            "relative distance": self.moves_by_layer.T.ravel(),
        }
        return pd.DataFrame(columns, index=cells).reset_index()

    def __repr__(self) -> str:
        norms = self.norms
        return (
            f"Geometry({len(self.names)} ingredients, {len(self.layers)} layers, "
            f"distance from {self.origin} {number(norms.min())} to {number(norms.max())})"
        )


@with_bar("Geometry")
def geometry(
    sweep: Sweep,
    store: "Store | None" = None,
    names: Iterable[str] | None = None,
    *,
    on_progress: Progress = no_progress,
    progress: bool = True,
) -> Geometry:
    """Compute the weight geometry. Each file is read only once, since inner products are stored.

    Args:
        sweep: The sweep.
        store: Store of the inner products; by default, that of the workspace.
        names: Ingredients to use; by default, all.
        on_progress: Called with the number of elements done and in total. Raise in it to cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.
    """
    from soupcore.store import Store  # loads SQLAlchemy

    reference, checkpoints = reference_and_checkpoints(sweep)
    products = inner_products(reference, checkpoints, store or Store(), on_progress=on_progress)
    return _geometry(sweep, products, sweep.names(names))


def stored_geometry(
    sweep: Sweep, store: "Store", names: Iterable[str] | None = None
) -> Geometry | None:
    """Return the geometry from stored inner products, or None. Reads no weights."""
    products = stored_inner_products(*reference_and_checkpoints(sweep), store)
    return None if products is None else _geometry(sweep, products, sweep.names(names))


def stored_distances(sweep: Sweep, store: "Store") -> dict[str, float]:
    """Return the distances of ingredients from the base, as far as they are stored.

    Takes time proportional to the number of ingredients, unlike `stored_geometry`.

    Returns:
        `{name: distance}`; empty for a sweep without a base.
    """
    if sweep.base is None:
        return {}
    base = sweep.base.digest
    squares = store.squares(base, [i.digest for i in sweep.ingredients.values()])
    # The vector of an ingredient is its difference from the base.
    distances = {digest: float(np.sqrt(by_tensor.sum())) for digest, by_tensor in squares.items()}
    distances[base] = 0.0
    return {
        name: distances[ingredient.digest]
        for name, ingredient in sweep.ingredients.items()
        if ingredient.digest in distances
    }


def reference_and_checkpoints(sweep: Sweep) -> tuple[Checkpoint, list[Checkpoint]]:
    """Return the reference of a sweep (its base or first ingredient) and all its checkpoints."""
    checkpoints = [ingredient.checkpoint for ingredient in sweep.ingredients.values()]
    return (sweep.base.checkpoint if sweep.base else checkpoints[0]), checkpoints


def _geometry(sweep: Sweep, products: Products, names: Sequence[str]) -> Geometry:
    points = [sweep[name].mixture for name in names]
    mixtures = [ingredient.mixture for ingredient in sweep.ingredients.values()]
    origin = products.vector(sweep.base.mixture if sweep.base else mean(mixtures))
    vectors = [difference(products.vector(point), origin) for point in points]
    in_file = list(reference_and_checkpoints(sweep)[0].tensors)
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
