"""Sweeps that tools wrote, opened as they lie, souped, and reopened by the tool."""

import json
from pathlib import Path

import pytest

import soupcore
from soupcore import cli
from tests.helpers import same_weights
from tests.oracles.expected import load_expected
from tests.oracles.test_tools import run

pytestmark = pytest.mark.integration

# The hyperparameter and the logged metric to look at, the number of snapshots of a run, and the
# name of the soup, as in the README.
TOOLS = {
    "accelerate": ("", "eval_accuracy", 2, "soup.safetensors"),
    "diffusers": ("", "", 1, "soup"),
    "lightning": ("lr", "val_loss", 3, "soup.ckpt"),
    "timm": ("lr", "eval_top1", 5, "soup.pth.tar"),
    "trainer": ("learning_rate", "eval_loss", 3, "soup"),
    "ultralytics": ("lr0", "metrics/mAP50(B)", 2, "soup.pt"),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_sweep_of_the_tool_is_opened_and_the_tool_opens_its_soup(
    tmp_path: Path, tool: str
) -> None:
    parameter, metric, snapshots, name = TOOLS[tool]
    folder = tmp_path / "sweep"
    folder.mkdir()
    run("run_folders", "make", tool, folder, home=tmp_path)
    sweep = soupcore.Sweep.from_folder(folder)
    assert [*sweep.ingredients] == ["run-1", "run-2"]
    assert {found.severity for found in sweep.fit.findings} <= {"note"}, sweep.fit.to_frame()
    for seed in (1, 2):
        expected = json.loads((folder / f"expected-{seed}.txt").read_text())
        found = sweep[f"run-{seed}"]
        assert found.checkpoint.path == Path(expected["best"])
        if metric:
            assert found.logged_metrics[metric] == pytest.approx(expected[metric], rel=1e-6)
        if parameter:
            assert found.hyperparameters[parameter] == pytest.approx(expected[parameter])
    counts = {len(choice.names) for choice in sweep.fit.snapshots}
    assert counts == ({snapshots} if snapshots > 1 else set())

    path = tmp_path / name
    assert cli.main(["soup", str(folder), "--recipe", "uniform", "-o", str(path)]) == 0
    assert soupcore.open_checkpoint(path).details == {}  # no score of the first ingredient
    run("run_folders", "open", tool, path, home=tmp_path)
    assert same_weights(load_expected(path)[""], soupcore.uniform(sweep).state_dict())
