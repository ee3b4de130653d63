"""Which ingredients share a basin: those that lines without a barrier lead between.

Two ingredients are taken to be in one basin when a chain of lines, each with a barrier up to the
threshold, leads from one to the other. That is single linkage: the tree's branches that join below
the threshold are exactly the basins. A chain does not say that its two ends have no barrier between
them, so the pairs of a basin that do are listed with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its submodules load when they are first used

from soupcore.connectivity.bracket import Floats

_ABOVE = 1.1  # where a pair that is not known joins, over the highest that is


@dataclass(frozen=True)
class Basin:
    """Ingredients that share a basin.

    Attributes:
        names: In the order of the sweep.
        apart: The pairs of them between which the barrier is above the threshold, or not known.
    """

    names: tuple[str, ...]
    apart: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Tree:
    """How names join, the nearest first.

    Attributes:
        order: The names, those that join early beside each other.
        branches: Of each join the four corners of its bracket: positions in `order` (0 for the
            first) and heights, two arrays of shape [k − 1, 4].
    """

    order: tuple[str, ...]
    branches: tuple[Floats, Floats]


def tree(names: Sequence[str], apart: Floats) -> Tree:
    """Return the single-linkage tree of names.

    Args:
        names: What to join, k of them.
        apart: How far apart they are, shape [k, k], symmetric. Negative counts as 0; what is NaN
            joins above all others.
    """
    if len(names) < 2:
        nothing = np.empty((0, 4))
        return Tree(tuple(names), (nothing, nothing))
    known = apart[np.isfinite(apart)].max(initial=0.0)
    distances = np.clip(np.where(np.isfinite(apart), apart, known * _ABOVE or 1.0), 0, None)
    np.fill_diagonal(distances, 0.0)
    hierarchy = scipy.cluster.hierarchy
    between = scipy.spatial.distance.squareform(distances, checks=False)
    joins = hierarchy.linkage(between, "single", optimal_ordering=True)
    drawn = hierarchy.dendrogram(joins, no_plot=True)
    # SciPy puts the leaves at 5, 15, 25 and so on.
    positions = (np.array(drawn["icoord"]) - 5) / 10
    order = tuple(names[leaf] for leaf in hierarchy.leaves_list(joins).tolist())
    return Tree(order, (positions, np.array(drawn["dcoord"])))


def basins(names: Sequence[str], barriers: Floats, threshold: float) -> list[Basin]:
    """Return the basins, the largest first; a name that no line leads to is one by itself.

    Args:
        names: The ingredients, k of them.
        barriers: The barriers between them, shape [k, k], symmetric; NaN is no connection.
        threshold: Up to which barrier two are connected.
    """
    connected = barriers <= threshold
    _, labels = scipy.sparse.csgraph.connected_components(connected, directed=False)
    found = []
    for label in dict.fromkeys(labels.tolist()):
        members = np.flatnonzero(labels == label).tolist()
        apart = tuple(
            (names[i], names[j])
            for number, i in enumerate(members)
            for j in members[number + 1 :]
            if not connected[i, j]
        )
        found.append(Basin(tuple(names[i] for i in members), apart))
    return sorted(found, key=lambda basin: -len(basin.names))
