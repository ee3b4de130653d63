from fractions import Fraction

import pytest
import torch

from soupcore import RecipeError, Sweep, SweepError, manual, mean, uniform
from soupcore.mixtures import Coefficient
from tests.helpers import State, average, same_weights


@pytest.mark.parametrize("names", [None, ["run1"], ["run10", "run1"], ["run1", "run1", "run2"]])
def test_a_uniform_soup_is_the_mean(
    sweep: Sweep, states: dict[str, State], names: list[str] | None
) -> None:
    soup = uniform(sweep, names)
    chosen = [name for name in states if names is None or name in names]
    assert soup.coefficients == dict.fromkeys(chosen, Fraction(1, len(chosen)))
    assert soup.mixture == mean(sweep[name].mixture for name in chosen)
    assert same_weights(soup.state_dict(), average([states[name] for name in chosen]))
    assert (soup.recipe, soup.trace, soup.evaluations) == ("uniform", (), {})


def test_a_uniform_soup_of_nothing_or_of_strangers_is_refused(sweep: Sweep) -> None:
    with pytest.raises(RecipeError, match="needs at least 1 ingredient; got 0"):
        uniform(sweep, [])
    with pytest.raises(SweepError, match="has no usable ingredient 'run3'"):
        uniform(sweep, ["run1", "run3"])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"run1": 1, "run2": 1, "run10": 1}, ["1/3", "1/3", "1/3"], id="thirds"),
        pytest.param({"run1": 0.1, "run2": 0.2}, ["1/3", "2/3"], id="floats are decimals"),
        pytest.param({"run1": 0.7, "run2": 0.3}, ["7/10", "3/10"], id="already scaled"),
        pytest.param({"run1": 3, "run2": -1}, ["3/2", "-1/2"], id="extrapolation"),
        pytest.param({"run1": -1, "run2": -3}, ["1/4", "3/4"], id="all negative"),
        pytest.param({"run1": 2, "run2": 0}, ["1"], id="zero is left out"),
        pytest.param({"base": Fraction(1, 2), "run1": 0.5}, ["1/2", "1/2"], id="with the base"),
        pytest.param({"run1": 1e-9, "run2": 3e-9}, ["1/4", "3/4"], id="tiny"),
    ],
)
def test_manual_coefficients_are_scaled_to_one_exactly(
    sweep: Sweep, given: dict[str, Coefficient], expected: list[str]
) -> None:
    soup = manual(sweep, given)
    assert [str(fraction) for fraction in soup.coefficients.values()] == expected
    assert sum(soup.coefficients.values()) == 1
    assert soup.mixture == sweep.mixture(soup.coefficients)


def test_manual_weights_are_the_weighted_mean(
    sweep: Sweep, states: dict[str, State], base_state: State
) -> None:
    mixed = manual(sweep, {"run1": 2, "base": -0.5, "run2": 1}).state_dict()
    for name, tensor in base_state.items():
        if tensor.is_floating_point():
            exact = 2 * states["run1"][name].double() - tensor.double() / 2
            expected = ((exact + states["run2"][name]) / 2.5).float()
            torch.testing.assert_close(mixed[name], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "given", [{}, {"run1": 0}, {"run1": 1, "run2": -1}, {"run1": 0.1, "run2": 0.2, "run10": -0.3}]
)
def test_coefficients_that_sum_to_nothing_are_refused(
    sweep: Sweep, given: dict[str, Coefficient]
) -> None:
    with pytest.raises(RecipeError, match="sum to 0"):
        manual(sweep, given)


def test_an_unknown_name_is_refused(sweep: Sweep) -> None:
    with pytest.raises(SweepError, match="has no usable ingredient 'run3'"):
        manual(sweep, {"run1": 1, "run3": 1})
