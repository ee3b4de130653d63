from pathlib import Path

import pytest
import torch
from torch import nn

from soupcore import Evaluator, Split, Store, Sweep
from tests.connectivity.well import DoubleWell, Well
from tests.helpers import State, save_sweep
from tests.toy import moved


@pytest.fixture
def well(tmp_path: Path, store: Store) -> Well:
    weights = {"left": -1.0, "right": 1.0, "right_too": 1.25}
    folder = save_sweep(
        tmp_path / "well",
        {name: {"weight": torch.tensor([[weight]])} for name, weight in weights.items()},
    )
    splits = {"val": Split("select", torch.ones(4, 1), torch.zeros(4, 1))}
    task = DoubleWell(lambda: nn.Linear(1, 1, bias=False), splits, name="well")
    return Well(Sweep.from_folder(folder), Evaluator(task, store, device="cpu"))


@pytest.fixture
def far_sweep(tmp_path: Path, base_state: State) -> Sweep:
    """Networks that say nearly the same with other hidden units: there are hills between them."""
    states = {f"run{seed}": moved(shuffled(base_state, seed), 0.2, seed) for seed in range(1, 6)}
    return Sweep.from_folder(save_sweep(tmp_path / "far", {"base": base_state} | states))


def shuffled(state: State, seed: int) -> State:
    """The same function with the hidden units of the toy in another order."""
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    return {
        name: tensor[:, order]
        if name == "3.weight"
        else tensor[order]
        if len(tensor.shape) and len(tensor) == 8
        else tensor
        for name, tensor in state.items()
    }
