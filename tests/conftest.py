import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from shutil import rmtree
from subprocess import run
from typing import Any
from zipfile import is_zipfile

import pytest
import torch
from hypothesis import HealthCheck, settings
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

import soupcore
from soupcore.recipes.output import Output
from tests.helpers import FEATURES, State, build_model, logits, moved, random_state, save_sweep
from tests.hostile.corpus import write_corpus

# Our fixtures that a property test takes are factories: each call makes a new file.
settings.register_profile(
    "stockpot",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("stockpot")


class OneBrowser(LoadFileScheduling):  # type: ignore[misc]
    """Gives all that drives a browser to one process: it is tested how soon a page answers."""

    def _split_scope(self, nodeid: str) -> str:
        return (
            "tests/browser" if nodeid.startswith("tests/browser/") else super()._split_scope(nodeid)
        )


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneBrowser:
    return OneBrowser(config, log)


@pytest.fixture(autouse=True)
def every_file_written_is_opened_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold whatever a test has a soup write against `unzip` and safetensors' own reader."""
    save = Output.save

    def saved(self: Output, *arguments: Any, **options: Any) -> list[Path]:
        written = save(self, *arguments, **options)
        for path in written:
            if is_zipfile(path):
                assert run(["unzip", "-tq", path], capture_output=True).returncode == 0
            elif path.suffix == ".safetensors":
                assert load_file(path)
        return written

    monkeypatch.setattr(Output, "save", saved)


@pytest.fixture(autouse=True)
def workspace(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    monkeypatch.setenv("STOCKPOT_WORKSPACE", str(folder))
    return folder


@pytest.fixture
def checkpoint_of(tmp_path: Path) -> Callable[[Mapping[str, Tensor]], soupcore.Checkpoint]:
    numbers = itertools.count()

    def make(state: Mapping[str, Tensor]) -> soupcore.Checkpoint:
        path = tmp_path / f"made-{next(numbers)}.safetensors"
        save_file(dict(state), path)
        return soupcore.open_checkpoint(path)

    return make


@pytest.fixture
def base_state() -> State:
    return random_state(0)


@pytest.fixture
def states(base_state: State) -> dict[str, State]:
    return {
        "run1": moved(base_state, 0.3, seed=1),
        "run2": moved(base_state, 0.3, seed=2),
        "run10": moved(base_state, 0.6, seed=3),
    }


@pytest.fixture
def sweep(tmp_path: Path, base_state: State, states: dict[str, State]) -> soupcore.Sweep:
    return soupcore.Sweep.from_folder(save_sweep(tmp_path / "sweep", {"base": base_state} | states))


@pytest.fixture
def splits(base_state: State) -> dict[str, soupcore.Split]:
    """Labels are what the base says, one in five of them redrawn."""

    def split(role: soupcore.tasks.Role, n: int, seed: int) -> soupcore.Split:
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(n, FEATURES, generator=generator)
        labels = logits(base_state, inputs).argmax(1)
        noise = torch.rand(n, generator=generator) < 0.2
        labels[noise] = torch.randint(0, 3, (int(noise.sum()),), generator=generator)
        return soupcore.Split(role, inputs, labels)

    return {
        "train": split("train", 20, 1),
        "val": split("select", 100, 2),
        "test": split("report", 90, 3),
        "shift/noise": split("shift", 80, 4),
    }


@pytest.fixture
def passes() -> list[int]:
    """How many examples each forward pass through the task's network had."""
    return []


@pytest.fixture
def task(splits: dict[str, soupcore.Split], passes: list[int]) -> soupcore.ClassificationTask:
    def build() -> nn.Module:
        model = build_model()
        model.register_forward_hook(lambda module, args, output: passes.append(len(output)))
        return model

    return soupcore.ClassificationTask(build, splits, name="toy")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[soupcore.Store]:
    store = soupcore.Store(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def evaluator(task: soupcore.ClassificationTask, store: soupcore.Store) -> soupcore.Evaluator:
    return soupcore.Evaluator(task, store, device="cpu", batch_size=256)


@pytest.fixture(scope="session")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The whole corpus of hostile files, and one honest file among them."""
    folder = tmp_path_factory.mktemp("hostile")
    write_corpus(folder)
    yield folder
    rmtree(folder)  # 330 MB
