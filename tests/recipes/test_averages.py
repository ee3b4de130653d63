from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from soupcore import RecipeError, Sweep, SweepError, ema, manual, mean, swa, uniform
from soupcore.mixtures import Coefficient
from tests.helpers import State, average, held_sweep, same_weights, save_sweep
from tests.recipes.states import DTYPES
from tests.toy import build_model, random_state

SNAPSHOTS = [f"step-{number}" for number in (1, 2, 5, 9, 10, 11, 20)]


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


def test_a_uniform_soup_of_no_or_unknown_ingredients_is_refused(sweep: Sweep) -> None:
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
def test_coefficients_that_sum_to_zero_are_refused(
    sweep: Sweep, given: dict[str, Coefficient]
) -> None:
    with pytest.raises(RecipeError, match="sum to 0"):
        manual(sweep, given)


def test_an_unknown_name_is_refused(sweep: Sweep) -> None:
    with pytest.raises(SweepError, match="has no usable ingredient 'run3'"):
        manual(sweep, {"run1": 1, "run3": 1})


def snapshots(dtype: torch.dtype) -> dict[str, State]:
    return {
        name: {n: t.to(dtype) if t.is_floating_point() else t for n, t in random_state(i).items()}
        for i, name in enumerate(SNAPSHOTS)
    }


def by_torch(states: dict[str, State], average: AveragedModel) -> State:
    """What torch makes of the snapshots, one after the other."""
    for state in states.values():
        model = build_model().to(next(iter(state.values())).dtype)
        model.load_state_dict(state)
        average.update_parameters(model)
    return dict(average.module.state_dict())


def assert_close(found: State, expected: State) -> None:
    """Compare the floats; torch rounds after each snapshot, which shows in half precision."""
    for name, tensor in found.items():
        if tensor.is_floating_point():
            tolerance = 1e-6 if tensor.dtype == torch.float32 else 0.03
            torch.testing.assert_close(tensor, expected[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("skip", [0, 3])
def test_swa_is_torchs_averaged_model(dtype: torch.dtype, skip: int) -> None:
    states = snapshots(dtype)
    found = swa(held_sweep(states), skip=skip).state_dict()
    late = dict(list(states.items())[skip:])
    expected = by_torch(late, AveragedModel(build_model().to(dtype), use_buffers=True))
    assert_close(found, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999])
def test_ema_is_torchs_averaged_model(dtype: torch.dtype, decay: float) -> None:
    states = snapshots(dtype)
    soup = ema(held_sweep(states), decay=decay)
    rule = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(build_model().to(dtype), multi_avg_fn=rule, use_buffers=True)
    expected = by_torch(states, average)
    assert_close(soup.state_dict(), expected)
    assert sum(soup.coefficients.values()) == 1


def test_the_order_in_time_is_the_natural_order_of_names(tmp_path: Path) -> None:
    states = snapshots(torch.float32)
    backwards = dict(reversed(states.items()))
    sweep = Sweep.from_folder(save_sweep(tmp_path / "run", backwards))
    assert list(ema(sweep).coefficients) == SNAPSHOTS
    assert list(swa(sweep, skip=4).coefficients) == SNAPSHOTS[4:]
    assert ema(sweep, decay=Fraction(1, 2)).coefficients["step-20"] == Fraction(1, 2)


def test_extreme_parameters_give_single_snapshots_or_the_mean() -> None:
    sweep = held_sweep(snapshots(torch.float32))
    assert ema(sweep, decay=0).mixture == manual(sweep, {"step-20": 1}).mixture
    assert ema(sweep, decay=1).mixture == manual(sweep, {"step-1": 1}).mixture
    assert swa(sweep).mixture == uniform(sweep).mixture
    assert list(swa(sweep, skip=6).coefficients) == ["step-20"]
    with pytest.raises(RecipeError, match="skip fewer than 7"):
        swa(sweep, skip=7)
    with pytest.raises(RecipeError, match="between 0 and 1, not"):
        ema(sweep, decay=1.5)
