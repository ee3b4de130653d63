from pathlib import Path

import pytest
import torch
from torch import nn

from soupcore import Evaluator, Split, Store, Sweep
from tests.connectivity.well import DoubleWell, Well
from tests.helpers import save_sweep


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
