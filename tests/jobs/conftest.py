import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import soupcore
from soupcore.jobs import Job, Queue, Supervisor
from tests.helpers import FEATURES, State, save_sweep

NAMES = ["run1", "run2", "run10"]
BATCHES = 10  # a pass over the split
POINTS = 3 + 3 * 9  # of all paths between three ingredients, 11 a path

Finished = Callable[[int], Job]

# Each pass takes a little while and leaves a line, so that a test can interrupt and count them.
TASK = """
import time
from pathlib import Path
from safetensors.torch import load_file
from soupcore import ClassificationTask, Split
from tests.helpers import build_model

HERE = Path(__file__).parent
data = load_file(HERE / "data.safetensors")

def build():
    model = build_model()
    def count(module, arguments, output):
        time.sleep(len(output) / 50_000)
        with (HERE / "passes").open("a") as file:
            file.write(f"{len(output)}\\n")
    model.register_forward_hook(count)
    return model

splits = {"select": Split("select", data["inputs"], data["targets"])}
task = ClassificationTask(build, splits, name="slow toy")
failing = ClassificationTask(lambda: 1 / 0, splits, name="failing toy")
"""


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    inputs = torch.randn(2560, FEATURES, generator=torch.Generator().manual_seed(0))
    targets = torch.arange(2560) % 3
    save_file({"inputs": inputs, "targets": targets}, tmp_path / "data.safetensors")
    path = tmp_path / "task.py"
    path.write_text(TASK)
    return path


@pytest.fixture
def folder(tmp_path: Path, base_state: State, states: dict[str, State]) -> str:
    return str(save_sweep(tmp_path / "sweep", {"base": base_state} | states))


@pytest.fixture
def request_(folder: str, task_file: Path) -> dict[str, Any]:
    return {"sweep": folder, "task": f"{task_file}:task"}


@pytest.fixture
def paths(request_: dict[str, Any]) -> dict[str, Any]:
    pairs = [list(pair) for pair in combinations(NAMES, 2)]
    return request_ | {"pairs": pairs, "alphas": 11, "splits": ["select"]}


@pytest.fixture
def queue(store: soupcore.Store) -> Queue:
    return Queue(store)


@pytest.fixture
def supervisor(store: soupcore.Store, task_file: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(store, [f"{task_file}:task", f"{task_file}:failing"], devices=["cpu"])
    yield supervisor
    supervisor.stop()


@pytest.fixture
def passes_made(task_file: Path) -> Callable[[], int]:
    """Counts the examples that went through the network, in batches of 256."""
    log = task_file.with_name("passes")

    def count() -> int:
        examples = map(int, log.read_text().split()) if log.exists() else ()
        return -(-sum(examples) // 256)

    return count


@pytest.fixture
def finished(supervisor: Supervisor) -> Finished:
    def wait(job_id: int) -> Job:
        return wait_for(supervisor, job_id, lambda job: not job.is_unfinished)

    return wait


def wait_for(supervisor: Supervisor, job_id: int, condition: Callable[[Job], bool]) -> Job:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        supervisor.look_after()
        job = supervisor.queue.get(job_id)
        assert job is not None
        if condition(job):
            return job
        time.sleep(0.02)
    raise AssertionError(f"job {job_id} did not get there in a minute")
