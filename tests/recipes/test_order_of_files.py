import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcore import RECIPES, Evaluator, Sweep
from tests.helpers import State, held_sweep, same_weights, save_sweep
from tests.recipes.states import fine_tuned

# Where the order of names says what comes first.
IN_TIME: dict[str, dict[str, Any]] = {"swa": {}, "ema": {}, "slerp": {"t": 0.3}}


def followed(name: str, sweep: Sweep, evaluator: Evaluator, **options: Any) -> State:
    names = sweep.names()[:2] if name == "slerp" else None
    few: dict[str, Any] = {"passes": 2} if name == "learned" else {}
    return RECIPES[name].follow(sweep, evaluator, names, **few, **options).state_dict()


@pytest.mark.parametrize("name", RECIPES)
def test_files_listed_in_another_order_give_the_same_soup(
    tmp_path: Path, base_state: State, states: dict[str, State], evaluator: Evaluator, name: str
) -> None:
    soups = []
    for number, order in enumerate(itertools.islice(itertools.permutations(states.items()), 3)):
        folder = save_sweep(tmp_path / str(number), {"base": base_state} | dict(order))
        soups.append(followed(name, Sweep.from_folder(folder), evaluator, **IN_TIME.get(name, {})))
    assert all(same_weights(soup, soups[0]) for soup in soups)


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in IN_TIME])
def test_weights_under_other_names_give_the_same_soup(
    tmp_path: Path, base_state: State, states: dict[str, State], evaluator: Evaluator, name: str
) -> None:
    soups = []
    for number, order in enumerate(itertools.permutations(states)):
        renamed = {new: states[old] for new, old in zip(states, order, strict=True)}
        folder = save_sweep(tmp_path / str(number), {"base": base_state} | renamed)
        soups.append(followed(name, Sweep.from_folder(folder), evaluator))
    assert all(same_weights(soup, soups[0]) for soup in soups)


@given(
    st.sampled_from(["task_arithmetic", "ties", "dare", "model_stock", "wise_ft", "uniform"]),
    st.permutations(range(4)),
    st.integers(0, 5),
)
def test_recipes_do_not_depend_on_the_order_of_ingredients(
    name: str, order: list[int], seed: int
) -> None:
    base, states = fine_tuned(seed, 4, shapes={"w": (40,), "v": (3, 2)})
    shuffled = {new: list(states.values())[old] for new, old in zip(states, order, strict=True)}
    function = RECIPES[name].function
    one, other = (function(held_sweep(given, base)) for given in (states, shuffled))
    assert same_weights(one.state_dict(), other.state_dict())
    assert one.mixture == other.mixture


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "slerp"])
def test_one_ingredient_alone_gives_itself(
    sweep: Sweep, states: dict[str, State], evaluator: Evaluator, name: str
) -> None:
    itself: dict[str, dict[str, Any]] = {
        "wise_ft": {"alpha": 1},
        "task_arithmetic": {"scale": 1},
        "ties": {"density": 1},
        "dare": {"drop": 0},
        "learned": {"passes": 2},
    }
    soup = RECIPES[name].follow(sweep, evaluator, ["run2"], **itself.get(name, {}))
    for tensor, found in soup.state_dict().items():
        expected = states["run2"][tensor]
        assert ((found - expected).abs() <= 1e-6 * expected.abs() + 1e-7).all()
