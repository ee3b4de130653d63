import math
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from soupcore import mergekit_config, model_stock, slerp, uniform
from soupcore.recipes.model_stock import Similarity
from tests.helpers import State, held_sweep, same_weights
from tests.recipes.states import DTYPES, close, fine_tuned, flat, sweeps


def stock(base: State, states: dict[str, State], similarity: str) -> dict[str, torch.Tensor]:
    """Model Stock of the paper, tensor by tensor, in float64."""
    found = {}
    for name, origin in base.items():
        if not origin.is_floating_point():
            continue
        weights = [state[name].double().flatten() for state in states.values()]
        vectors = [weight - origin.double().flatten() for weight in weights]
        cosines = [
            float(torch.cosine_similarity(vectors[i], vectors[j], dim=0).clamp(-1, 1))
            for i in range(len(vectors))
            for j in range(i)
            if vectors[i].any() and vectors[j].any()
        ]
        mean = sum(weights) / len(weights)
        if cosines:
            angle = float(np.mean(np.arccos(cosines)))
            cosine = math.cos(angle) if similarity == "angle" else float(np.mean(cosines))
            k = len(weights)
            t = min(max(k * cosine / (1 + (k - 1) * cosine), 0), 1) if cosine > 0 else 0
        else:
            t = 1
        found[name] = (t * mean + (1 - t) * origin.double().flatten()).reshape(origin.shape)
    return found


@given(sweeps(), st.sampled_from(["angle", "cosine"]))
def test_model_stock_is_the_papers_formula(
    case: tuple[State, dict[str, State]], similarity: Similarity
) -> None:
    base, states = case
    soup = model_stock(held_sweep(states, base), similarity=similarity)
    close(soup.state_dict(), base, flat(stock(base, states, similarity)))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize("similarity", ["angle", "cosine"])
def test_model_stock_of_long_tensors(
    dtype: torch.dtype, similarity: Literal["angle", "cosine"]
) -> None:
    base, states = fine_tuned(1, 3, dtype)
    for state in states.values():  # a common direction, as fine-tuned networks have
        state["head"] += torch.linspace(0, 0.2, 40_000).to(dtype)
    soup = model_stock(held_sweep(states, base), similarity=similarity)
    found = torch.from_numpy(flat(soup.state_dict()))
    tolerance = max(torch.finfo(dtype).eps, 1e-8)  # coefficients have nine decimal places
    expected = torch.from_numpy(flat(stock(base, states, similarity)))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_one_ingredient_stays_as_it_is_and_opposite_ones_give_the_base() -> None:
    base, states = fine_tuned(2, 1)
    assert same_weights(model_stock(held_sweep(states, base)).state_dict(), states["run1"])
    opposite = {
        "a": {"w": torch.tensor([1.0, 1.0, 3.0])},
        "b": {"w": torch.tensor([1.0, 3.0, 1.0])},
    }
    center = {"w": torch.tensor([1.0, 2.0, 2.0])}
    assert same_weights(model_stock(held_sweep(opposite, center)).state_dict(), center)


def test_tensors_that_nobody_changed_stay() -> None:
    base, states = fine_tuned(3, 3)
    for state in states.values():
        state["head"] = base["head"].clone()
    found = model_stock(held_sweep(states, base)).state_dict()
    assert torch.equal(found["head"], base["head"])


def great_circle(one: torch.Tensor, other: torch.Tensor, t: float) -> torch.Tensor:
    """Shoemake's formula in float64."""
    a, b = one.double().flatten(), other.double().flatten()
    norms = a.norm() * b.norm()
    cosine = float(a @ b / norms) if norms else 1.0
    if abs(cosine) > 0.9995:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


@given(sweeps(least=2), st.integers(0, 10))
def test_slerp_is_shoemakes_formula(case: tuple[State, dict[str, State]], tenths: int) -> None:
    base, states = case
    one, other = states["run1"], states["run2"]
    sweep = held_sweep({"run1": one, "run2": other})
    t = tenths / 10
    floats = [name for name, tensor in one.items() if tensor.is_floating_point()]
    by_tensor = [great_circle(one[name], other[name], t) for name in floats]
    close(slerp(sweep, t=t).state_dict(), base, torch.cat(by_tensor).numpy())
    whole = great_circle(torch.from_numpy(flat(one)), torch.from_numpy(flat(other)), t)
    close(slerp(sweep, t=t, whole=True).state_dict(), base, whole.numpy())


def test_slerp_keeps_the_norm_and_its_ends_are_the_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    states = {}
    for name in "ab":
        vector = torch.randn(1000, generator=generator, dtype=torch.float64)
        states[name] = {"w": vector / vector.norm()}
    sweep = held_sweep(states)
    assert float(slerp(sweep).state_dict()["w"].norm()) == pytest.approx(1)
    assert float(uniform(sweep).state_dict()["w"].norm()) < 0.8
    assert same_weights(slerp(sweep, t=0).state_dict(), states["a"])
    assert same_weights(slerp(sweep, t=1).state_dict(), states["b"])
    assert mergekit_config(slerp(sweep, whole=True)) is None
