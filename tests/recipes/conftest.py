from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn

import soupcore
from soupcore import Evaluator, Sweep
from tests.helpers import save_sweep
from tests.recipes.table import MakeTable, TableEvaluator


@pytest.fixture
def table(tmp_path: Path) -> MakeTable:
    """Makes a sweep of ingredients with one letter each, and an evaluator that knows the scores."""
    sweeps: dict[str, Sweep] = {}

    def make(
        letters: str, percents: Callable[[frozenset[str]], float] | Mapping[str, float]
    ) -> tuple[Sweep, Evaluator]:
        if letters not in sweeps:
            states = {letter: {"w": torch.tensor([float(ord(letter))])} for letter in letters}
            sweeps[letters] = Sweep.from_folder(save_sweep(tmp_path / f"of {letters}", states))
        if isinstance(percents, Mapping):
            known = {frozenset(names): percent for names, percent in percents.items()}
            look = known.__getitem__
        else:
            look = percents
        splits = {
            "val": soupcore.Split("select", torch.zeros(1, 1), torch.zeros(1)),
            "dev": soupcore.Split("train", torch.zeros(1, 1), torch.zeros(1)),
            "test": soupcore.Split("report", torch.zeros(1, 1), torch.zeros(1)),
            "shift/a": soupcore.Split("shift", torch.zeros(1, 1), torch.zeros(1)),
        }
        task = soupcore.ClassificationTask(nn.Identity, splits, name="table")
        evaluator = TableEvaluator(sweeps[letters], look, task)
        return sweeps[letters], cast("Evaluator", evaluator)

    return make
