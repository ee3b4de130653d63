from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from soupcore import RecipeError, interpolate, uniform, wise_ft
from tests.helpers import State, held_sweep, same_bits, same_weights
from tests.recipes.states import close, fine_tuned, flat, sweeps


@given(sweeps(), st.integers(-4, 8))
def test_wise_ft_is_the_papers_formula(case: tuple[State, dict[str, State]], eighths: int) -> None:
    base, states = case
    alpha = eighths / 4 - 0.5 if -1 <= eighths / 4 - 0.5 <= 2 else 0.5
    soup = wise_ft(held_sweep(states, base), alpha=alpha)
    trained = sum(flat(state) for state in states.values()) / len(states)
    close(soup.state_dict(), base, (1 - alpha) * flat(base) + alpha * trained)


def test_wise_ft_lies_on_linear_path() -> None:
    base, states = fine_tuned(0, 3)
    sweep = held_sweep(states, base)
    assert sweep.base is not None
    line = interpolate(sweep.base.mixture, uniform(sweep).mixture, Fraction(3, 10))
    assert wise_ft(sweep, alpha=0.3).mixture == line
    assert same_weights(wise_ft(sweep, alpha=0).state_dict(), base)
    assert wise_ft(sweep, alpha=1).mixture == uniform(sweep).mixture


@pytest.mark.parametrize("keep", ["head", " head ,block.bias", "head,scale"])
def test_fixed_tensors_stay_as_trained_and_the_rest_is_mixed(keep: str) -> None:
    base, states = fine_tuned(1, 3)
    sweep = held_sweep(states, base)
    found = wise_ft(sweep, alpha=0.25, keep=keep).state_dict()
    mixed, trained = wise_ft(sweep, alpha=0.25).state_dict(), uniform(sweep).state_dict()
    kept = {prefix.strip() for prefix in keep.split(",")}
    for name, tensor in found.items():
        assert same_bits(tensor, (trained if name in kept else mixed)[name])
    assert not torch.equal(found["block.weight"], trained["block.weight"])


def test_impossible_choices_of_fixed_tensors_are_refused() -> None:
    base, states = fine_tuned(1, 2)
    sweep = held_sweep(states, base)
    with pytest.raises(
        RecipeError, match=r"starts with 'fc\.'\. Available prefixes: block, counter"
    ):
        wise_ft(sweep, keep="fc.")
    with pytest.raises(RecipeError, match="matches every tensor"):
        wise_ft(sweep, keep="block,scale,empty,head,counter")
