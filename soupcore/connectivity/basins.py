"""Basins: groups of ingredients that are connected by lines without a barrier.

Two ingredients share a basin if a chain of pairs connects them and every barrier on it is at or
below the threshold. This is single linkage, so basins are the branches of the dendrogram that join
below the threshold. The two ends of a chain may still have a barrier between them. Such pairs are
listed with the basin.

A pair that was not evaluated is neither connected nor apart. While pairs are missing, basins may
still merge. A basin is final when all pairs that lead out of it were evaluated.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy  # its submodules load when they are first used

from soupcore.connectivity.path import Pair
from soupcore.inner_products import Floats

if TYPE_CHECKING:
    from soupcore.connectivity.summaries import PairSummaries

CONNECTED = 0.1  #: default of the largest loss barrier between connected ingredients

_ABOVE = 1.1  # height at which missing pairs join, relative to the highest known value


@dataclass(frozen=True)
class Basin:
    """Ingredients that share a basin.

    Attributes:
        names: Names in the order of the sweep.
        apart: Pairs within the basin with a barrier above the threshold.
        unknown: Pairs within the basin that were not evaluated.
        is_closed: Whether all pairs that lead out of the basin were evaluated, so that it is final.
    """

    names: tuple[str, ...]
    apart: tuple[Pair, ...] = ()
    unknown: tuple[Pair, ...] = ()
    is_closed: bool = True


@dataclass(frozen=True)
class Tree:
    """A dendrogram.

    Attributes:
        order: The names, such that names that join early are adjacent.
        branches: The four corners of the bracket of each join: positions in `order` (starting at
            0) and heights, two arrays of shape [k − 1, 4].
    """

    order: tuple[str, ...]
    branches: tuple[Floats, Floats]


def tree(names: Sequence[str], apart: Floats) -> Tree:
    """Return the single-linkage tree of names.

    Args:
        names: k names.
        apart: Distances, shape [k, k], symmetric. Negative values count as 0. Names with NaN join
            above all others.
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


def tight_clusters(
    names: Sequence[str], barriers: Floats, threshold: float
) -> list[tuple[str, ...]]:
    """Return groups within which no pair has a barrier above a threshold, the largest first.

    This is complete linkage: unlike a basin, a tight cluster needs no chain. Pairs with NaN count
    as above the threshold.

    Args:
        names: Names of the k ingredients.
        barriers: Barriers, shape [k, k], symmetric.
        threshold: Largest barrier within a cluster, at least 0.
    """
    if len(names) < 2:
        return [tuple(names)] if names else []
    above = 2 * max(threshold, np.nanmax(barriers, initial=0.0)) + 1
    distances = np.clip(np.where(np.isfinite(barriers), barriers, above), 0, None)
    np.fill_diagonal(distances, 0.0)
    hierarchy = scipy.cluster.hierarchy
    joins = hierarchy.linkage(
        scipy.spatial.distance.squareform(distances, checks=False), "complete"
    )
    labels = hierarchy.fcluster(joins, threshold, criterion="distance").tolist()
    groups: dict[int, list[str]] = {}
    for name, label in zip(names, labels, strict=True):
        groups.setdefault(label, []).append(name)
    return sorted(map(tuple, groups.values()), key=lambda group: -len(group))


@dataclass(frozen=True)
class Between:
    """The range of a pairwise value between groups of names.

    Attributes:
        highest: Largest value between two groups, and within one on the diagonal, shape [g, g];
            NaN without a finite one, 0 within a group of one name.
        lowest: Smallest value between two groups, likewise; 0 on the diagonal.
    """

    highest: Floats
    lowest: Floats


def between(names: Sequence[str], values: Floats, groups: Sequence[Iterable[str]]) -> Between:
    """Return the range of a pairwise value between groups of names.

    Args:
        names: k names.
        values: Shape [k, k], symmetric, 0 on the diagonal; NaN if a pair was not evaluated.
        groups: g disjoint groups of names, none of them empty.
    """
    index = {name: place for place, name in enumerate(names)}
    rows = [[index[name] for name in group] for group in groups]

    def reduced(best: np.ufunc, start: float) -> Floats:
        filled = np.where(np.isnan(values), start, values)
        by_row = np.array([best.reduce(filled[members], axis=0) for members in rows])
        both: Floats = np.array([best.reduce(by_row[:, members], axis=1) for members in rows])
        return np.where(np.isinf(both), np.nan, both)

    highest, lowest = reduced(np.maximum, -np.inf), reduced(np.minimum, np.inf)
    np.fill_diagonal(lowest, 0.0)
    return Between(highest, lowest)


def basins(
    names: Sequence[str],
    barriers: Floats,
    threshold: float,
    *,
    known: npt.NDArray[np.bool_] | None = None,
) -> list[Basin]:
    """Return the basins, the largest first. An isolated ingredient is a basin of its own.

    Args:
        names: Names of the k ingredients.
        barriers: Barriers, shape [k, k], symmetric. NaN means not connected.
        threshold: Largest barrier between connected ingredients.
        known: Whether each pair was evaluated, shape [k, k] (see `Barriers.known`); by default,
            the pairs whose barrier is not NaN.
    """
    known = ~np.isnan(barriers) if known is None else known
    connected = known & (barriers <= threshold)
    _, labels = scipy.sparse.csgraph.connected_components(connected, directed=False)
    found = []
    for label in dict.fromkeys(labels.tolist()):
        members = np.flatnonzero(labels == label)
        inside = members[np.stack(np.triu_indices(len(members), k=1), axis=1)]
        is_known, is_connected = known[tuple(inside.T)], connected[tuple(inside.T)]
        found.append(
            Basin(
                names=tuple(names[i] for i in members.tolist()),
                apart=_named(names, inside[is_known & ~is_connected]),
                unknown=_named(names, inside[~is_known]),
                is_closed=bool(known[np.ix_(labels == label, labels != label)].all()),
            )
        )
    return sorted(found, key=lambda basin: -len(basin.names))


def basin_numbers(pairs: "PairSummaries", threshold: float = CONNECTED) -> dict[str, int]:
    """Return the number of each ingredient's basin, in the order of `basins`: 1 is the largest.

    Takes time proportional to the number of stored pairs. Ingredients that are connected to none
    are left out while pairs of theirs are missing, because they may still join a basin.

    Args:
        pairs: The stored summaries of pairs.
        threshold: Largest loss barrier between connected ingredients.
    """
    k = len(pairs.names)
    connected = pairs.pairs[pairs.column("barrier") <= threshold]
    graph = scipy.sparse.coo_array(
        (np.ones(len(connected)), (connected[:, 0], connected[:, 1])), shape=(k, k)
    )
    _, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    sizes = np.bincount(labels, minlength=1)
    by_size = sorted(dict.fromkeys(labels.tolist()), key=lambda label: -sizes[label])
    numbers = {label: index for index, label in enumerate(by_size, start=1)}
    known = np.bincount(pairs.pairs.ravel(), minlength=k)
    placed = np.flatnonzero((sizes[labels] > 1) | (known == k - 1)).tolist()
    return {pairs.names[i]: numbers[int(labels[i])] for i in placed}


def _named(names: Sequence[str], pairs: npt.NDArray[np.int64]) -> tuple[Pair, ...]:
    return tuple((names[i], names[j]) for i, j in pairs.tolist())
