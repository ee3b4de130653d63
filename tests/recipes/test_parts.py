from fractions import Fraction
from typing import Any

import pytest

from soupcore import (
    RECIPES,
    Evaluator,
    Parts,
    RecipeError,
    Soup,
    Sweep,
    dare,
    ema,
    greedy,
    learned,
    manual,
    model_stock,
    slerp,
    swa,
    task_arithmetic,
    ties,
    uniform,
    wise_ft,
)
from soupcore.merges import Grouped
from soupcore.recipes.parts import follows_recipe
from tests.helpers import State, held_sweep

THREE, TWO = ["run1", "run2", "run10"], ["run1", "run10"]


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        (ties, {"density": 0.5, "trim": "tensor"}),
        (dare, {"drop": 0.3, "seed": 4}),
        (model_stock, {}),
        (task_arithmetic, {"scale": 0.2, "operation": "subtract"}),
        (wise_ft, {"alpha": 0.3}),
        (wise_ft, {"alpha": 0.3, "keep": "3."}),
        (uniform, {}),
        (swa, {}),
    ],
)
def test_parts_of_a_recipe_without_choices_are_the_recipe_with_fewer_ingredients(
    sweep: Sweep, recipe: Any, parameters: dict[str, Any]
) -> None:
    parts = Parts(sweep, recipe(sweep, THREE, **parameters))
    assert parts.names == tuple(THREE)
    for some in (THREE, TWO, ["run2"]):
        assert parts.of(some) == recipe(sweep, some, **parameters).mixture


@pytest.mark.parametrize("scale", [0.3, 0.5])  # at 1/2 nothing is left of the base
def test_parts_of_task_arithmetic_start_at_the_base(sweep: Sweep, scale: float) -> None:
    soup = task_arithmetic(sweep, TWO, scale=scale)
    assert follows_recipe(soup)
    part = Parts(sweep, soup).of(["run1"])
    assert part == task_arithmetic(sweep, ["run1"], scale=scale).mixture


def test_a_part_of_a_slerp_soup_with_one_ingredient_is_that_ingredient(sweep: Sweep) -> None:
    soup = slerp(sweep, TWO, t=0.3)
    assert Parts(sweep, soup).of(["run10"]) == sweep["run10"].mixture
    assert Parts(sweep, soup).of(TWO) == soup.mixture


def test_snapshots_that_were_skipped_stay_out(sweep: Sweep) -> None:
    parts = Parts(sweep, swa(sweep, skip=1))
    assert parts.names == ("run2", "run10")
    assert parts.of(["run10"]) == sweep["run10"].mixture


def test_proportions_are_kept_and_so_is_the_share_of_a_base_mixed_by_hand(sweep: Sweep) -> None:
    last = ema(sweep, decay=Fraction(1, 2))  # 1/4, 1/4, 1/2
    expected = sweep.mixture({"run1": Fraction(1, 3), "run10": Fraction(2, 3)})
    assert Parts(sweep, last).of(TWO) == expected
    half = {"run1": Fraction(1), "run2": Fraction(2), "base": Fraction(3)}
    expected = sweep.mixture({"run2": Fraction(1, 2), "base": Fraction(1, 2)})
    assert Parts(sweep, manual(sweep, half)).of(["run2"]) == expected


@pytest.mark.parametrize("per", ["ingredient", "layer", "tensor"])
def test_learned_coefficients_keep_their_proportions_by_group(
    sweep: Sweep, evaluator: Evaluator, per: Any
) -> None:
    soup = learned(sweep, evaluator, per=per, passes=2)
    part = Parts(sweep, soup).of(TWO)
    if per == "ingredient":
        total = soup.coefficients["run1"] + soup.coefficients["run10"]
        assert part == sweep.mixture({name: soup.coefficients[name] / total for name in TWO})
        return
    (found,) = part.sources.values()
    assert isinstance(found, Grouped)
    assert isinstance(soup.merge, Grouped)
    digests = {name: sweep[name].digest for name in THREE}
    for label, group in soup.merge.groups.items():
        before, after = group.mixture.coefficients, found.groups[label].mixture.coefficients
        assert sum(after.values()) == 1
        kept = before[digests["run1"]] / before[digests["run10"]]
        assert after[digests["run1"]] / after[digests["run10"]] == kept
        assert digests["run2"] not in after


def test_equal_weights_share_the_learned_coefficient(
    states: dict[str, State], evaluator: Evaluator
) -> None:
    sweep = held_sweep({"run1": states["run1"], "twin": states["run1"], "run2": states["run2"]})
    soup = learned(sweep, evaluator, per="layer", passes=2)
    parts = Parts(sweep, soup)
    assert parts.of(["run1", "run2"]) == parts.of(["twin", "run2"])
    assert parts.of(["run1", "run2"]) != soup.mixture


def test_the_part_of_no_ingredients_is_the_base(sweep: Sweep, evaluator: Evaluator) -> None:
    soup: Soup = greedy(sweep, evaluator)
    assert Parts(sweep, soup).nothing == sweep["base"].mixture
    alone = Sweep(sweep.folder, sweep.ingredients, None, sweep.fit)
    assert Parts(alone, soup).nothing is None


def test_coefficients_that_cancel_out_have_no_part(sweep: Sweep) -> None:
    soup = manual(sweep, {"run1": 1, "run2": -1, "run10": 2})
    with pytest.raises(RecipeError, match="run1, run2 sum to 0"):
        Parts(sweep, soup).of(["run1", "run2"])


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_parts(sweep: Sweep, evaluator: Evaluator, name: str) -> None:
    few = {"passes": 2} if name == "learned" else {}
    parts = Parts(sweep, RECIPES[name].function(*_given(sweep, evaluator, name), TWO, **few))
    for one in parts.names:
        assert evaluator.evaluate(parts.of([one]), "val").n == 100


def _given(sweep: Sweep, evaluator: Evaluator, name: str) -> tuple[Any, ...]:
    return (sweep, evaluator) if RECIPES[name].chooses else (sweep,)
