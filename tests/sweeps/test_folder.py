import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from soupcore import CheckpointError, NothingFitsError, Sweep, open_checkpoint
from soupcore.checkpoints import contents
from soupcore.sweeps.folder import (
    Status,
    changes,
    find_leftovers,
    find_runs,
    folder_signature,
    list_checkpoints,
)
from soupcore.sweeps.opening import is_scanned

pytestmark = pytest.mark.usefixtures("read_in_this_process")


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
        (["a.safetensors", "a.fp16.safetensors", "a.ckpt", "b.fp16.pt"], ["a", "b.fp16"]),
        (["lr0.001.pt", "lr0.0001.pt", "lr1e-5.pt"], ["lr1e-5", "lr0.0001", "lr0.001"]),
        (["run-10.pt", "run-2.pt", "run-2.5.pt"], ["run-2", "run-2.5", "run-10"]),
        (
            ["detect/train-10/weights/best.pt", "detect/train-2/weights/best.pt"],
            ["detect/train-2", "detect/train-10"],
        ),
        (["logs/a/version_0/checkpoints/last.ckpt", "logs/a/hparams.txt"], ["logs/a/version_0"]),
        (["a/b/c/d/e/model.pt"], []),
        (["r/m-00001-of-00002.bin", "r/m-00002-of-00002.bin", "r/m.bin.index.json"], ["r"]),
        (["m-00001-of-00001.bin", "other.safetensors.index.json"], ["m-00001-of-00001", "other"]),
        (["run/one.pt", *(f"run/{name}" for name in LEFTOVERS)], ["run"]),
        ([f"run/{name}" for name in LEFTOVERS], []),
        (
            [*LEFTOVERS, "a.pt", "my_optimizer.pt", "rng_state.pt"],
            ["a", "my_optimizer", "rng_state"],
        ),
        (["run/.hidden.pt", ".run/model.pt"], []),
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
    assert list(find_runs(tmp_path)) == names


def test_leftovers_of_trainers_are_listed_as_ignored(tmp_path: Path) -> None:
    for number in (10, 9):
        run = f"checkpoint-{number}"
        fill(tmp_path, f"{run}/optimizer.pt")
        save_file({"w": torch.ones(2) * number}, tmp_path / run / "model.safetensors")
    fill(tmp_path, "scheduler.pt")
    sweep = Sweep.from_folder(tmp_path)
    assert list(sweep.ingredients) == ["checkpoint-9", "checkpoint-10"]
    assert sweep.fit.findings == ()
    assert sweep.fit.ignored == (
        "checkpoint-9/optimizer.pt",
        "checkpoint-10/optimizer.pt",
        "scheduler.pt",
    )


UNCLEAR = {
    "many": (
        ["1.pt", "2.pt", "3.pt", "4.pt"],
        "the folder holds 4 snapshots (1, 2, 3, 4), and it is not clear which one to open",
        "Choose one of them, the last one, or all of them",
    ),
    "numbered": (
        ["epoch_9.pt", "epoch_10.pt"],
        "the folder holds 2 snapshots (epoch 9, epoch 10)",
        "Choose one of them, the last one, or all of them",
    ),
    "best of two": (
        ["best_G.pt", "best_D.pt"],
        "the folder holds 2 snapshots (best_D, best_G)",
        "Choose one of them",
    ),
    "both": (
        ["weights/a.pt", "checkpoints/b.ckpt"],
        "the folder holds 2 snapshots (a, b)",
        "Choose one of them",
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
def test_an_ambiguous_run_is_reported(tmp_path: Path, run: str) -> None:
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


def test_the_best_snapshot_of_an_ultralytics_run_is_used_and_noted(tmp_path: Path) -> None:
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
    assert sweep.fit.findings[0].problem == (
        "best is opened (the rule for runs of Ultralytics: best, last; by the name of its file), "
        "not last."
    )
    (tmp_path / "train1" / "weights" / "best.pt").unlink()
    assert folder_signature(tmp_path) != before


def test_folders_of_torch_files_are_opened(tmp_path: Path) -> None:
    for run in ("a", "b"):
        fill(tmp_path, f"{run}/optimizer.pt", f"{run}/config.json")
        torch.save({"w": torch.full((2,), float(ord(run)))}, tmp_path / run / "pytorch_model.bin")
    sweep = Sweep.from_folder(tmp_path)
    assert sweep["b"].checkpoint.read("w").tolist() == [98, 98]
    assert find_leftovers(tmp_path) == ["a/optimizer.pt", "b/optimizer.pt"]


def bytes_of(state: dict[str, torch.Tensor], *, zipped: bool = True) -> bytes:
    written = io.BytesIO()
    torch.save({"state_dict": state, "epoch": 3}, written, _use_new_zipfile_serialization=zipped)
    return written.getvalue()


STATE = {"w": torch.ones(2)}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("run.t7", "run"),
        ("run.tar", "run"),
        ("run.th", "run"),
        ("run.pyth", "run"),
        ("run.pkl", "run"),
        ("run.model", "run"),
        ("run.WEIGHTS", "run"),
        ("model_best_0.95", "model_best_0.95"),
        ("checkpoint", "checkpoint"),
        ("run.v2", "run.v2"),
        ("run/run.t7", "run"),
        ("run/checkpoints/last", "run"),
    ],
)
def test_a_torch_file_is_opened_under_any_name(
    tmp_path: Path, file: str, name: str, zipped: bool
) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(bytes_of(STATE, zipped=zipped))
    sweep = Sweep.from_folder(tmp_path)
    assert sweep[name].checkpoint.read("w").tolist() == [1, 1]
    assert (sweep.fit.findings, sweep.fit.others) == ((), ())


def test_safetensors_are_opened_under_any_name(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.weights")
    save_file(STATE, tmp_path / "no suffix")
    assert [*Sweep.from_folder(tmp_path).ingredients] == ["model", "no suffix"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("notes.txt", b"x" * 300),
        ("config", b"{}"),
        ("table.tar", bytes(257) + b"ustar\x0000"),
        ("archive.model", b"PK\x03\x04" + bytes(26) + b"word/document.xml"),
        ("numbers.pkl", b"[1, 2]"),
        ("tokenizer.model", b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02"),
        ("cut", b"\x80"),
        ("nothing", b""),
        ("logs/events.out", b"anything"),
    ],
    ids=str,
)
def test_other_files_are_listed(tmp_path: Path, file: str, content: bytes) -> None:
    save_file(STATE, tmp_path / "run.safetensors")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(content)
    sweep = Sweep.from_folder(tmp_path)
    assert [*sweep.ingredients] == ["run"]
    assert sweep.fit.findings == ()
    assert sweep.fit.others == (file.partition("/")[0],)


def test_leftovers_of_trainers_do_not_make_a_run_ambiguous(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "run.safetensors")
    fill(tmp_path, "step_10/random_states_0.pkl")
    (tmp_path / "step_10" / "samples.pkl").write_bytes(bytes_of(STATE))
    save_file(STATE, tmp_path / "step_10" / "model.safetensors")
    assert [*Sweep.from_folder(tmp_path).ingredients] == ["run", "step_10"]


def dangling(folder: Path) -> None:
    (folder / "x.pt").symlink_to("/nowhere/x.pt")


def to_itself(folder: Path) -> None:
    (folder / "x").symlink_to("x")


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "x.pt")


def deep(folder: Path) -> None:
    fill(folder, "x/fold_0/best/model.pt")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (dangling, "is a link to /nowhere/x.pt, which does not exist"),
        (to_itself, "is a link to x, which does not exist"),
        (pipe, "is not a regular file"),
        (deep, r"contains weights too deep inside (fold_0/best/model.pt)"),
    ],
)
def test_an_entry_that_is_not_opened_is_a_finding(
    tmp_path: Path, make: Callable[[Path], None], problem: str
) -> None:
    save_file(STATE, tmp_path / "run.safetensors")
    make(tmp_path)
    sweep = Sweep.from_folder(tmp_path)
    assert [*sweep.ingredients] == ["run"]
    (finding,) = sweep.fit.findings
    assert (finding.severity, finding.ingredient.removesuffix(".pt")) == ("warning", "x")
    assert finding.problem.startswith(problem)
    assert finding.way_out


@pytest.mark.parametrize("kind", ["file", "folder", "file in a folder", "run folder"])
def test_links_that_lead_out_of_the_roots_are_not_followed(tmp_path: Path, kind: str) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "root" / "sweep"
    for place in (outside, folder):
        (place / "checkpoints").mkdir(parents=True)
    save_file(STATE, outside / "checkpoints" / "secret.safetensors")
    save_file(STATE, folder / "run.safetensors")
    (folder / "checkpoints").rmdir()
    secret = outside / "checkpoints" / "secret.safetensors"
    if kind == "file":
        (folder / "x.safetensors").symlink_to(secret)
    elif kind == "folder":
        (folder / "x").symlink_to(outside)
    elif kind == "file in a folder":
        (folder / "x").mkdir()
        (folder / "x" / "model.safetensors").symlink_to(secret)
    else:
        (folder / "x").mkdir()
        (folder / "x" / "checkpoints").symlink_to(outside / "checkpoints")
    assert [*Sweep.from_folder(folder).ingredients] == ["run", "x"]
    sweep = Sweep.from_folder(folder, within=[tmp_path / "root"])
    assert [*sweep.ingredients] == ["run"]
    (finding,) = sweep.fit.findings
    assert finding.ingredient.removesuffix(".safetensors") == "x"
    assert "leads out of the allowed folders" in finding.problem
    assert [*Sweep.from_folder(folder, within=[tmp_path]).ingredients] == ["run", "x"]


def test_tables_that_are_links_out_of_the_roots_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    save_file(STATE, folder / "run.safetensors")
    (tmp_path / "secret.csv").write_text("name,password\nrun,hunter2\n")
    (tmp_path / "secret.json").write_text('{"password": "hunter2"}')
    for name, target in (("sweep.csv", "secret.csv"), ("run.json", "secret.json")):
        (folder / name).symlink_to(tmp_path / target)
    sweep = Sweep.from_folder(folder, within=[folder])
    assert sweep["run"].hyperparameters == {}
    assert [finding.ingredient for finding in sweep.fit.findings] == ["run.json", "sweep.csv"]


def test_a_distributed_checkpoint_of_torch_is_named_with_the_command_that_makes_it_one_file(
    tmp_path: Path, workspace: Path
) -> None:
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
    from torch.distributed.checkpoint.state_dict_saver import save

    state = {"w": torch.arange(6.0)}
    parts = tmp_path / "run" / "checkpoint-5" / "pytorch_model_fsdp_0"
    with warnings.catch_warnings(action="ignore"):  # that this is a single process
        save(state, checkpoint_id=parts)
    save_file(state, tmp_path / "whole.safetensors")
    sweep = Sweep.from_folder(tmp_path)
    (finding,) = sweep.fit.findings
    assert (finding.ingredient, finding.severity) == ("run", "warning")
    assert "is a distributed checkpoint of torch (pytorch_model_fsdp_0/*.distcp)" in finding.problem
    assert finding.way_out.endswith("dcp_to_torch pytorch_model_fsdp_0 model.pt")
    with pytest.raises(CheckpointError, match=r"fsdp_0 is a distributed checkpoint of torch"):
        open_checkpoint(parts)
    with warnings.catch_warnings(action="ignore"):
        dcp_to_torch_save(parts, tmp_path / "run" / "model.pt")
    assert Sweep.from_folder(tmp_path)["run"].digest == sweep["whole"].digest


A, B, C = Status(1, 1), Status(2, 1), Status(2, 2)


@pytest.mark.parametrize(
    ("before", "last", "now", "settled", "unsettled"),
    [
        pytest.param({"a": A}, {"a": A}, {"a": A}, (), {}, id="nothing"),
        pytest.param({}, {}, {"a": B}, (), {"a": 2}, id="new"),
        pytest.param({}, {"a": A}, {"a": B}, (), {"a": 2}, id="grows"),
        pytest.param({}, {"a": B}, {"a": C}, (), {"a": 2}, id="the same size, written again"),
        pytest.param({}, {"a": B}, {"a": B}, ("a",), {}, id="new and settled"),
        pytest.param({"a": A}, {"a": B}, {"a": B}, ("a",), {}, id="changed and settled"),
        pytest.param({"a": A}, {"a": B}, {"a": A}, (), {}, id="as before"),
        pytest.param({"a": A}, {"a": A}, {}, (), {}, id="just removed"),
        pytest.param({"a": A}, {}, {}, ("a",), {}, id="removed"),
        pytest.param({}, {"a2": A, "a10": A}, {"a10": B, "a2": A}, ("a2",), {"a10": 2}, id="both"),
    ],
)
def test_changed_files_are_settled_when_two_listings_agree(
    before: dict[str, Status],
    last: dict[str, Status],
    now: dict[str, Status],
    settled: tuple[str, ...],
    unsettled: dict[str, int],
) -> None:
    found = changes(before, last, now)
    assert (found.settled, dict(found.unsettled)) == (settled, unsettled)


def test_a_listing_has_the_checkpoints_of_all_levels_by_name_alone(tmp_path: Path) -> None:
    run = tmp_path / "detect" / "run-1" / "weights"
    run.mkdir(parents=True)
    for name in ("best.pt", ".hidden.pt", "results.csv", "optimizer.pt", "model.safetensors"):
        (run / name).write_bytes(b"12345")
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret.pt").write_bytes(b"1")
    (tmp_path / "link").symlink_to(outside)
    (tmp_path / "gone.pt").symlink_to(outside / "gone")
    os.mkfifo(tmp_path / "pipe.pt")
    sizes = {name: status.size for name, status in list_checkpoints(tmp_path).items()}
    inside = "detect/run-1/weights"
    assert sizes == {f"{inside}/best.pt": 5, f"{inside}/model.safetensors": 5}
    assert list_checkpoints(tmp_path / "nowhere") == {}


def written(number: float, suffix: str, folder: Path) -> bytes:
    state = {"w": torch.full((300,), number), "b": torch.arange(4.0)}
    if suffix == ".safetensors":
        return save(state)
    torch.save(state, folder / "whole")
    return (folder / "whole").read_bytes()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_an_unfinished_file_waits_and_is_taken_once_it_is_complete(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    for number in (1, 2):
        (folder / f"run-{number}.safetensors").write_bytes(
            written(number, ".safetensors", tmp_path)
        )
    digests = {name: each.digest for name, each in Sweep.from_folder(folder).ingredients.items()}
    monkeypatch.setattr(contents, "read_contents", None)  # no process reads what is not complete
    content, growing = written(3, suffix, tmp_path), folder / f"run-3{suffix}"
    last = list_checkpoints(folder)
    for stop in (0, 4, 200, len(content) // 2, len(content) - 1):
        growing.write_bytes(content[:stop])
        now = list_checkpoints(folder)
        assert changes(last, last, now).unsettled == {growing.name: stop}
        sweep = Sweep.from_folder(folder)
        assert {name: each.digest for name, each in sweep.ingredients.items()} == digests
        (finding,) = (each for each in sweep.fit.findings if each.severity == "misfit")
        assert finding.ingredient == "run-3"
        assert "If it is still being written, wait until it is complete." in finding.way_out
        assert is_scanned(folder)  # a page that is drawn meanwhile asks for no work
        last = now
    monkeypatch.undo()
    growing.write_bytes(content)
    sweep = Sweep.from_folder(folder)
    assert not sweep.fit.misfits
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / growing.name).write_bytes(content)
    assert sweep["run-3"].digest == Sweep.from_folder(alone)["run-3"].digest


def test_incomplete_shards_are_not_opened(tmp_path: Path, workspace: Path) -> None:
    shards = {n: save({f"w{n}": torch.full((20,), float(n))}) for n in (1, 2)}
    run = tmp_path / "run-1"
    run.mkdir()
    (run / "model-00001-of-00002.safetensors").write_bytes(shards[1])
    with pytest.raises(NothingFitsError) as caught:
        Sweep.from_folder(tmp_path)
    (finding,) = caught.value.fit.findings
    assert "If it is still being written, wait until it is complete." in finding.way_out
    (run / "model-00002-of-00002.safetensors").write_bytes(shards[2])
    assert [*Sweep.from_folder(tmp_path)["run-1"].checkpoint.tensors] == ["w1", "w2"]
