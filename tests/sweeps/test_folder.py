from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcore import Sweep
from soupcore.sweeps.folder import find_checkpoints, find_leftovers, folder_signature


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"anything")


LEFTOVERS = [
    "optimizer.pt",
    "optimizer.bin",
    "scheduler.pt",
    "scheduler.bin",
    "scaler.pt",
    "sampler.bin",
    "sampler_1.bin",
    "rng_state.pth",
    "rng_state_0.pth",
    "rng_state_12.pth",
    "training_args.bin",
]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["run/pytorch_model.bin"], ["run"]),
        (["run/best.pt"], ["run"]),
        (["run/last.ckpt"], ["run"]),
        (["run/model.safetensors", "run/pytorch_model.bin"], ["run"]),
        (["run/one.safetensors", "run/two.safetensors"], ["run"]),
        (["run/one.pt", "run/two.pt"], ["run"]),
        (["train/weights/best.pt", "train/weights/last.pt", "train/args.yaml"], ["train"]),
        (["version_0/checkpoints/epoch=1.ckpt", "version_0/hparams.yaml"], ["version_0"]),
        (["run/checkpoint-500/model.safetensors", "run/checkpoint-500/optimizer.pt"], ["run"]),
        (["run/model.safetensors", "run/checkpoint-500/model.safetensors"], ["run"]),
        (["run/m-00001-of-00002.bin", "run/m-00002-of-00002.bin"], ["run"]),
        (["m-00001-of-00002.bin", "m-00002-of-00002.bin", "m.bin.index.json"], ["m"]),
        (["r/m-00001-of-00002.bin", "r/m-00002-of-00002.bin", "r/m.bin.index.json"], ["r"]),
        (["m-00001-of-00001.bin", "other.safetensors.index.json"], ["m-00001-of-00001", "other"]),
        (["run/one.pt", *(f"run/{name}" for name in LEFTOVERS)], ["run"]),
        ([f"run/{name}" for name in LEFTOVERS], []),
        (
            [*LEFTOVERS, "a.pt", "my_optimizer.pt", "rng_state.pt"],
            ["a", "my_optimizer", "rng_state"],
        ),
        (["run/.hidden.pt", ".run/model.pt", "run/deeper/model.pt"], []),
        (["run/readme.md", "run/tokenizer.json"], []),
        (["checkpoint-10.pth.tar", "checkpoint-9.pth.tar"], ["checkpoint-9", "checkpoint-10"]),
        (["A.PT", "b.Safetensors", "run/C.PTH"], ["A", "b", "run"]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_files_of_weights_and_folders_with_one_are_found(
    tmp_path: Path, files: list[str], names: list[str]
) -> None:
    fill(tmp_path, *files)
    assert list(find_checkpoints(tmp_path)) == names


def test_what_a_trainer_left_is_said_to_be_ignored(tmp_path: Path) -> None:
    for number in (10, 9):
        run = f"checkpoint-{number}"
        fill(tmp_path, f"{run}/optimizer.pt", f"{run}/trainer_state.json")
        save_file({"w": torch.ones(2) * number}, tmp_path / run / "model.safetensors")
    fill(tmp_path, "training_args.bin")
    sweep = Sweep.from_folder(tmp_path)
    assert list(sweep.ingredients) == ["checkpoint-9", "checkpoint-10"]
    assert sweep.fit.findings == ()
    assert sweep.fit.ignored == (
        "checkpoint-9/optimizer.pt",
        "checkpoint-10/optimizer.pt",
        "training_args.bin",
    )


UNCLEAR = {
    "ckpt": (
        ["epoch=1.ckpt", "last.ckpt"],
        "the folder holds 2 files of weights (epoch=1.ckpt, last.ckpt), so it is not clear what",
        "Keep one of them there",
    ),
    "many": (
        ["1.pt", "2.pt", "3.pt", "4.pt"],
        "the folder holds 4 files of weights (1.pt, 2.pt, 3.pt, …)",
        "Keep one of them there",
    ),
    "both": (
        ["weights/a.pt", "checkpoints/b.ckpt"],
        "the folder holds 2 folders with weights (weights, checkpoints)",
        "Keep one of them there",
    ),
    "steps": (
        ["checkpoint-90/pytorch_model.bin", "checkpoint-100/pytorch_model.bin"],
        "the folder holds 2 folders with weights (checkpoint-90, checkpoint-100)",
        "or take this folder for a sweep of its own",
    ),
    "no-index": (
        ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
        "without their index, pytorch_model.bin.index.json",
        "Copy it beside them",
    ),
    "half": (
        ["pytorch_model-00001-of-00002.bin"],
        "without their index, pytorch_model.bin.index.json",
        "Copy it beside them",
    ),
}


@pytest.mark.parametrize("run", UNCLEAR)
def test_a_run_of_which_it_is_not_clear_what_to_open_is_told(tmp_path: Path, run: str) -> None:
    files, problem, way_out = UNCLEAR[run]
    torch.save({"w": torch.ones(2)}, tmp_path / "clear.pt")
    for file in files:
        (tmp_path / run / file).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"w": torch.zeros(2)}, tmp_path / run / file)
    sweep = Sweep.from_folder(tmp_path)
    assert list(sweep.ingredients) == ["clear"]
    (finding,) = sweep.fit.findings
    assert (finding.severity, finding.ingredient) == ("misfit", run)
    assert problem in finding.problem
    assert way_out in finding.way_out


def test_of_a_run_of_ultralytics_the_best_is_taken_and_that_is_noted(tmp_path: Path) -> None:
    for number in range(2):
        weights = tmp_path / f"train{number}" / "weights"
        weights.mkdir(parents=True)
        torch.save({"w": torch.full((2,), float(number))}, weights / "best.pt")
        torch.save({"w": torch.zeros(2)}, weights / "last.pt")
    before = folder_signature(tmp_path)
    sweep = Sweep.from_folder(tmp_path)
    assert sweep["train1"].checkpoint.read("w").tolist() == [1, 1]
    assert [(found.severity, found.ingredient) for found in sweep.fit.findings] == [
        ("note", "train0"),
        ("note", "train1"),
    ]
    assert "best.pt was opened, and not last.pt" in sweep.fit.findings[0].problem
    (tmp_path / "train1" / "weights" / "best.pt").unlink()
    assert folder_signature(tmp_path) != before


def test_folders_of_torch_files_are_opened(tmp_path: Path) -> None:
    for run in ("a", "b"):
        fill(tmp_path, f"{run}/optimizer.pt", f"{run}/config.json")
        torch.save({"w": torch.full((2,), float(ord(run)))}, tmp_path / run / "pytorch_model.bin")
    sweep = Sweep.from_folder(tmp_path)
    assert sweep["b"].checkpoint.read("w").tolist() == [98, 98]
    assert find_leftovers(tmp_path) == ["a/optimizer.pt", "b/optimizer.pt"]
