"""What the formulas say at the ends of their parameters, to the bit."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from soupcore import RECIPES
from tests.helpers import State, held_sweep
from tests.recipes.states import sweeps

# What makes the share of the task vectors nothing.
NOTHING: list[tuple[str, dict[str, Any]]] = [
    ("wise_ft", {"alpha": 0}),
    ("task_arithmetic", {"scale": 0}),
    ("task_arithmetic", {"scale": 0, "operation": "subtract"}),
    ("ties", {"scale": 0}),
    ("ties", {"scale": 0, "trim": "tensor", "vote": "count", "tie": "positive"}),
    ("dare", {"scale": 0}),
    ("dare", {"scale": 0, "combine": "sum"}),
    ("dare", {"scale": 0, "combine": "ties", "drop": 0.9}),
]
# What makes one ingredient, and its equals, itself.
ITSELF: list[tuple[str, dict[str, Any]]] = [
    ("uniform", {}),
    ("swa", {}),
    ("ema", {"decay": 0.3}),
    ("wise_ft", {"alpha": 1}),
    ("task_arithmetic", {"scale": 1}),
    ("ties", {"density": 1}),
    ("dare", {"drop": 0}),
    ("model_stock", {}),
]


@given(sweeps(), st.sampled_from(NOTHING))
def test_recipes_that_use_nothing_of_the_task_vectors_give_the_base(
    case: tuple[State, dict[str, State]], told: tuple[str, dict[str, Any]]
) -> None:
    base, states = case
    name, parameters = told
    found = RECIPES[name].function(held_sweep(states, base), **parameters).state_dict()
    for tensor, value in base.items():
        if value.is_floating_point():
            assert torch.equal(found[tensor], value)


@given(sweeps(), st.integers(1, 4), st.sampled_from(ITSELF))
def test_one_ingredient_and_its_copies_give_itself(
    case: tuple[State, dict[str, State]], copies: int, told: tuple[str, dict[str, Any]]
) -> None:
    base, states = case
    name, parameters = told
    if name == "task_arithmetic":
        copies = 1  # a sum
    sweep = held_sweep({f"copy{i}": states["run1"] for i in range(copies)}, base)
    found = RECIPES[name].function(sweep, **parameters).state_dict()
    for tensor, value in states["run1"].items():
        if value.is_floating_point():
            torch.testing.assert_close(found[tensor], value)


def test_every_recipe_with_a_base_has_a_case_without_task_vectors() -> None:
    scaled = {n for n, r in RECIPES.items() if r.needs_base and n != "model_stock"}
    assert {name for name, _ in NOTHING} == scaled


@pytest.mark.parametrize("similarity", ["angle", "cosine"])
def test_model_stock_of_opposite_ingredients_is_the_base_and_of_equal_ones_their_mean(
    similarity: str,
) -> None:
    base = {"w": torch.tensor([1.0, 2.0, 3.0])}
    step = torch.tensor([0.5, -0.25, 1.0])
    there, back = {"w": base["w"] + step}, {"w": base["w"] - step}
    stock = RECIPES["model_stock"].function
    opposite = stock(held_sweep({"a": there, "b": back}, base), similarity=similarity)
    torch.testing.assert_close(opposite.state_dict()["w"], base["w"])
    equal = stock(held_sweep({"a": there, "b": there}, base), similarity=similarity)
    torch.testing.assert_close(equal.state_dict()["w"], there["w"])
