"""One small folder for each tool, with the names of files that the tool gives them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcore import CheckpointError, open_checkpoint
from soupcore.checkpoints.run_folders import is_lower_better, read_run
from soupcore.checkpoints.tools import TOOLS

pytestmark = pytest.mark.usefixtures("read_in_this_process")

Layout = dict[str, str]
"""`{file: content}`: files of weights hold the number of their line, others this text."""

TRAINER = {
    "checkpoint-500/model.safetensors": "",
    "checkpoint-500/optimizer.pt": "",
    "checkpoint-1000/model.safetensors": "",
    "checkpoint-1000/trainer_state.json": json.dumps(
        {"best_model_checkpoint": "./out/checkpoint-500", "log_history": []}
    ),
}
LIGHTNING = {
    "checkpoints/epoch=1-step=10-val_loss=0.50.ckpt": "",
    "checkpoints/epoch=3-step=20-val_loss=0.21.ckpt": "",
    "checkpoints/epoch=10-step=55-val_loss=0.30.ckpt": "",
    "checkpoints/last.ckpt": "",
    "hparams.yaml": "lr: 0.1",
}
SPEECHBRAIN = {
    "hyperparams.yaml": "lr: 0.1",
    "save/CKPT+2024-05-01+10-00-00+00/model.ckpt": "",
    "save/CKPT+2024-05-01+10-00-00+00/optimizer.ckpt": "",
    "save/CKPT+2024-05-01+10-00-00+00/CKPT.yaml": "WER: 5.5\nend-of-epoch: true\nunixtime: 1.5\n",
    "save/CKPT+2024-05-01+12-00-00+00/model.ckpt": "",
    "save/CKPT+2024-05-01+12-00-00+00/dataloader-TRAIN.ckpt": "",
    "save/CKPT+2024-05-01+12-00-00+00/counter.ckpt": "",
    "save/CKPT+2024-05-01+12-00-00+00/CKPT.yaml": "WER: 6.25\nend-of-epoch: true\n",
}

RUNS: dict[str, tuple[str, Layout, list[str], str]] = {
    "Trainer with a best checkpoint": (
        "Hugging Face Trainer",
        TRAINER,
        ["step 500", "step 1000"],
        "checkpoint-500/model.safetensors",
    ),
    "Trainer without one": (
        "Hugging Face Trainer",
        {"checkpoint-90/pytorch_model.bin": "", "checkpoint-100/pytorch_model.bin": ""},
        ["step 90", "step 100"],
        "checkpoint-100/pytorch_model.bin",
    ),
    "Trainer with a final model": (
        "Hugging Face Trainer",
        {"model.safetensors": "", "training_args.bin": "", **TRAINER},
        ["step 500", "step 1000", "final"],
        "model.safetensors",
    ),
    "Ultralytics": (
        "Ultralytics",
        {
            "weights/best.pt": "",
            "weights/last.pt": "",
            "weights/epoch5.pt": "",
            "weights/epoch10.pt": "",
            "args.yaml": "lr0: 0.1",
        },
        ["epoch 5", "epoch 10", "best", "last"],
        "weights/best.pt",
    ),
    "Lightning": (
        "Lightning",
        LIGHTNING,
        ["epoch 1", "epoch 3", "epoch 10", "last"],
        "checkpoints/epoch=3-step=20-val_loss=0.21.ckpt",
    ),
    "Lightning by a metric that should be high": (
        "Lightning",
        {
            "epoch=1-val_acc=0.5.ckpt": "",
            "epoch=2-val_acc=0.9.ckpt": "",
            "epoch=3-val_acc=0.7.ckpt": "",
        },
        ["epoch 1", "epoch 2", "epoch 3"],
        "epoch=2-val_acc=0.9.ckpt",
    ),
    "Lightning by an unknown metric": (
        "Lightning",
        {"epoch=1-zeal=0.5.ckpt": "", "epoch=2-zeal=0.9.ckpt": "", "epoch=3-zeal=0.7.ckpt": ""},
        ["epoch 1", "epoch 2", "epoch 3"],
        "epoch=3-zeal=0.7.ckpt",
    ),
    "Lightning with one beside the last": (
        "Lightning",
        {"epoch=1-step=10.ckpt": "", "last.ckpt": ""},
        ["epoch 1", "last"],
        "epoch=1-step=10.ckpt",
    ),
    "Lightning in versions": (
        "Lightning",
        {
            "lightning_logs/version_9/checkpoints/epoch=4-step=50.ckpt": "",
            "lightning_logs/version_10/checkpoints/epoch=1-step=20.ckpt": "",
            "lightning_logs/version_10/checkpoints/epoch=2-step=30.ckpt": "",
        },
        ["version 9 epoch 4", "version 10 epoch 1", "version 10 epoch 2"],
        "lightning_logs/version_10/checkpoints/epoch=2-step=30.ckpt",
    ),
    "timm": (
        "timm",
        {
            "checkpoint-9.pth.tar": "",
            "checkpoint-10.pth.tar": "",
            "model_best.pth.tar": "",
            "last.pth.tar": "",
            "milestone-11.pth.tar": "",
            "recovery-3-20.pth.tar": "",
            "recovery_tmp.pth.tar": "",
        },
        ["epoch 9", "epoch 10", "checkpoint 11", "best", "last"],
        "model_best.pth.tar",
    ),
    "nnU-Net": (
        "nnU-Net",
        {"checkpoint_best.pth": "", "checkpoint_final.pth": "", "checkpoint_latest.pth": ""},
        ["best", "final", "last"],
        "checkpoint_final.pth",
    ),
    "SpeechBrain": (
        "SpeechBrain",
        SPEECHBRAIN,
        ["2024-05-01+10-00-00+00", "2024-05-01+12-00-00+00"],
        "save/CKPT+2024-05-01+10-00-00+00/model.ckpt",
    ),
    "OpenCLIP": (
        "OpenCLIP",
        {
            "params.txt": "lr: 0.1",
            "checkpoints/epoch_9.pt": "",
            "checkpoints/epoch_10.pt": "",
            "checkpoints/results.jsonl": '{"epoch": 9}',
        },
        ["epoch 9", "epoch 10"],
        "checkpoints/epoch_10.pt",
    ),
    "Accelerate": (
        "Accelerate",
        {
            "epoch_0/model.safetensors": "",
            "epoch_0/random_states_0.pkl": "",
            "epoch_1/model.safetensors": "",
            "model.safetensors": "",
        },
        ["epoch 0", "epoch 1", "final"],
        "model.safetensors",
    ),
    "Accelerate by its own numbers": (
        "Accelerate",
        {
            "checkpoints/checkpoint_9/pytorch_model.bin": "",
            "checkpoints/checkpoint_10/pytorch_model.bin": "",
        },
        ["checkpoint 9", "checkpoint 10"],
        "checkpoints/checkpoint_10/pytorch_model.bin",
    ),
    "DeepSpeed": (
        "Hugging Face Trainer",
        {
            "pytorch_model.bin": "",
            "zero_to_fp32.py": "",
            "global_step5/mp_rank_00_model_states.pt": "",
            "global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt": "",
        },
        ["final"],
        "pytorch_model.bin",
    ),
    "ESPnet": (
        "ESPnet",
        {
            "valid.acc.ave_10best.pth": "",
            "valid.acc.best.pth": "",
            "train.loss.best.pth": "",
            "9epoch.pth": "",
            "10epoch.pth": "",
            "latest.pth": "",
            "checkpoint.pth": "",
            "config.yaml": "lr: 0.1",
        },
        ["epoch 9", "epoch 10", "average", "best", "last"],
        "valid.acc.ave_10best.pth",
    ),
    "icefall": (
        "icefall",
        {"epoch-9.pt": "", "epoch-10.pt": "", "best-valid-loss.pt": "", "best-train-loss.pt": ""},
        ["epoch 9", "epoch 10", "best"],
        "epoch-10.pt",
    ),
    "fairseq": (
        "fairseq",
        {
            "checkpoints/checkpoint1.pt": "",
            "checkpoints/checkpoint_1_500.pt": "",
            "checkpoints/checkpoint_best.pt": "",
            "checkpoints/checkpoint_last.pt": "",
        },
        ["epoch 1", "step 500", "best", "last"],
        "checkpoints/checkpoint_best.pt",
    ),
    "OpenNMT": (
        "OpenNMT",
        {"model_step_500.pt": "", "model_step_1000.pt": ""},
        ["step 500", "step 1000"],
        "model_step_1000.pt",
    ),
    "Composer": (
        "Composer",
        {"ep1-ba100-rank0.pt": "", "ep2-ba200-rank0.pt": "", "latest-rank0.pt": ""},
        ["epoch 1", "epoch 2", "last"],
        "latest-rank0.pt",
    ),
    "NeMo": (
        "NeMo",
        {
            "checkpoints/asr--val_wer=0.25-epoch=1.ckpt": "",
            "checkpoints/asr--val_wer=0.20-epoch=2.ckpt": "",
            "checkpoints/asr--val_wer=0.22-epoch=3-last.ckpt": "",
        },
        ["epoch 1", "epoch 2", "last"],
        "checkpoints/asr--val_wer=0.20-epoch=2.ckpt",
    ),
    "Weights & Biases": (
        "Weights & Biases",
        {
            "files/model_best.pth": "",
            "files/other.pth": "",
            "files/wandb-summary.json": "{}",
        },
        ["other", "best"],
        "files/model_best.pth",
    ),
}


def lay_out(folder: Path, layout: Layout) -> Path:
    """Write the files; the weights are a tensor that holds the number of the file's line."""
    for number, (name, content) in enumerate(layout.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {"w": torch.full((2,), float(number))}
        if path.suffix == ".safetensors":
            save_file(state, path)
        elif path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".tar", ".pkl"):
            torch.save(state, path)
        else:
            path.write_text(content)
    return folder


@pytest.mark.parametrize("run", RUNS)
def test_a_run_of_each_tool_has_its_snapshots_and_its_rule(tmp_path: Path, run: str) -> None:
    tool, layout, names, chosen = RUNS[run]
    found = read_run(lay_out(tmp_path / "run", layout))
    assert (found.tool and found.tool.name) == tool
    assert [snapshot.name for snapshot in found.snapshots] == names
    assert found.chosen is not None
    assert found.chosen.snapshot.path.relative_to(tmp_path / "run").as_posix() == chosen
    checkpoint = open_checkpoint(tmp_path / "run")
    assert checkpoint.path == found.chosen.snapshot.path
    assert checkpoint.read("w")[0] == [*layout].index(chosen)
    if len(names) > 1:
        (note,) = checkpoint.notes
        assert note.startswith(
            f"{found.chosen.snapshot.name} is opened (the rule for runs of {tool}"
        )


def test_each_tool_of_the_table_has_a_run_here() -> None:
    assert {tool.name for tool in TOOLS} - {tool for tool, *_ in RUNS.values()} <= {"DeepSpeed"}


@pytest.mark.parametrize(
    ("run", "wanted", "file"),
    [
        ("Trainer with a final model", "best", "checkpoint-500/model.safetensors"),
        ("Trainer with a final model", "last", "checkpoint-1000/model.safetensors"),
        ("Trainer with a final model", "step 1000", "checkpoint-1000/model.safetensors"),
        (
            "Trainer with a final model",
            "checkpoint-500/model.safetensors",
            "checkpoint-500/model.safetensors",
        ),
        ("Ultralytics", "last", "weights/last.pt"),
        ("Ultralytics", "epoch 5", "weights/epoch5.pt"),
        ("Ultralytics", "last.pt", "weights/last.pt"),
        ("Lightning", "last", "checkpoints/last.ckpt"),
        ("Lightning", "epoch 10", "checkpoints/epoch=10-step=55-val_loss=0.30.ckpt"),
        ("SpeechBrain", "last", "save/CKPT+2024-05-01+12-00-00+00/model.ckpt"),
        ("nnU-Net", "best", "checkpoint_best.pth"),
        ("ESPnet", "last", "latest.pth"),
        ("OpenNMT", "best", None),
        ("Ultralytics", "final", None),
        ("Ultralytics", "epoch 6", None),
        ("Lightning by an unknown metric", "best", None),
    ],
)
def test_another_snapshot_can_be_named(
    tmp_path: Path, run: str, wanted: str, file: str | None
) -> None:
    choice = read_run(lay_out(tmp_path, RUNS[run][1])).named(wanted)
    assert (choice and choice.snapshot.path.relative_to(tmp_path).as_posix()) == file


def test_a_checkpoint_of_deepspeed_that_is_not_consolidated_is_refused(tmp_path: Path) -> None:
    files = ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"]
    lay_out(tmp_path, {f"global_step5/{file}": "" for file in files} | {"latest": "global_step5"})
    tool = read_run(tmp_path).tool
    assert tool is not None
    assert tool.name == "DeepSpeed"
    with pytest.raises(CheckpointError, match=r"not consolidated\. Run its zero_to_fp32\.py"):
        open_checkpoint(tmp_path)
    lay_out(tmp_path, {"checkpoint-5/model.safetensors": "", **TRAINER})
    (tmp_path / "global_step5").rename(tmp_path / "checkpoint-5" / "global_step5")
    assert [snapshot.name for snapshot in read_run(tmp_path).snapshots] == [
        "step 5",
        "step 500",
        "step 1000",
    ]


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["best.safetensors", "last.safetensors"], "best.safetensors"),
        (["run-best.pt", "run-final.pt", "run-epoch3.pt"], "run-best.pt"),
        (["final.pt", "epoch_3.pt"], "final.pt"),
        (["latest.pth", "epoch_3.pth", "iter_500.pth"], "latest.pth"),
        (["epoch_3.pt", "epoch_4.pt"], None),
        (["best.pt", "encoder.pt"], None),
        (["1.pt", "2.pt"], None),
    ],
)
def test_without_traces_of_a_tool_only_unambiguous_names_count(
    tmp_path: Path, files: list[str], chosen: str | None
) -> None:
    found = read_run(lay_out(tmp_path, dict.fromkeys(files, "")))
    assert found.tool is None
    assert (found.chosen and found.chosen.snapshot.path.name) == chosen
    if chosen is None:
        names = ", ".join(snapshot.name for snapshot in found.snapshots)
        with pytest.raises(CheckpointError, match=rf"holds 2 snapshots \({names}\)"):
            open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("files", "opened", "left_out"),
    [
        (["model.safetensors", "model.fp16.safetensors"], "model.safetensors", "a variant (fp16)"),
        (["pytorch_model.bin", "model.safetensors"], "model.safetensors", "another format"),
        (["x.ckpt", "x.safetensors"], "x.safetensors", "another format"),
        (["x.non_ema.safetensors", "x.safetensors"], "x.safetensors", "a variant (non_ema)"),
    ],
)
def test_forms_of_one_model_are_not_treated_as_shards(
    tmp_path: Path, files: list[str], opened: str, left_out: str
) -> None:
    lay_out(tmp_path, dict.fromkeys(files, ""))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.path.name == opened
    (note,) = checkpoint.notes
    (other,) = {*files} - {opened}
    assert note.startswith(f"{opened} is opened, not {other}: ")
    assert left_out in note


def test_a_damaged_state_of_the_trainer_names_no_best_checkpoint(tmp_path: Path) -> None:
    lay_out(tmp_path, TRAINER | {"trainer_state.json": "["})
    (tmp_path / "checkpoint-1000" / "trainer_state.json").write_text("[" * 100_000)
    found = read_run(tmp_path)
    assert found.named("best") is None
    assert found.chosen is not None
    assert found.chosen.snapshot.name == "step 1000"


def test_a_state_of_the_trainer_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    run = lay_out(tmp_path / "run", TRAINER)
    state = run / "checkpoint-1000" / "trainer_state.json"
    state.rename(tmp_path / "secret.json")
    state.symlink_to(tmp_path / "secret.json")
    assert read_run(run).named("best") is None


@pytest.mark.parametrize(
    ("metric", "lower"),
    [("val_loss", True), ("WER", True), ("val/acc", False), ("mAP50", False), ("zeal", None)],
)
def test_the_direction_of_a_metric_is_read_from_its_name(metric: str, lower: bool | None) -> None:
    assert is_lower_better(metric) is lower
