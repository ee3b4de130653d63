import numpy as np
import pytest
import scipy
import torch
from hypothesis import given
from hypothesis import strategies as st

from soupcore import dare, uniform
from soupcore.merges.dare import Combine
from tests.helpers import State, held_sweep, same_weights
from tests.recipes.states import DTYPES, close, fine_tuned, flat, sweeps, task_vectors

N = 200_000


def ones(k: int, names: tuple[str, ...] = ("w",)) -> tuple[State, dict[str, State]]:
    """Task vectors of nothing but ones."""
    base = {name: torch.zeros(N) for name in names}
    return base, {
        f"run{i}": {name: torch.ones(N) for name in names} | {"id": torch.tensor([float(i)])}
        for i in range(k)
    }


def dropped(p: float, k: int = 1, seed: int = 0, names: tuple[str, ...] = ("w",)) -> State:
    base, states = ones(k, names)
    sweep = held_sweep(states, base | {"id": torch.zeros(1)})
    return dare(sweep, drop=p, seed=seed, combine="sum").state_dict()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9, 0.99])
def test_each_entry_is_dropped_with_probability_p_and_the_rest_rescaled(p: float) -> None:
    found = dropped(p)["w"]
    kept = found != 0
    p = round(p * 2**16) / 2**16  # as fine as the random numbers are
    torch.testing.assert_close(found[kept], torch.full_like(found[kept], 1 / (1 - p)))
    test = scipy.stats.binomtest(int(kept.sum()), N, 1 - p)
    assert test.pvalue > 1e-3
    # Neighbours, and entries a piece apart, are dropped independently of each other.
    for distance in (1, 2, 16, 1 << 14, 1 << 15):
        first = torch.arange(N - distance)
        first = first[first // distance % 2 == 0]  # no entry in two pairs
        both = kept[first] & kept[first + distance]
        assert scipy.stats.binomtest(int(both.sum()), len(first), (1 - p) ** 2).pvalue > 1e-3


def test_dropped_entries_depend_on_seed_ingredient_and_name() -> None:
    first = dropped(0.5)["w"]
    assert torch.equal(first, dropped(0.5)["w"])
    others = [dropped(0.5, seed=1)["w"], dropped(0.5, names=("v",))["v"]]
    two = dropped(0.5, k=2)["w"]  # 0, 2 or 4 where the two are independent
    for other in others:
        assert 0.49 < float((first == other).float().mean()) < 0.51
    counts = [int((two == value).sum()) for value in (0, 2, 4)]
    assert scipy.stats.chisquare(counts, [N / 4, N / 2, N / 4]).pvalue > 1e-3


def test_different_entries_of_duplicate_weights_are_dropped() -> None:
    base, states = {"w": torch.zeros(N)}, {"w": torch.ones(N)}
    found = dare(held_sweep({"a": states, "b": states}, base), combine="sum").state_dict()["w"]
    assert set(found.tolist()) == {0, 2, 4}


@given(sweeps(), st.sampled_from(["mean", "sum", "ties"]))
def test_dare_that_drops_nothing_is_task_arithmetic(
    case: tuple[State, dict[str, State]], combine: Combine
) -> None:
    base, states = case
    soup = dare(held_sweep(states, base), drop=0, combine=combine, scale=0.5)
    vectors = task_vectors(base, states)
    if combine == "ties":
        sign = np.sign(vectors.sum(0))
        sign[sign == 0] = 1 if sign.sum() >= 0 else -1
        agree = np.sign(vectors) == sign
        merged = (vectors * agree).sum(0) / np.maximum(agree.sum(0), 1)
    else:
        merged = vectors.sum(0) / (len(vectors) if combine == "mean" else 1)
    close(soup.state_dict(), base, flat(base) + 0.5 * merged)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dare_by_the_mean_is_the_uniform_soup_on_average(dtype: torch.dtype) -> None:
    base, states = fine_tuned(2, 3, dtype)
    sweep = held_sweep(states, base)
    runs = [flat(dare(sweep, drop=0.5, seed=seed).state_dict()) for seed in range(30)]
    mean = flat(uniform(sweep).state_dict())
    # The spread of one entry is that of its task vectors, 0.05 · √(p/(1−p)/3) for 30 runs.
    error = np.abs(np.mean(runs, axis=0) - mean)
    assert error.mean() < 2 * 0.05 / np.sqrt(3 * 30)
    assert np.std(runs, axis=0).mean() > 0.01


def test_scale_zero_is_the_base_and_equal_votes_are_settled() -> None:
    base, states = fine_tuned(3, 3)
    sweep = held_sweep(states, base)
    for combine in ("mean", "sum", "ties"):
        found = dare(sweep, scale=0, combine=combine).state_dict()
        found["counter"] = base["counter"]
        assert same_weights(found, base)
