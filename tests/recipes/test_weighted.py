import math

import pytest

from soupcore import Evaluator, RecipeError, Sweep, uniform, weighted
from tests.recipes.table import MakeTable


def test_weights_are_in_proportion_to_the_score(table: MakeTable) -> None:
    sweep, evaluator = table("abc", {"a": 80, "b": 60, "c": 60})
    found = {name: float(c) for name, c in weighted(sweep, evaluator).coefficients.items()}
    assert found == pytest.approx({"a": 0.4, "b": 0.3, "c": 0.3})
    squared = weighted(sweep, evaluator, power=2).coefficients
    assert float(squared["a"] / squared["b"]) == pytest.approx(64 / 36)
    assert sum(squared.values()) == 1


def test_weights_are_in_proportion_to_the_inverse_of_the_loss(table: MakeTable) -> None:
    sweep, evaluator = table("ab", {"a": 90, "b": 80})  # losses 0.1 and 0.2
    found = weighted(sweep, evaluator, metric="loss").coefficients
    assert float(found["a"]) == pytest.approx(2 / 3)


def test_power_zero_is_uniform_and_nan_scores_have_no_weight(table: MakeTable) -> None:
    sweep, evaluator = table("abc", {"a": 80, "b": 60, "c": math.nan})
    assert weighted(sweep, evaluator, ["a", "b"], power=0).mixture == (
        uniform(sweep, ["a", "b"]).mixture
    )
    assert set(weighted(sweep, evaluator).coefficients) == {"a", "b"}


@pytest.mark.parametrize(
    ("percents", "options", "words"),
    [
        ({"a": math.nan, "b": 0}, {}, "no ingredient has a non-zero score"),
        ({"a": -1, "b": 50}, {}, "cannot be negative, .* Weight by loss"),
        ({"a": 100, "b": 50}, {"metric": "loss"}, "overflows"),
        ({"a": 50, "b": 50}, {"power": -1}, "between 0 and 100"),
    ],
)
def test_values_that_cannot_be_weights_are_refused(
    table: MakeTable, percents: dict[str, float], options: dict[str, object], words: str
) -> None:
    sweep, evaluator = table("ab", percents)
    with pytest.raises(RecipeError, match=words):
        weighted(sweep, evaluator, **options)  # type: ignore[arg-type]


def test_each_ingredient_is_evaluated_once(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    weighted(sweep, evaluator)
    assert passes == [100] * 3
    weighted(sweep, evaluator, metric="loss", power=3)
    assert passes == [100] * 3
