import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from soupcore import Sweep
from soupcore.sweeps.tables import Problems, TableError, read_yaml

pytestmark = pytest.mark.usefixtures("read_in_this_process")

State = Mapping[str, Any]

RESULTS = """epoch,time,train/box_loss,metrics/mAP50(B),metrics/mAP50-95(B),lr/pg0
1,9.5,2.5,0.25,0.125,0.01
2,19.5,2.0,0.50,0.375,0.005
3,29.5,1.5,0.45,0.250,0.001
"""
HISTORY = [
    {"epoch": 1.0, "step": 5, "loss": 0.9},
    {"epoch": 1.0, "step": 5, "eval_loss": 0.8, "eval_accuracy": 0.5},
    {"epoch": 2.0, "step": 10, "loss": 0.7},
    {"epoch": 2.0, "step": 10, "eval_loss": 0.75, "eval_accuracy": 0.625},
    {"epoch": 2.0, "step": 10, "train_runtime": 3.5},
]


def write(folder: Path, files: Mapping[str, str | State]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif path.suffix == ".safetensors":
            save_file(dict(content), path)
        else:
            torch.save(dict(content), path)


def weights(**beside: Any) -> State:
    return {"state_dict": {"w": torch.ones(2)}, **beside} if beside else {"w": torch.ones(2)}


def state(history: list[dict[str, float]], best: str | None = None) -> str:
    return json.dumps({"best_model_checkpoint": best, "log_history": history, "max_steps": 10})


CASES: dict[str, tuple[dict[str, str | State], str, State, State]] = {
    "Ultralytics, best by the metrics in the file": (
        {
            "run/weights/best.pt": weights(
                train_metrics={"metrics/mAP50(B)": 0.500004, "metrics/mAP50-95(B)": 0.3750001}
            ),
            "run/weights/last.pt": weights(epoch=2),
            "run/args.yaml": "lr0: 1e-3\ncos_lr: false\nfreeze: null\nseed: 7\n",
            "run/results.csv": RESULTS,
        },
        "",
        {"lr0": 0.001, "cos_lr": False, "freeze": None, "seed": 7},
        {"epoch": 2, "metrics/mAP50-95(B)": 0.375, "train/box_loss": 2.0},
    ),
    "Ultralytics, last": (
        {
            "run/weights/best.pt": weights(),
            "run/weights/last.pt": weights(),
            "run/results.csv": RESULTS,
        },
        "last",
        {},
        {"epoch": 3, "metrics/mAP50-95(B)": 0.25},
    ),
    "Ultralytics counts epochs of files from 0 and of the log from 1": (
        {
            "run/weights/best.pt": weights(),
            "run/weights/epoch0.pt": weights(),
            "run/results.csv": RESULTS,
        },
        "epoch 0",
        {},
        {"epoch": 1, "metrics/mAP50-95(B)": 0.125},
    ),
    "Trainer, best": (
        {
            "run/checkpoint-5/model.safetensors": weights(),
            "run/checkpoint-5/trainer_state.json": state(HISTORY[:2], "out/checkpoint-5"),
            "run/checkpoint-10/model.safetensors": weights(),
            "run/checkpoint-10/trainer_state.json": state(HISTORY[:4], "out/checkpoint-5"),
            "run/checkpoint-10/config.json": '{"model_type": "vit", "hidden_size": 8}',
        },
        "",
        {},
        {"loss": 0.9, "eval_accuracy": 0.5},
    ),
    "Trainer, final": (
        {
            "run/model.safetensors": weights(),
            "run/config.json": '{"model_type": "vit", "hidden_size": 8, "dropout": 0.1}',
            "run/checkpoint-5/model.safetensors": weights(),
            "run/checkpoint-10/model.safetensors": weights(),
            "run/checkpoint-10/trainer_state.json": state(HISTORY),
        },
        "",
        {"model_type": "vit", "dropout": 0.1},
        {"loss": 0.7, "eval_accuracy": 0.625, "train_runtime": 3.5},
    ),
    "Lightning": (
        {
            "run/checkpoints/epoch=0-step=10.ckpt": weights(),
            "run/checkpoints/epoch=1-step=20.ckpt": weights(),
            "run/hparams.yaml": "lr: 0.1\nnet:\n  width: 8\n"
            "  act: !!python/name:torch.nn.ReLU ''\n",
            "run/metrics.csv": "epoch,step,train_loss,val_acc\n0,9,0.9,\n0,9,,0.5\n1,19,0.8,\n"
            "1,19,,0.75\n",
        },
        "",
        {"lr": 0.1, "net.width": 8, "net.act": None},
        {"epoch": 1, "step": 19, "train_loss": 0.8, "val_acc": 0.75},
    ),
    "timm, best by the epoch in the file": (
        {
            "run/model_best.pth.tar": weights(epoch=1, arch="resnet18"),
            "run/checkpoint-0.pth.tar": weights(epoch=0),
            "run/args.yaml": "lr: 0.05\nopt_betas: [0.9, 0.95]\n",
            "run/summary.csv": "epoch,train_loss,eval_top1\n0,2.0,50.5\n1,1.5,75.5\n2,1.4,70.5\n",
        },
        "",
        {"lr": 0.05, "opt_betas": "[0.9, 0.95]", "arch": "resnet18"},
        {"epoch": 1, "eval_top1": 75.5},
    ),
    "SpeechBrain": (
        {
            "run/hyperparams.yaml": "lr: 0.5\nmodel: !new:speechbrain.nnet.CRDNN\n  size: 3\n"
            "out: !ref <lr>\n",
            "run/save/CKPT+2024-05-01+10-00-00+00/model.ckpt": weights(),
            "run/save/CKPT+2024-05-01+10-00-00+00/CKPT.yaml": "WER: 5.5\nend-of-epoch: true\n",
            "run/save/CKPT+2024-05-01+11-00-00+00/model.ckpt": weights(),
            "run/save/CKPT+2024-05-01+11-00-00+00/CKPT.yaml": "WER: 6.5\nend-of-epoch: true\n",
        },
        "",
        {"lr": 0.5, "model.size": 3, "out": "<lr>"},
        {"WER": 5.5},
    ),
    "OpenCLIP": (
        {
            "run/params.txt": "lr: 1e-5\nname: a:b\nuse_bn: False\n",
            "run/checkpoints/epoch_1.pt": weights(),
            "run/checkpoints/epoch_2.pt": weights(),
            "run/checkpoints/results.jsonl": '{"top1": 0.5, "epoch": 1}\n'
            '{"top1": 0.25, "epoch": 2}',
        },
        "",
        {"lr": 1e-5, "name": "a:b", "use_bn": False},
        {"top1": 0.25, "epoch": 2},
    ),
    "Hydra and Weights & Biases": (
        {
            "run/model.pth": weights(),
            "run/.hydra/config.yaml": "optim:\n  lr: 0.1\n  <<: {wd: 0.2}\n",
            "run/files/config.yaml": "seed:\n  desc: null\n  value: 3\n_wandb:\n  value: {}\n",
            "run/files/wandb-summary.json": '{"val_acc": 0.75, "_step": 9, "note": "x"}',
        },
        "",
        {"optim.lr": 0.1, "optim.wd": 0.2, "seed": 3},
        {"val_acc": 0.75, "_step": 9},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_hyperparameters_and_the_metrics_of_the_snapshot_are_read(
    tmp_path: Path, case: str
) -> None:
    files, snapshot, hyperparameters, logged = CASES[case]
    write(tmp_path, files)
    sweep = Sweep.from_folder(tmp_path, snapshot=snapshot)
    found = sweep["run"]
    assert {k: found.hyperparameters[k] for k in hyperparameters} == hyperparameters
    assert {k: found.logged_metrics[k] for k in logged} == logged
    assert found.hyperparameters.keys().isdisjoint(found.logged_metrics)
    assert found.origins.keys() == found.hyperparameters.keys() | found.logged_metrics.keys()
    assert not [f for f in sweep.fit.findings if f.severity == "warning"]


def test_each_value_names_its_file_and_the_table_takes_precedence(tmp_path: Path) -> None:
    files, *_ = CASES["timm, best by the epoch in the file"]
    write(tmp_path, {**files, "sweep.csv": "name,lr,val_acc\nrun,0.25,0.5\n"})
    found = Sweep.from_folder(tmp_path)["run"]
    assert (found.hyperparameters["lr"], found.origins["lr"]) == (0.25, "sweep.csv")
    assert (found.logged_metrics["val_acc"], found.origins["val_acc"]) == (0.5, "sweep.csv")
    assert found.origins["opt_betas"] == "run/args.yaml"
    assert found.origins["eval_top1"] == "run/summary.csv, epoch 1"
    assert found.origins["arch"] == "model_best.pth.tar"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "wandb_export.csv",
            '"Name","State","lr","val_acc"\n"a","finished",0.1,0.5\n"b","failed",0.2,0.25\n'
            '"gone","finished",0.2,0.25\n',
        ),
        (
            "mlflow.csv",
            "run_id,params.lr,metrics.val_acc,tags.mlflow.runName\n1f,0.1,0.5,a\n2e,0.2,0.25,b\n",
        ),
    ],
)
def test_exports_of_trackers_are_read(tmp_path: Path, name: str, content: str) -> None:
    write(tmp_path, {"a.pt": weights(), "b.safetensors": {"w": torch.zeros(2)}, name: content})
    (tmp_path / "notes.csv").write_text("x,y\n1,2\n")
    sweep = Sweep.from_folder(tmp_path)
    for run, lr, acc in (("a", 0.1, 0.5), ("b", 0.2, 0.25)):
        assert sweep[run].hyperparameters["lr"] == lr
        assert sweep[run].logged_metrics == {"val_acc": acc}
        assert sweep[run].origins["lr"] == sweep[run].origins["val_acc"] == name
    assert sweep.logged_columns == ["val_acc"]
    assert sweep.fit.others == ("notes.csv",)
    notes = [(f.ingredient, f.problem) for f in sweep.fit.findings]
    expected = "describes 1 runs that are not in this folder: gone"
    assert notes == ([(name, expected)] if "wandb" in name else [])


class TrainingArguments:
    """Pickles like the Trainer's arguments, whose class is not known to the reader."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def test_arguments_of_the_trainer_are_read_without_their_class(tmp_path: Path) -> None:
    arguments = TrainingArguments(learning_rate=1e-4, seed=3, output_dir="out", _n_gpu=0)
    for name in ("a", "b"):
        write(tmp_path, {f"{name}/model.safetensors": {"w": torch.full((2,), float(ord(name)))}})
        torch.save(arguments, tmp_path / name / "training_args.bin")
    sweep = Sweep.from_folder(tmp_path)
    assert sweep["a"].hyperparameters == {"learning_rate": 1e-4, "seed": 3, "output_dir": "out"}
    assert sweep["a"].origins["seed"] == "a/training_args.bin"
    assert (sweep.fit.findings, sweep.fit.ignored) == ((), ())


class Command:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def test_arguments_of_the_trainer_execute_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"run/model.safetensors": weights()})
    arguments = {"learning_rate": 0.1, "lr": Command(tmp_path / "canary")}
    torch.save(arguments, tmp_path / "run" / "training_args.bin")
    sweep = Sweep.from_folder(tmp_path)
    assert sweep["run"].hyperparameters == {}
    (finding,) = sweep.fit.findings
    problem = "run/training_args.bin cannot be read. Its pickle names posix.system, which runs code"
    assert finding.problem.startswith(problem)
    assert not (tmp_path / "canary").exists()


def test_the_metrics_of_the_best_step_are_shown_if_the_best_model_is_loaded_at_the_end(
    tmp_path: Path,
) -> None:
    files, *_ = CASES["Trainer, final"]
    write(tmp_path, files)
    write(tmp_path, {"run/checkpoint-10/trainer_state.json": state(HISTORY, "x/checkpoint-5")})
    torch.save(TrainingArguments(load_best_model_at_end=True), tmp_path / "run/training_args.bin")
    assert Sweep.from_folder(tmp_path)["run"].logged_metrics["eval_accuracy"] == 0.5


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("args.yaml", b"a: [", "is not YAML"),
        ("args.yaml", b"- 1", "is not a YAML mapping"),
        ("args.yaml", b"[" * 20_000, "is not YAML (it is nested too deep)"),
        ("args.yaml", b"a: &a [*a]", "is not YAML (found unconstructable recursive node)"),
        ("args.yaml", b"a: b\n" * 60_000, "has more than 256 KiB, the limit for such files"),
        ("args.yaml", b"\xff\xfe", "is not a YAML mapping"),
        ("results.csv", b"", "is empty"),
        ("trainer_state.json", b"[]", "has no list 'log_history'"),
        ("trainer_state.json", b"{", "is not JSON"),
        (
            "training_args.bin",
            b"no pickle",
            "cannot be read. It is damaged, or not a torch.save file",
        ),
        ("config.json", b"[", "is not JSON"),
    ],
)
def test_a_malformed_file_is_a_finding_that_names_it(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    write(tmp_path, {"run/best.pt": weights(), "run/last.pt": {"w": torch.zeros(2)}})
    (tmp_path / "run" / name).write_bytes(content)
    sweep = Sweep.from_folder(tmp_path, snapshot="every")
    (finding,) = [f for f in sweep.fit.findings if f.severity == "warning"]
    assert finding.problem.startswith(f"run/{name} {problem}")
    assert finding.way_out
    assert len(sweep) == 2


def test_files_that_lead_out_of_the_roots_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    write(folder, {"run/model.pt": weights()})
    (tmp_path / "secret.yaml").write_text("password: hunter2\n")
    (folder / "run" / "args.yaml").symlink_to(tmp_path / "secret.yaml")
    sweep = Sweep.from_folder(folder, within=[folder])
    assert sweep["run"].hyperparameters == {}
    (finding,) = sweep.fit.findings
    assert finding.problem == "run/args.yaml is a link that leads out of the allowed folders"


@pytest.mark.parametrize("width", [3, 9])
def test_aliases_in_yaml_take_no_more_room_than_a_table(tmp_path: Path, width: int) -> None:
    lines = ["a0: &a0 {x: 1}"]
    for number in range(1, 30):
        inner = ", ".join(f"k{index}: *a{number - 1}" for index in range(width))
        lines.append(f"a{number}: &a{number} {{{inner}}}")
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(TableError, match="columns; the limit is 1,000"):
        read_yaml(tmp_path / "bomb.yaml", Problems())


def test_merges_in_yaml_give_defaults(tmp_path: Path) -> None:
    text = "base: &base {lr: 0.1, wd: 0.2}\nrun:\n  lr: 0.5\n  <<: *base\n"
    (tmp_path / "merged.yaml").write_text(text)
    found = read_yaml(tmp_path / "merged.yaml", Problems())
    assert found == {"base.lr": 0.1, "base.wd": 0.2, "run.lr": 0.5, "run.wd": 0.2}


@pytest.mark.parametrize(
    ("case", "name", "key", "value"),
    [
        ("timm, best by the epoch in the file", "checkpoint-0", "eval_top1", 50.5),
        ("timm, best by the epoch in the file", "model_best", "eval_top1", 75.5),
        ("Trainer, best", "checkpoint-5", "eval_accuracy", 0.5),
        ("Ultralytics, last", "weights", "epoch", 3),
    ],
)
def test_the_folder_of_a_run_opens_as_a_sweep_with_its_log(
    tmp_path: Path, case: str, name: str, key: str, value: float
) -> None:
    files, snapshot, *_ = CASES[case]
    write(tmp_path, {file: state for file, state in files.items() if isinstance(state, str)})
    for number, (file, state) in enumerate(files.items()):
        if not isinstance(state, str):
            inner = state.get("state_dict", state)
            write(tmp_path, {file: {**state, **{k: v + number for k, v in inner.items()}}})
    sweep = Sweep.from_folder(tmp_path / "run", snapshot=snapshot)
    assert sweep[name].logged_metrics[key] == value


def test_the_sweep_of_ultralytics_shows_differing_settings(tmp_path: Path) -> None:
    for number in (1, 2):
        run = f"train-{number}"
        write(
            tmp_path,
            {
                f"{run}/weights/best.pt": {"w": torch.full((2,), float(number))},
                f"{run}/weights/last.pt": {"w": torch.zeros(2)},
                f"{run}/args.yaml": f"lr0: 0.00{number}\nbatch: 16\nname: {run}\n",
                f"{run}/results.csv": RESULTS.replace("0.250", f"0.2{number}"),
            },
        )
    sweep = Sweep.from_folder(tmp_path, snapshot="last")
    assert sweep.columns == ["lr0"]
    assert sweep["train-1"].hyperparameters["name"] == "train-1"
    assert sweep.logged_columns == ["metrics/mAP50-95(B)"]
