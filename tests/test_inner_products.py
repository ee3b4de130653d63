from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from soupcore import Cancelled, Checkpoint, CheckpointError, Store, Sweep
from soupcore import inner_products as module
from soupcore.inner_products import (
    Floats,
    difference,
    inner_products,
    stored_inner_products,
    weight_tensors,
)
from tests.helpers import State, any_tensor

Make = Callable[[Mapping[str, Tensor]], Checkpoint]
WEIGHTS = ["0.bias", "0.weight", "1.bias", "1.weight", "3.bias", "3.weight"]


def flat(state: Mapping[str, Tensor], names: list[str] = WEIGHTS) -> Floats:
    return np.concatenate([state[name].double().flatten().numpy() for name in names])


@pytest.fixture(params=[1 << 23, 1])
def _block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", request.param)


@pytest.mark.usefixtures("_block")
def test_inner_products_are_those_of_dense_vectors(
    sweep: Sweep, base_state: State, states: dict[str, State], store: Store
) -> None:
    assert sweep.base is not None
    others = [sweep[name].checkpoint for name in states]
    found = inner_products(sweep.base.checkpoint, others, store)
    base = flat(base_state)
    rows = np.stack([base, *(flat(state) - base for state in states.values())])
    assert found.tensors == tuple(WEIGHTS)
    np.testing.assert_allclose(found.values.sum(axis=0), rows @ rows.T, rtol=1e-12, atol=1e-15)
    bias = np.stack([base_state["3.bias"], *(s["3.bias"] - base_state["3.bias"] for s in
                    states.values())]).astype(np.float64)  # fmt: skip
    np.testing.assert_allclose(found.values[4], bias @ bias.T, rtol=1e-5)


def test_inner_products_of_mixtures_are_those_of_their_weights(
    sweep: Sweep, base_state: State, states: dict[str, State], store: Store
) -> None:
    assert sweep.base is not None
    others = [sweep[name].checkpoint for name in states]
    found = inner_products(sweep.base.checkpoint, others, store)
    third = Fraction(1, 3)
    one = sweep.mixture({"run1": third, "run2": third, "run10": third})
    other = sweep.mixture({"base": 2, "run2": -0.5})  # sums to 1.5
    weights = [
        np.mean([flat(state) for state in states.values()], axis=0),
        2 * flat(base_state) - flat(states["run2"]) / 2,
    ]
    vectors = [found.vector(one), found.vector(other)]
    np.testing.assert_allclose(
        found.inner(vectors, vectors).sum(axis=0), np.array(weights) @ np.array(weights).T
    )
    apart = difference(*vectors)
    np.testing.assert_allclose(
        found.inner([apart], [apart]).sum(), ((weights[0] - weights[1]) ** 2).sum()
    )


def test_a_difference_is_exact_and_zero_for_equal_points(sweep: Sweep, store: Store) -> None:
    assert sweep.base is not None
    found = inner_products(sweep.base.checkpoint, [sweep["run1"].checkpoint], store)
    point = found.vector(sweep.mixture({"run1": 0.1, "base": 0.9}))
    assert set(difference(point, point).values()) == {Fraction(0)}
    with pytest.raises(KeyError):
        found.vector(sweep["run2"].mixture)


def test_computed_products_are_stored_by_digest_and_not_computed_again(
    sweep: Sweep, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, one, two = (sweep[name].checkpoint for name in ("base", "run1", "run2"))
    assert stored_inner_products(base, [one], store) is None
    computed = inner_products(base, [one, two, one, base], store)
    assert computed.digests == (base.digest, one.digest, two.digest)
    monkeypatch.setattr(type(one), "read_elements", None)
    part = inner_products(base, [two], store)
    assert (part.values == computed.values[:, ::2, ::2]).all()
    again = stored_inner_products(base, [two, one], store)
    assert again is not None
    assert (again.values == computed.values[:, [0, 2, 1]][:, :, [0, 2, 1]]).all()
    assert stored_inner_products(one, [two], store) is None
    assert stored_inner_products(base, [sweep["run10"].checkpoint], store) is None


def test_optional_checkpoints_without_stored_products_are_left_out(
    sweep: Sweep, store: Store
) -> None:
    base, one, two, ten = (sweep[n].checkpoint for n in ("base", "run1", "run2", "run10"))
    inner_products(base, [one, two], store)
    computed = inner_products(base, [one, ten], store)
    found = stored_inner_products(base, [one], store, optional=[two, ten, one])
    assert found is not None
    assert found.digests == (base.digest, one.digest, two.digest)  # two and ten never met
    assert found.covers(sweep.mixture({"run1": 0.5, "run2": 0.5}))
    assert not found.covers(sweep["run10"].mixture)
    found = stored_inner_products(base, [one], store, optional=[ten])
    assert found is not None
    assert (found.values == computed.values).all()
    assert stored_inner_products(base, [one, two, ten], store, optional=[two]) is None


def test_small_moves_from_large_weights_are_measured_exactly(
    checkpoint_of: Make, store: Store
) -> None:
    large = torch.full((5000,), 1000.0, dtype=torch.float64)
    step = torch.linspace(-1e-6, 1e-6, 5000, dtype=torch.float64)
    found = inner_products(checkpoint_of({"w": large}), [checkpoint_of({"w": large + step})], store)
    moved = ((large + step) - large).numpy()
    assert found.values[0, 1, 1] == pytest.approx(moved @ moved, rel=1e-12)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.float8_e4m3fn]
)
def test_every_dtype_of_weights_is_measured(
    checkpoint_of: Make, store: Store, dtype: torch.dtype
) -> None:
    one, other = (any_tensor(dtype, 7, 3, seed=seed) for seed in range(2))
    found = inner_products(checkpoint_of({"w": one}), [checkpoint_of({"w": other})], store)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    apart = (other.to(wide) - one.to(wide)).abs().square().sum()
    assert found.values[0, 1, 1] == pytest.approx(float(apart))


def test_statistics_and_counters_are_no_weights(sweep: Sweep) -> None:
    assert list(weight_tensors(sweep["run1"].checkpoint)) == WEIGHTS


def test_checkpoints_that_do_not_fit_are_refused(checkpoint_of: Make, store: Store) -> None:
    one, other = checkpoint_of({"w": torch.ones(2)}), checkpoint_of({"w": torch.ones(3)})
    with pytest.raises(CheckpointError, match="has shape"):
        inner_products(one, [other], store)


def test_progress_goes_to_the_end_and_may_stop_the_work(sweep: Sweep, store: Store) -> None:
    base, one = sweep["base"].checkpoint, sweep["run1"].checkpoint
    reports: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        inner_products(base, [one], store, on_progress=stop)
    assert stored_inner_products(base, [one], store) is None
    inner_products(base, [one], store, on_progress=lambda *report: reports.append(report))
    assert reports[-1][0] == reports[-1][1] == flat(one.state_dict()).size
