import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from soupcore import Sweep
from soupcore.analysis import Grid, ingredient_grid, pair_grid, varying
from soupcore.figures.tables import grid_table
from tests.helpers import State, moved, save_sweep

ROWS: list[dict[str, Any]] = [
    {"checkpoint": "a", "lr": 0.001, "augmentation": "run10", "epochs": 3, "seed": 1},
    {"checkpoint": "b", "lr": 0.001, "augmentation": "run2", "epochs": 3, "seed": 2},
    {"checkpoint": "c", "lr": 0.01, "augmentation": "run2", "epochs": 3, "seed": 3},
    {"checkpoint": "d", "lr": 0.01, "augmentation": "run2", "epochs": 3},
    {"checkpoint": "e", "epochs": 3},
]
VALUES = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 5.0, "e": 99.0}


@pytest.fixture
def tuned(tmp_path: Path, base_state: State) -> Sweep:
    states = {row["checkpoint"]: moved(base_state, 0.1, seed) for seed, row in enumerate(ROWS)}
    folder = save_sweep(tmp_path / "tuned", states)
    (folder / "sweep.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    return Sweep.from_folder(folder)


def test_a_grid_of_ingredients_is_the_pivot_table_of_their_values(tuned: Sweep) -> None:
    found = ingredient_grid(tuned, VALUES, "lr", "augmentation")
    assert (found.rows, found.columns) == ((0.001, 0.01), ("run2", "run10"))
    frame = pd.DataFrame(ROWS).assign(value=list(VALUES.values()))
    pivot = frame.pivot_table("value", "lr", "augmentation")[["run2", "run10"]]
    np.testing.assert_allclose(found.means, pivot)
    assert found.counts.tolist() == [[1, 1], [2, 0]]
    assert grid_table(found).to_dict("list") == {
        "lr": [0.001, 0.001, 0.01],
        "augmentation": ["run2", "run10", "run2"],
        "mean": [2.0, 1.0, 4.0],
        "n": [1, 1, 2],
    }


def test_a_grid_of_pairs_counts_each_both_ways(tuned: Sweep) -> None:
    gains = {("a", "b"): 1.0, ("a", "c"): 2.0, ("d", "b"): 4.0, ("c", "e"): 50.0,
             ("c", "d"): float("nan")}  # fmt: skip
    found = pair_grid(tuned, gains, "lr")
    assert found.rows == found.columns == (0.001, 0.01)
    np.testing.assert_allclose(found.means, np.array([[1, 3], [3, np.nan]]))
    assert found.counts.tolist() == [[1, 2], [2, 0]]


def test_hyperparameters_that_differ_are_listed(tuned: Sweep) -> None:
    assert varying(tuned) == ["lr", "augmentation", "seed"]


def test_a_sweep_without_hyperparameters_has_none_that_differ(sweep: Sweep) -> None:
    assert varying(sweep) == []


def test_hyperparameters_called_like_columns_of_the_table_have_their_own() -> None:
    grid = Grid("mean", "n", (1, 2), (3,), np.array([[0.5], [np.nan]]), np.array([[2], [0]]))
    assert grid_table(grid).to_dict("records") == [
        {"mean (run)": 1, "n (run)": 3, "mean": 0.5, "n": 2}
    ]
