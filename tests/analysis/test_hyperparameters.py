import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy

from soupcore import Sweep
from soupcore.analysis import Grid, ingredient_grid, marginal_importance, pair_grid, varying
from soupcore.figures.tables import grid_table
from tests.helpers import State, save_sweep
from tests.toy import moved

ROWS: list[dict[str, Any]] = [
    {"checkpoint": "a", "lr": 0.001, "augmentation": "run10", "epochs": 3, "seed": 1},
    {"checkpoint": "b", "lr": 0.001, "augmentation": "run2", "epochs": 3, "seed": 2},
    {"checkpoint": "c", "lr": 0.01, "augmentation": "run2", "epochs": 3, "seed": 3},
    {"checkpoint": "d", "lr": 0.01, "augmentation": "run2", "epochs": 3},
    {"checkpoint": "e", "epochs": 3},
]
VALUES = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 5.0, "e": 99.0}

RNG = np.random.default_rng(0)
LR = (10 ** RNG.uniform(-4, -1, 30)).tolist()
AUG = RNG.choice(["none", "mixup", "rand"], 30).tolist()
SCORES = [90 + math.log10(lr) + 2 * (aug == "mixup") for lr, aug in zip(LR, AUG, strict=True)]


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


def test_importance_of_a_number_uses_spearmans_correlation() -> None:
    found = marginal_importance({"lr": LR}, SCORES)["lr"]
    rho = scipy.stats.spearmanr(LR, SCORES).statistic
    assert found.rho == pytest.approx(rho)
    assert found.share == pytest.approx(1 - (1 - rho**2) * 29 / 28)
    assert found.n == 30


def test_importance_of_text_is_the_effect_size_of_the_kruskal_wallis_test() -> None:
    found = marginal_importance({"aug": AUG}, SCORES)["aug"]
    groups = [
        [s for s, aug in zip(SCORES, AUG, strict=True) if aug == each] for each in sorted(set(AUG))
    ]
    h = scipy.stats.kruskal(*groups).statistic
    assert found.rho is None
    assert found.share == pytest.approx((h - 3 + 1) / (30 - 3))  # ε² of Tomczak and Tomczak


def test_the_most_important_is_first_and_noise_has_no_importance() -> None:
    noise = [
        marginal_importance({"seed": RNG.permutation(30).tolist()}, SCORES)["seed"].share
        for _ in range(200)
    ]
    assert abs(np.mean(noise)) < 0.02
    found = marginal_importance({"seed": [*range(30)][::-1], "score": SCORES}, SCORES)
    assert next(iter(found)) == "score"
    assert found["score"].share == pytest.approx(1)


@pytest.mark.parametrize(
    "values",
    [[1e-3] * 30, [None] * 30, [f"run {i}" for i in range(30)], [1.0, 2.0, 3.0] + [math.nan] * 27],
    ids=["constant", "missing", "a name for each run", "too few"],
)
def test_importance_leaves_out_hyperparameters_without_information(values: list[object]) -> None:
    assert marginal_importance({"x": values}, SCORES) == {}


def test_importance_leaves_out_runs_without_a_score() -> None:
    found = marginal_importance({"lr": LR}, [None, math.nan, -math.inf, *SCORES[3:]])["lr"]
    assert found == marginal_importance({"lr": LR[3:]}, SCORES[3:])["lr"]
    assert found.n == 27
