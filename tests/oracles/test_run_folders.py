"""Sweeps that Lightning and Hugging Face's Trainer wrote, opened as they lie."""

import json
from pathlib import Path

import pytest

import soupcore
from tests.oracles.test_tools import run

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("tool", "metric", "parameter", "snapshots"),
    [("lightning", "val_loss", "lr", 3), ("trainer", "eval_loss", "learning_rate", 3)],
)
def test_the_best_checkpoint_of_the_tool_is_opened_with_what_it_logged(
    tmp_path: Path, tool: str, metric: str, parameter: str, snapshots: int
) -> None:
    run("run_folders", tool, tmp_path, home=tmp_path)
    sweep = soupcore.Sweep.from_folder(tmp_path)
    assert [*sweep.ingredients] == ["run-1", "run-2"]
    assert {found.severity for found in sweep.fit.findings} == {"note"}
    for seed in (1, 2):
        expected = json.loads((tmp_path / f"expected-{seed}.txt").read_text())
        found = sweep[f"run-{seed}"]
        assert found.checkpoint.path == Path(expected["best"])
        assert found.logged_metrics[metric] == pytest.approx(expected[metric], rel=1e-6)
        assert found.hyperparameters[parameter] == pytest.approx(expected[parameter])
    assert {len(choice.names) for choice in sweep.fit.snapshots} == {snapshots}
    assert soupcore.uniform(sweep).checkpoint.tensors
