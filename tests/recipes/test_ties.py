from collections import OrderedDict
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from soupcore import CheckpointError, RecipeError, ties, uniform
from soupcore.merges.ties import kth_largest
from tests.helpers import State, held_sweep, same_bits, same_weights
from tests.recipes.states import DTYPES, Floats, close, fine_tuned, flat, sweeps, task_vectors


def dense(
    base: State,
    states: dict[str, State],
    density: float,
    scale: float,
    vote: str = "magnitude",
    tie: str = "majority",
) -> Floats:
    """Algorithm 1 of the paper on whole vectors."""
    vectors = task_vectors(base, states)
    keep = max(1, int(round(density * vectors.shape[1], 6)))
    for row in vectors:
        row[np.abs(row) < np.sort(np.abs(row))[-keep]] = 0
    votes = (np.sign(vectors) if vote == "count" else vectors).sum(0)
    sign = np.sign(votes)
    sign[votes == 0] = 1 if tie == "positive" or sign.sum() >= 0 else -1
    agree = np.sign(vectors) == sign
    merged = (vectors * agree).sum(0) / np.maximum(agree.sum(0), 1)
    expected: Floats = flat(base) + scale * merged
    return expected


@given(
    sweeps(),
    st.sampled_from([0.001, 0.1, 0.2, 0.5, 0.9, 1]),
    st.sampled_from([0.0, 0.8, 1, 2.5]),
    st.sampled_from(["magnitude", "count"]),
    st.sampled_from(["majority", "positive"]),
)
def test_ties_is_the_papers_algorithm(
    case: tuple[State, dict[str, State]],
    density: float,
    scale: float,
    vote: Literal["magnitude", "count"],
    tie: Literal["majority", "positive"],
) -> None:
    base, states = case
    soup = ties(held_sweep(states, base), density=density, scale=scale, vote=vote, tie=tie)
    close(soup.state_dict(), base, dense(base, states, density, scale, vote, tie))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("density", [0.2, 0.03])
def test_ties_of_tensors_longer_than_what_is_computed_at_a_time(
    dtype: torch.dtype, density: float
) -> None:
    base, states = fine_tuned(5, 3, dtype)
    soup = ties(held_sweep(states, base), density=density)
    close(soup.state_dict(), base, dense(base, states, density, 1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_trimmed_tensor_by_tensor_it_is_ties_of_each_tensor(dtype: torch.dtype) -> None:
    base, states = fine_tuned(6, 4, dtype)
    found = ties(held_sweep(states, base), trim="tensor").state_dict()
    for name in base:
        if base[name].is_floating_point() and base[name].numel():
            alone = {run: {name: state[name]} for run, state in states.items()}
            expected = ties(held_sweep(alone, {name: base[name]})).state_dict()
            assert same_bits(found[name], expected[name])


@pytest.mark.parametrize("grid", [None, 2])
@pytest.mark.parametrize("trim", ["global", "tensor"])
def test_thresholds_guessed_from_a_sample_are_the_exact_ones(
    grid: int | None, trim: Literal["global", "tensor"], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, states = fine_tuned(11, 3, grid=grid, shapes={"w": (50_000,), "v": (9, 1000)})
    sweep = held_sweep(states, base)
    monkeypatch.setattr("soupcore.merges.ties._SAMPLE", 1 << 30)
    exact = ties(sweep, density=0.1, trim=trim).state_dict()
    monkeypatch.setattr("soupcore.merges.ties._SAMPLE", 1 << 12)
    monkeypatch.setattr("soupcore.merges.task_vectors._known", OrderedDict())
    assert same_weights(ties(sweep, density=0.1, trim=trim).state_dict(), exact)


def test_dtypes_that_differ_are_trimmed_together() -> None:
    base, states = fine_tuned(7, 3)
    for state in (base, *states.values()):
        state["head"] = state["head"].double()
        state["block.weight"] = state["block.weight"].bfloat16()
    soup = ties(held_sweep(states, base)).state_dict()
    expected = dense(base, states, 0.2, 1)
    n = base["block.weight"].numel()
    np.testing.assert_allclose(flat(soup)[:n], expected[:n], rtol=2**-7)
    np.testing.assert_allclose(flat(soup)[n:], expected[n:], rtol=1e-6, atol=1e-7)


@given(sweeps())
def test_ties_of_scale_zero_is_the_base_and_of_one_ingredient_that_ingredient(
    case: tuple[State, dict[str, State]],
) -> None:
    base, states = case
    sweep = held_sweep(states, base)
    nothing = ties(sweep, scale=0).state_dict()
    one = ties(sweep, ["run1"], density=1).state_dict()
    for name, tensor in base.items():
        if tensor.is_floating_point():
            assert torch.equal(nothing[name], tensor)
            torch.testing.assert_close(one[name], states["run1"][name])
    assert torch.equal(nothing["counter"], ties(sweep).state_dict()["counter"])


@given(sweeps(least=2))
def test_ties_with_all_entries_and_equal_signs_is_the_mean(
    case: tuple[State, dict[str, State]],
) -> None:
    base, states = case
    for state in states.values():
        for name, tensor in state.items():
            if tensor.is_floating_point():
                moved = (tensor - base[name]).abs() + 0.125
                state[name] = base[name] + moved
    sweep = held_sweep(states, base)
    found, mean = ties(sweep, density=1).state_dict(), uniform(sweep).state_dict()
    for name, tensor in base.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(found[name], mean[name])


def test_an_entry_with_equal_votes_takes_the_sign_of_most() -> None:
    # Votes: + − 0 (contested), and one entry that nobody changed.
    base = {"w": torch.zeros(5)}
    states = {
        "a": {"w": torch.tensor([-1.0, -1.0, 2.0, 4.0, 0.0])},
        "b": {"w": torch.tensor([-1.0, -1.0, -2.0, 0.0, 0.0])},
    }
    sweep = held_sweep(states, base)
    assert ties(sweep, density=1).state_dict()["w"].tolist() == [-1, -1, -2, 4, 0]
    positive = ties(sweep, density=1, tie="positive")
    assert positive.state_dict()["w"].tolist() == [-1, -1, 2, 4, 0]


def test_duplicate_weights_vote_twice() -> None:
    base = {"w": torch.zeros(2)}
    state = {"w": torch.tensor([1.0, 1.0])}
    other = {"w": torch.tensor([-1.5, -3.0])}
    sweep = held_sweep({"a": state, "b": state, "c": other}, base)
    assert ties(sweep, density=1).state_dict()["w"].tolist() == [1, -3]


def test_impossible_parameters_of_ties_are_refused() -> None:
    base, states = fine_tuned(8, 2)
    with pytest.raises(RecipeError, match="Density k"):
        ties(held_sweep(states, base), density=0)
    for state in (base, *states.values()):
        state["head"] = state["head"].to(torch.complex64)
    with pytest.raises(CheckpointError, match=r"'head' of ties of .* complex"):
        ties(held_sweep(states, base))


def test_thresholds_are_found_once_for_a_whole_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def counted(*arguments: Any) -> list[float]:
        calls.append(arguments)
        return kth_largest(*arguments)

    monkeypatch.setattr("soupcore.merges.ties.kth_largest", counted)
    base, states = fine_tuned(9, 2)
    sweep = held_sweep(states, base)
    results = [ties(sweep, scale=scale).state_dict() for scale in (0.5, 1, 1.5)]
    assert len(calls) == 1
    assert not same_weights(results[0], results[1])
