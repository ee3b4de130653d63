from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcore import task_arithmetic, uniform
from tests.helpers import State, held_sweep, same_weights
from tests.recipes.states import close, fine_tuned, flat, sweeps


@given(sweeps(), st.integers(0, 40), st.sampled_from(["add", "subtract"]))
def test_task_arithmetic_is_the_papers_formula(
    case: tuple[State, dict[str, State]], twentieths: int, operation: Literal["add", "subtract"]
) -> None:
    base, states = case
    scale = twentieths / 20
    soup = task_arithmetic(held_sweep(states, base), scale=scale, operation=operation)
    sign = 1 if operation == "add" else -1
    vectors = sum(flat(state) - flat(base) for state in states.values())
    close(soup.state_dict(), base, flat(base) + sign * scale * vectors)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_scale_zero_is_base_and_one_kth_is_mean(k: int) -> None:
    base, states = fine_tuned(3, k)
    sweep = held_sweep(states, base)
    assert same_weights(task_arithmetic(sweep, scale=0).state_dict(), base)
    if k == 1:
        assert task_arithmetic(sweep, scale=1).mixture == uniform(sweep).mixture


def test_adding_and_subtracting_task_vectors_cancel_out() -> None:
    base, states = fine_tuned(4, 2)
    sweep = held_sweep(states, base)
    assert sweep.base is not None
    there = task_arithmetic(sweep, scale=0.7).mixture
    back = task_arithmetic(sweep, scale=0.7, operation="subtract").mixture
    assert (there + back) * 0.5 == sweep.base.mixture
