from fractions import Fraction
from itertools import permutations
from statistics import mean

import pytest

from soupcore import Evaluator, Parts, RecipeError, Sweep, manual
from soupcore.analysis import attribution, leave_one_out, shapley_values

NAMES = ["run1", "run2", "run10"]
PROPORTIONS = {"run1": Fraction(1, 2), "run2": Fraction(1, 3), "run10": Fraction(1, 6)}


def parts(sweep: Sweep) -> Parts:
    return Parts(sweep, manual(sweep, PROPORTIONS))


def score(sweep: Sweep, evaluator: Evaluator, names: tuple[str, ...]) -> float:
    """Of a soup of some of the ingredients, in their proportions; of the base without any."""
    if not names:
        assert sweep.base is not None
        return evaluator.evaluate(sweep.base.mixture, "val").score
    total = sum(PROPORTIONS[name] for name in names)
    point = sweep.mixture({name: PROPORTIONS[name] / total for name in names})
    return evaluator.evaluate(point, "val").score


def test_leaving_one_out_keeps_the_proportions_of_the_others(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    found = leave_one_out(evaluator, parts(sweep), "val")
    whole = score(sweep, evaluator, tuple(NAMES))
    for name in NAMES:
        others = tuple(other for other in NAMES if other != name)
        assert found[name] == pytest.approx(whole - score(sweep, evaluator, others))


def test_shapley_values_are_the_mean_over_all_orders(
    sweep: Sweep, evaluator: Evaluator, passes: list[int]
) -> None:
    found = shapley_values(evaluator, parts(sweep), "val")
    assert len(passes) == 2**3 == attribution.points(3)  # the base stands for the soup of none
    for name in NAMES:
        added = []
        for order in permutations(NAMES):
            before = order[: order.index(name)]
            added.append(score(sweep, evaluator, (*before, name)) - score(sweep, evaluator, before))
        assert found[name].value == pytest.approx(mean(added))
        assert found[name].standard_error == 0
    gain = score(sweep, evaluator, tuple(NAMES)) - score(sweep, evaluator, ())
    assert sum(share.value for share in found.values()) == pytest.approx(gain)


def test_sampled_values_sum_to_the_same_and_come_close_to_the_exact_ones(
    sweep: Sweep, evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = shapley_values(evaluator, parts(sweep), "val")
    monkeypatch.setattr(attribution, "EXACT", 0)
    found = shapley_values(evaluator, parts(sweep), "val", orders=200, seed=1)
    assert found == shapley_values(evaluator, parts(sweep), "val", orders=200, seed=1)
    total = sum(share.value for share in exact.values())
    assert sum(share.value for share in found.values()) == pytest.approx(total)
    for name in NAMES:
        assert abs(found[name].value - exact[name].value) <= 4 * found[name].standard_error + 1e-9


def test_attribution_without_a_base_starts_at_the_mean_score_of_the_ingredients(
    sweep: Sweep, evaluator: Evaluator
) -> None:
    alone = Sweep(sweep.folder, sweep.ingredients, None, sweep.fit)
    found = shapley_values(evaluator, parts(alone), "val")
    gain = score(sweep, evaluator, tuple(NAMES)) - mean(
        score(sweep, evaluator, (name,)) for name in NAMES
    )
    assert sum(share.value for share in found.values()) == pytest.approx(gain)


@pytest.mark.parametrize(
    ("coefficients", "orders", "words"),
    [
        ({"run1": Fraction(1)}, 64, "at least two ingredients"),
        ({"run1": Fraction(1), "run2": Fraction(-1), "run10": Fraction(1)}, 64, "sum to 0"),
        (PROPORTIONS, 3, "must be even and at least 4"),
    ],
)
def test_soups_that_cannot_be_attributed_are_refused(
    sweep: Sweep, evaluator: Evaluator, coefficients: dict[str, Fraction], orders: int, words: str
) -> None:
    soup = Parts(sweep, manual(sweep, coefficients))
    with pytest.raises(RecipeError, match=words):
        shapley_values(evaluator, soup, "val", orders=orders)
