import shutil

import numpy as np
import pytest

from soupcore import Store, Sweep, SweepError
from soupcore.connectivity import geometry, stored_distances, stored_geometry
from soupcore.connectivity.geometry import MEAN
from soupcore.inner_products import Floats
from tests.helpers import State
from tests.test_inner_products import WEIGHTS, flat

NAMES = ("run1", "run2", "run10")


@pytest.fixture
def vectors(base_state: State, states: dict[str, State]) -> Floats:
    return np.stack([flat(states[name]) - flat(base_state) for name in NAMES])


def cosine(one: Floats, other: Floats) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_norms_angles_and_distances_are_those_of_dense_vectors(
    sweep: Sweep, store: Store, vectors: Floats
) -> None:
    found = geometry(sweep, store)
    assert (found.names, found.origin) == (NAMES, "base")
    np.testing.assert_allclose(found.norms, np.linalg.norm(vectors, axis=1))
    cosines = [[cosine(a, b) for b in vectors] for a in vectors]
    np.testing.assert_allclose(found.cosines, cosines, atol=1e-12)
    np.testing.assert_allclose(
        found.angles, np.degrees(np.arccos(np.clip(cosines, -1, 1))), atol=1e-5
    )
    apart = [[np.linalg.norm(a - b) for b in vectors] for a in vectors]
    np.testing.assert_allclose(found.distances, apart, atol=1e-7)


def test_layers_are_measured_apart_and_in_the_order_of_the_file(
    sweep: Sweep, store: Store, base_state: State, states: dict[str, State]
) -> None:
    found = geometry(sweep, store)
    in_file = [name for name in sweep["run1"].checkpoint.tensors if name in WEIGHTS]
    assert list(found.layers) == in_file
    for row, layer in enumerate(in_file):
        base = flat(base_state, [layer])
        moves = [flat(states[name], [layer]) - base for name in NAMES]
        norms = np.array([np.linalg.norm(move) for move in moves])
        np.testing.assert_allclose(found.norms_by_layer[row], norms)
        np.testing.assert_allclose(found.moves_by_layer[row], norms / np.linalg.norm(base))
        angles = [np.degrees(np.arccos(np.clip(cosine(moves[1], move), -1, 1))) for move in moves]
        np.testing.assert_allclose(found.angles_by_layer("run2")[row], angles, atol=1e-5)


def test_tensors_of_a_block_together_are_one_layer(
    sweep: Sweep, store: Store, vectors: Floats
) -> None:
    tensors = geometry(sweep, store)
    blocks = tensors.grouped()
    assert blocks.layers == ("0", "1", "3")
    np.testing.assert_allclose(blocks.norms, tensors.norms)
    np.testing.assert_allclose(
        blocks.norms_by_layer[0] ** 2, (tensors.norms_by_layer[:2] ** 2).sum(axis=0)
    )
    np.testing.assert_allclose(blocks.origin_squares.sum(), tensors.origin_squares.sum())


def test_vectors_start_at_the_mean_without_a_base(
    sweep: Sweep, store: Store, states: dict[str, State]
) -> None:
    (sweep.folder / "base.safetensors").unlink()
    found = geometry(Sweep.from_folder(sweep.folder), store)
    weights = np.stack([flat(states[name]) for name in NAMES])
    assert found.origin == MEAN
    np.testing.assert_allclose(
        found.norms, np.linalg.norm(weights - weights.mean(axis=0), axis=1), rtol=1e-6
    )


def test_an_ingredient_that_did_not_move_has_no_angle(sweep: Sweep, store: Store) -> None:
    shutil.copy(sweep.folder / "base.safetensors", sweep.folder / "still.safetensors")
    found = geometry(Sweep.from_folder(sweep.folder), store)
    still = found.names.index("still")
    assert found.norms[still] == 0
    assert np.isnan(found.angles[still]).all()
    assert np.isfinite(np.delete(np.delete(found.angles, still, 0), still, 1)).all()


def test_a_stored_geometry_reads_no_weights_and_is_of_the_names_given(
    sweep: Sweep, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stored_geometry(sweep, store) is None
    computed = geometry(sweep, store)
    monkeypatch.setattr(type(sweep["run1"].checkpoint), "read_elements", None)
    found = stored_geometry(sweep, store, ["run10", "run1"])
    assert found is not None
    assert found.names == ("run1", "run10")
    np.testing.assert_array_equal(found.angles, computed.angles[::2, ::2])
    with pytest.raises(SweepError, match="no usable ingredient 'run3'"):
        stored_geometry(sweep, store, ["run3"])


def test_stored_distances_are_those_of_the_geometry(sweep: Sweep, store: Store) -> None:
    shutil.copy(sweep.folder / "base.safetensors", sweep.folder / "still.safetensors")
    sweep = Sweep.from_folder(sweep.folder)
    assert stored_distances(sweep, store) == {"still": 0.0}
    computed = geometry(sweep, store)
    found = stored_distances(sweep, store)
    assert list(found) == list(sweep.ingredients)
    np.testing.assert_allclose([found[name] for name in computed.names], computed.norms)


def test_distances_from_the_base_are_missing_without_a_base(sweep: Sweep, store: Store) -> None:
    (sweep.folder / "base.safetensors").unlink()
    sweep = Sweep.from_folder(sweep.folder)
    geometry(sweep, store)
    assert stored_distances(sweep, store) == {}
