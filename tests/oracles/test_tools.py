"""Files of the tools that people train with, written by the tools themselves."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from shutil import copy
from types import ModuleType

import pytest
import torch

import soupcore
from soupcore import cli
from soupcore.checkpoints.names import layer_of
from soupcore.checkpoints.torch_format import TorchCheckpoint
from tests.helpers import same_weights, save_checked
from tests.oracles.expected import load_expected

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[2]
TOOLS = (
    *("lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics", "omegaconf"),
    *("transformers", "huggingface_hub", "peft", "ultralytics", "timm", "diffusers"),
)
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "YOLO_OFFLINE": "true",
    "YOLO_VERBOSE": "false",
}


class Absent(MetaPathFinder):
    """Makes imports of the tools fail, as where they are not installed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        if name.partition(".")[0] in TOOLS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture(autouse=True)
def _without_the_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    # Tests of other modules, which ran in the same process, may have imported them.
    for name in [name for name in sys.modules if name.partition(".")[0] in TOOLS]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])


def run(module: str, *arguments: str | Path, home: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", f"tests.oracles.{module}", *map(str, arguments)],
        cwd=PROJECT,
        env=os.environ | QUIET | {"HF_HOME": str(home), "YOLO_CONFIG_DIR": str(home)},
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def lightning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lightning")
    run("lightning_files", "write", folder, home=folder)
    return folder


@pytest.fixture(scope="module")
def transformers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers")
    run("transformers_files", folder, home=folder)
    return folder


@pytest.fixture(scope="module")
def ultralytics(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ultralytics")
    run("ultralytics_files", "write", folder, home=folder / "home")
    return folder


def assert_as_expected(path: Path, key: Path | None = None) -> soupcore.Checkpoint:
    """Every set of weights is what the tool finds, bit for bit; also the one taken first."""
    expected = load_expected(key or path)
    for weights, state in expected.items():
        opened = soupcore.open_checkpoint(path, weights=weights or None)
        assert same_weights(opened.state_dict(), state)
        opened.scan()
    return soupcore.open_checkpoint(path)


def soup_of(paths: Sequence[Path], folder: Path, weights: str = "") -> soupcore.Checkpoint:
    """Return the mean of files of a tool, written in the form of the first one and opened."""
    (folder / "sweep").mkdir()
    for path in paths:
        copy(path, folder / "sweep")
    soup = soupcore.uniform(soupcore.Sweep.from_folder(folder / "sweep", weights=weights))
    assert soup.output.why_no_pt is None
    written, _ = save_checked(soup, folder / f"soup{soup.output.pt_suffix}")
    opened = soupcore.open_checkpoint(written)
    assert same_weights(opened.state_dict(), soup.state_dict())
    return opened


@pytest.mark.parametrize(
    ("name", "details"),
    [
        ("omegaconf", {"epoch": 1, "config.lr": 0.5, "config.optimizer.name": "sgd"}),
        ("namespace", {"epoch": 1, "args.lr": 0.5, "args.seed": 3}),
        ("average", {"epoch": 1, "lr": 0.5}),
    ],
)
def test_a_checkpoint_of_lightning(
    lightning: Path, name: str, details: dict[str, str | float]
) -> None:
    checkpoint = assert_as_expected(lightning / f"{name}.ckpt")
    assert checkpoint.details.items() >= details.items()


def test_the_average_of_lightning_is_taken_first_though_it_stands_where_others_put_raw_weights(
    lightning: Path,
) -> None:
    path = lightning / "average.ckpt"
    checkpoint = soupcore.open_checkpoint(path)
    assert [found.title for found in checkpoint.weight_sets] == ["averaged weights", "raw weights"]
    average, raw = load_expected(path)["state_dict"], load_expected(path)["current_model_state"]
    assert same_weights(checkpoint.state_dict(), average)
    assert not same_weights(average, raw)


@pytest.mark.parametrize("weights", ["averaged weights", "raw weights"])
def test_lightning_opens_a_soup_of_its_checkpoints(
    lightning: Path, tmp_path: Path, weights: str
) -> None:
    soup = soup_of([lightning / "average.ckpt", lightning / "average-1.ckpt"], tmp_path, weights)
    assert soup.details == {}
    run("lightning_files", "load", soup.path, home=tmp_path)
    (found,) = load_expected(soup.path).values()
    assert same_weights(found, soup.state_dict())


@pytest.mark.parametrize("model", ["bert", "bert-half", "gpt2"])
@pytest.mark.parametrize("layout", ["whole", "shards", "whole-bin", "shards-bin"])
def test_a_folder_of_transformers(transformers: Path, model: str, layout: str) -> None:
    folder = transformers / f"{model}-{layout}"
    for path in (folder, _file_in(folder)):
        assert_as_expected(path, key=folder)


@pytest.mark.parametrize("model", ["bert", "gpt2"])
def test_each_block_of_transformers_is_one_layer(transformers: Path, model: str) -> None:
    blocks = json.loads((transformers / "blocks.json").read_text())[model]
    checkpoint = soupcore.open_checkpoint(transformers / f"{model}-whole")
    for block, names in blocks.items():
        assert {name for name in checkpoint.tensors if layer_of(name) == block} == set(names)


def _file_in(folder: Path) -> Path:
    indices = [*folder.glob("*.index.json")]
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    (path,) = indices or files
    return path


def test_a_checkpoint_of_ultralytics(ultralytics: Path) -> None:
    checkpoint = assert_as_expected(ultralytics / "yolo-0.pt")
    assert checkpoint.details.items() >= {"epoch": 3, "lr0": 0.02, "best_fitness": 0.5}.items()
    assert isinstance(checkpoint, TorchCheckpoint)
    assert checkpoint.contents.executes == ()


def test_ultralytics_opens_a_soup_of_its_checkpoints(ultralytics: Path, tmp_path: Path) -> None:
    soup = soup_of([ultralytics / "yolo-0.pt", ultralytics / "yolo-1.pt"], tmp_path)
    assert soup.details == {}
    saved = zipfile.ZipFile(soup.path).read("archive/data.pkl")
    assert b"mAP" not in saved
    assert b"lr0" in saved
    run("ultralytics_files", "load", soup.path, home=tmp_path / "home")
    (found,) = load_expected(soup.path).values()
    halves = {n: t.half() if t.is_floating_point() else t for n, t in found.items()}
    assert same_weights(halves, soup.state_dict())


@pytest.mark.parametrize(("kind", "shard_size"), [("bert", None), ("bert", 20_000), ("gpt2", None)])
def test_from_pretrained_opens_the_folder_of_a_soup(
    tmp_path: Path, kind: str, shard_size: int | None
) -> None:
    run("transformers_folder", "make", tmp_path, home=tmp_path)
    soup = soupcore.uniform(soupcore.Sweep.from_folder(tmp_path / kind))
    soup.save(tmp_path / "soup", shard_size=shard_size)
    run("transformers_folder", "open", tmp_path / "soup", home=tmp_path)
    opened = load_expected(tmp_path / "soup")["opened"]
    wanted = soup.state_dict()
    assert all(torch.equal(opened[name], wanted[name]) for name in wanted)


def test_adapters_of_peft_and_a_soup_of_them(tmp_path: Path) -> None:
    made, sweep_folder = tmp_path / "made", tmp_path / "sweep"
    run("peft_adapters", "make", made, home=tmp_path)
    sweep_folder.mkdir()
    for folder in made.iterdir():
        if not folder.name.endswith("-expected"):
            folder.rename(sweep_folder / folder.name)
    sweep = soupcore.Sweep.from_folder(sweep_folder)
    assert len(sweep) == 3
    for name in sweep.names():
        wanted = load_expected(made / name)["merged"]
        found = sweep[name].checkpoint.state_dict()
        for tensor, value in found.items():
            torch.testing.assert_close(value, wanted[tensor], rtol=1e-5, atol=1e-6)
    soup = soupcore.uniform(sweep)
    path = str(tmp_path / "soup")
    command = ["soup", str(sweep_folder), "--recipe", "uniform", "--adapter", "-o", path]
    assert cli.main(command) == 0
    run("peft_adapters", "open", sweep_folder / "base", tmp_path / "soup", home=tmp_path)
    opened = load_expected(tmp_path / "soup")["merged"]
    for tensor, value in soup.state_dict().items():
        torch.testing.assert_close(opened[tensor], value, rtol=1e-5, atol=1e-6)
