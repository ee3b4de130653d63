from dataclasses import fields

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from soupcore.connectivity.basins import (
    Basin,
    basin_numbers,
    basins,
    between,
    tight_clusters,
    tree,
)
from soupcore.connectivity.summaries import LineSummary, PairSummaries
from soupcore.inner_products import Floats

NAN = np.nan
NAMES = "abcdefgh"


@st.composite
def matrices(draw: st.DrawFn, least: int = 1) -> Floats:
    size = draw(st.integers(least, len(NAMES)))
    values = draw(arrays(np.float64, (size, size), elements=st.integers(-1, 20).map(float)))
    matrix: Floats = np.triu(values, 1) + np.triu(values, 1).T
    return matrix


def names_of(matrix: Floats) -> list[str]:
    return list(NAMES[: len(matrix)])


@given(matrices(), st.integers(0, 20))
def test_basins_are_the_connected_components(matrix: Floats, threshold: float) -> None:
    names = names_of(matrix)
    graph = nx.Graph()
    graph.add_nodes_from(names)
    edges = [(a, b) for i, a in enumerate(names) for j, b in enumerate(names) if i < j
             and matrix[i, j] <= threshold]  # fmt: skip
    graph.add_edges_from(edges)
    found = basins(names, matrix, threshold)
    expected = {frozenset(members) for members in nx.connected_components(graph)}
    assert {frozenset(basin.names) for basin in found} == expected
    assert [len(basin.names) for basin in found] == sorted(
        (len(basin.names) for basin in found), reverse=True
    )
    for basin in found:
        inside = {(a, b) for a in basin.names for b in basin.names if a < b}
        assert set(basin.apart) == inside - set(edges)


@given(matrices(least=2))
def test_the_tree_is_that_of_scipy_and_joins_neighbours(matrix: Floats) -> None:
    found = tree(names_of(matrix), matrix)
    distances = np.clip(matrix, 0, None)
    joins = linkage(squareform(distances), "single")
    assert sorted(found.order) == names_of(matrix)
    positions, heights = found.branches
    np.testing.assert_allclose(sorted(heights[:, 1]), sorted(joins[:, 2]))
    assert ((positions >= 0) & (positions <= len(matrix) - 1)).all()
    for threshold in (0, 5, 10):
        labels = fcluster(joins, threshold, "distance")
        components = basins(names_of(matrix), distances, threshold)
        assert len(set(labels)) == len(components)
        for basin in components:  # a basin is a stretch of the order
            places = sorted(found.order.index(name) for name in basin.names)
            assert places == list(range(places[0], places[0] + len(places)))


def test_a_chain_is_a_basin_that_lists_pairs_that_are_apart() -> None:
    chain = np.array([[0, 0.1, 0.9], [0.1, 0, 0.1], [0.9, 0.1, 0]])
    (basin,) = basins("abc", chain, 0.1)
    assert basin == Basin(("a", "b", "c"), apart=(("a", "c"),))


def test_a_pair_that_was_not_evaluated_is_neither_connected_nor_apart() -> None:
    matrix = np.array([[0, 0.1, NAN], [0.1, 0, 0.1], [NAN, 0.1, 0]])
    assert basins("abc", matrix, 0.1) == [Basin(("a", "b", "c"), unknown=(("a", "c"),))]
    # It was, and is that of a broken network.
    known = np.ones((3, 3), dtype=bool)
    assert basins("abc", matrix, 0.1, known=known) == [Basin(("a", "b", "c"), apart=(("a", "c"),))]


@given(matrices(least=2), st.integers(0, 20), st.data())
def test_missing_pairs_do_not_change_a_closed_basin(
    matrix: Floats, threshold: float, data: st.DataObject
) -> None:
    names, size = names_of(matrix), len(matrix)
    drawn = np.triu(data.draw(arrays(np.bool_, (size, size))), 1)
    known = drawn | drawn.T | np.eye(size, dtype=bool)
    found = basins(names, np.where(known, matrix, NAN), threshold)
    final = {basin.names for basin in basins(names, matrix, threshold)}
    for basin in found:
        assert not basin.is_closed or basin.names in final
        assert any(set(basin.names) <= set(other) for other in final)
        assert all(not known[names.index(a), names.index(b)] for a, b in basin.unknown)
    assert all(basin.is_closed for basin in found) or not known.all()


def test_missing_pairs_connect_nothing_and_join_last() -> None:
    matrix = np.array([[0, 3, NAN], [3, 0, NAN], [NAN, NAN, 0]])
    assert [basin.names for basin in basins("abc", matrix, 100)] == [("a", "b"), ("c",)]
    _, heights = tree("abc", matrix).branches
    assert heights.max() > 3
    assert tree("ab", np.array([[0, NAN], [NAN, 0]])).branches[1].max() > 0


@pytest.mark.parametrize("names", [[], ["a"]])
def test_fewer_than_two_names_join_nothing(names: list[str]) -> None:
    nothing = np.zeros((len(names), len(names)))
    found = tree(names, nothing)
    assert found.order == tuple(names)
    assert found.branches[0].shape == (0, 4)
    assert [basin.names for basin in basins(names, nothing, 1)] == [(name,) for name in names]


@given(matrices(), st.integers(1, 4), st.data())
def test_the_range_between_groups_is_that_of_their_pairs(
    matrix: Floats, count: int, data: st.DataObject
) -> None:
    names = names_of(matrix)
    places = data.draw(
        st.lists(st.integers(0, count - 1), min_size=len(names), max_size=len(names))
    )
    groups = [[n for n, p in zip(names, places, strict=True) if p == g] for g in {*places}]
    missing = data.draw(arrays(np.bool_, matrix.shape))
    holes = np.triu(missing, 1) | np.triu(missing, 1).T
    values = np.where(holes, NAN, matrix)
    found = between(names, values, groups)
    for i, first in enumerate(groups):
        for j, second in enumerate(groups):
            pairs = [values[names.index(a), names.index(b)] for a in first for b in second]
            finite = [value for value in pairs if not np.isnan(value)]
            expected = (max(finite), min(finite)) if finite else (NAN, NAN)
            assert found.highest[i, j] == pytest.approx(expected[0], nan_ok=True)
            assert found.lowest[i, j] == pytest.approx(0 if i == j else expected[1], nan_ok=True)


@given(matrices(), st.integers(0, 20))
def test_no_pair_within_a_tight_cluster_exceeds_the_threshold(
    matrix: Floats, threshold: int
) -> None:
    names = names_of(matrix)
    found = tight_clusters(names, matrix, threshold)
    assert sorted(name for group in found for name in group) == names
    home = {name: basin.names for basin in basins(names, matrix, threshold) for name in basin.names}
    for group in found:
        rows = [names.index(name) for name in group]
        assert np.clip(matrix[np.ix_(rows, rows)], 0, None).max() <= threshold
        assert {*group} <= {*home[group[0]]}


def test_pairs_that_were_not_evaluated_are_in_no_tight_cluster() -> None:
    values = np.array([[0, 0.1, NAN], [0.1, 0, 0.1], [NAN, 0.1, 0]])
    assert sorted(map(len, tight_clusters("abc", values, 0.1))) == [1, 2]
    assert tight_clusters("a", np.zeros((1, 1)), 0.1) == [("a",)]
    assert tight_clusters("", np.zeros((0, 0)), 0.1) == []


@given(matrices(), st.integers(0, 20), st.data())
def test_basins_are_numbered_in_their_order(
    matrix: Floats, threshold: float, data: st.DataObject
) -> None:
    names = names_of(matrix)
    every = [(a, b) for a in range(len(names)) for b in range(a + 1, len(names))]
    pairs = [pair for pair in every if data.draw(st.booleans())]
    partial = np.full_like(matrix, NAN)
    values = np.zeros((len(pairs), len(fields(LineSummary))))
    barrier = [field.name for field in fields(LineSummary)].index("barrier")
    for row, (a, b) in enumerate(pairs):
        values[row, barrier] = partial[a, b] = partial[b, a] = matrix[a, b]
    flags = np.zeros(len(pairs), dtype=bool)
    at = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    found = basin_numbers(PairSummaries(tuple(names), at, values, ~flags, flags), threshold)
    ordered = basins(names, partial, threshold)
    assert found == {
        name: number
        for number, basin in enumerate(ordered, start=1)
        for name in basin.names
        if len(basin.names) > 1 or basin.is_closed
    }
