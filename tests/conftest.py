import gc
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from safetensors.torch import save_file
from sqlalchemy import URL
from torch import Tensor, nn
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

import soupcore
from soupcore.progress import silence
from soupcore.safe_torch import child
from tests.helpers import State, save_sweep
from tests.postgres import new_database, postgres_server
from tests.toy import build_model, random_state, toy_runs, toy_splits

_NICENESS = 5

# Fixtures in property tests are factories, so that each call makes a new file.
settings.register_profile(
    "stockpot",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("stockpot")

silence()  # with pytest -s, standard error is a terminal


class OneBrowser(LoadFileScheduling):  # type: ignore[misc]
    """Distributes tests by file, and runs all browser tests in the same process.

    Two browsers would slow each other down, and some tests limit the response time of pages. Other
    tests use the time in which the browser waits.
    """

    def _split_scope(self, nodeid: str) -> str:
        if _drives_browser(nodeid):
            return "tests/browser"
        scope: str = super()._split_scope(nodeid)
        return scope


def pytest_xdist_auto_num_workers() -> int:
    """Return one process more than cores, because the process with the browser mostly waits."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the browser tests first, since they take longest and run in one process."""
    items.sort(key=lambda item: not _drives_browser(item.nodeid))


def pytest_collection_finish() -> None:
    """Leave the imported modules and collected tests to no later garbage collection."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Lower the priority of all tests but the browser tests.

    The app's workers have a low priority too. Tests with a higher priority would delay them, and
    thus the browser tests, by minutes.
    """
    if "PYTEST_XDIST_WORKER" in os.environ and not _drives_browser(item.nodeid):
        os.nice(max(0, _NICENESS - os.nice(0)))


def _drives_browser(nodeid: str) -> bool:
    return nodeid.startswith("tests/browser/")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneBrowser:
    return OneBrowser(config, log)


@pytest.fixture(autouse=True)
def workspace(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    monkeypatch.setenv("STOCKPOT_WORKSPACE", str(folder))
    return folder


@pytest.fixture
def read_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read torch files in this process, for trusted files, which saves a child process for each."""

    def answered(descriptor: int, path: Path, *request: str) -> Any:
        with path.open("rb") as file:
            return json.loads(child.answer(file, [*request]))

    monkeypatch.setattr("soupcore.checkpoints.sandbox._answer", answered)


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
    return toy_runs(base_state)


@pytest.fixture
def sweep(tmp_path: Path, base_state: State, states: dict[str, State]) -> soupcore.Sweep:
    return soupcore.Sweep.from_folder(save_sweep(tmp_path / "sweep", {"base": base_state} | states))


@pytest.fixture
def splits(base_state: State) -> dict[str, soupcore.Split]:
    return toy_splits(base_state)


@pytest.fixture
def passes() -> list[int]:
    """The batch sizes of all forward passes through the task's network."""
    return []


@pytest.fixture
def task(splits: dict[str, soupcore.Split], passes: list[int]) -> soupcore.ClassificationTask:
    def build() -> nn.Module:
        model = build_model()
        model.register_forward_hook(lambda module, args, output: passes.append(len(output)))
        return model

    return soupcore.ClassificationTask(build, splits, name="toy")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store without rows. To copy its tables takes less time than to make them."""
    folder = tmp_path_factory.mktemp("empty") / "store"
    soupcore.Store(folder).close()
    return folder


@pytest.fixture
def store(tmp_path: Path, empty_store: Path) -> Iterator[soupcore.Store]:
    store = soupcore.Store(shutil.copytree(empty_store, tmp_path / "store"))
    yield store
    store.close()


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def postgres_url(postgres: URL) -> str:
    """An empty PostgreSQL database."""
    return new_database(postgres)


@pytest.fixture
def evaluator(task: soupcore.ClassificationTask, store: soupcore.Store) -> soupcore.Evaluator:
    return soupcore.Evaluator(task, store, device="cpu", batch_size=256)
