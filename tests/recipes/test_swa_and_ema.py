from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from soupcore import RecipeError, Sweep, ema, manual, swa, uniform
from tests.helpers import State, build_model, held_sweep, random_state, save_sweep
from tests.recipes.states import DTYPES

SNAPSHOTS = [f"step-{number}" for number in (1, 2, 5, 9, 10, 11, 20)]


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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("skip", [0, 3])
def test_swa_is_torchs_averaged_model(dtype: torch.dtype, skip: int) -> None:
    states = snapshots(dtype)
    found = swa(held_sweep(states), skip=skip).state_dict()
    late = dict(list(states.items())[skip:])
    expected = by_torch(late, AveragedModel(build_model().to(dtype), use_buffers=True))
    # torch rounds after each snapshot, which shows in half precision.
    tolerance = 1e-6 if dtype == torch.float32 else 0.03
    for name, tensor in found.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999])
def test_ema_is_torchs_averaged_model(dtype: torch.dtype, decay: float) -> None:
    states = snapshots(dtype)
    soup = ema(held_sweep(states), decay=decay)
    rule = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(build_model().to(dtype), multi_avg_fn=rule, use_buffers=True)
    expected = by_torch(states, average)
    tolerance = 1e-6 if dtype == torch.float32 else 0.03
    for name, tensor in soup.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, expected[name], rtol=tolerance, atol=tolerance)
    assert sum(soup.coefficients.values()) == 1


def test_the_order_in_time_is_the_natural_order_of_names(tmp_path: Path) -> None:
    states = snapshots(torch.float32)
    backwards = dict(reversed(states.items()))
    sweep = Sweep.from_folder(save_sweep(tmp_path / "run", backwards))
    assert list(ema(sweep).coefficients) == SNAPSHOTS
    assert list(swa(sweep, skip=4).coefficients) == SNAPSHOTS[4:]
    assert ema(sweep, decay=Fraction(1, 2)).coefficients["step-20"] == Fraction(1, 2)


def test_the_ends_of_the_ranges() -> None:
    sweep = held_sweep(snapshots(torch.float32))
    assert ema(sweep, decay=0).mixture == manual(sweep, {"step-20": 1}).mixture
    assert ema(sweep, decay=1).mixture == manual(sweep, {"step-1": 1}).mixture
    assert swa(sweep).mixture == uniform(sweep).mixture
    assert list(swa(sweep, skip=6).coefficients) == ["step-20"]
    with pytest.raises(RecipeError, match="skip fewer than 7"):
        swa(sweep, skip=7)
    with pytest.raises(RecipeError, match="between 0 and 1, not"):
        ema(sweep, decay=1.5)
