import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import soupcore
from soupcore.jobs import Job, Queue, Supervisor
from tests.helpers import State, save_sweep
from tests.jobs.forks import ForkingSupervisor, Forks
from tests.postgres import DATABASES
from tests.toy import toy_split, write_task

NAMES = ["run1", "run2", "run10"]
PATIENCE = 300.0  # seconds; only a test that fails waits that long, even on a busy machine
BATCHES = 10  # a pass over the split
POINTS = 3 + 3 * 9  # of all paths between three ingredients, 11 a path

Finished = Callable[[int], Job]

# Each pass takes a little while and leaves a line, so that a test can interrupt and count them.
TASKS = """
import os
import time

def build():
    model = build_model()
    def count(module, arguments, output):
        time.sleep(len(output) / 50_000)
        with (HERE / "passes").open("a") as file:
            file.write(f"{len(output)} {os.getpid()}\\n")
    model.register_forward_hook(count)
    return model

def build_together():
    # Its passes wait until a second process makes one, at most a minute.
    model = build()
    def wait(module, arguments, output):
        (HERE / f"pid-{os.getpid()}").touch()
        deadline = time.monotonic() + 60
        while len(list(HERE.glob("pid-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    model.register_forward_hook(wait)
    return model

task = ClassificationTask(build, splits, name="slow toy")
together = ClassificationTask(build_together, splits, name="toy of two processes")
whole = splits["select"]
few = {"select": Split("select", whole.inputs[:256], whole.targets[:256])}
few_together = ClassificationTask(build_together, few, name="small toy of two processes")
failing = ClassificationTask(lambda: 1 / 0, splits, name="failing toy")
"""


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    return write_task(tmp_path, {"select": toy_split("select", 2560)}, TASKS)


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


@pytest.fixture(scope="session")
def worker_forks() -> Iterator[Forks]:
    here, there = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.forks", str(there.fileno())],
        pass_fds=[there.fileno()],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    there.close()
    with process, here:
        yield Forks(here)


@pytest.fixture
def supervisor(store: soupcore.Store, task_file: Path, worker_forks: Forks) -> Iterator[Supervisor]:
    ForkingSupervisor.forks = worker_forks
    tasks = [f"{task_file}:task", f"{task_file}:failing"]
    supervisor = ForkingSupervisor(store, tasks, devices=["cpu"])
    yield supervisor
    supervisor.stop()


@pytest.fixture
def passes_made(task_file: Path) -> Callable[[], int]:
    """Counts the examples that went through the network, in batches of 256."""
    log = task_file.with_name("passes")

    def count() -> int:
        lines = log.read_text().splitlines() if log.exists() else []
        return -(-sum(int(line.split()[0]) for line in lines) // 256)

    return count


@pytest.fixture
def finished(supervisor: Supervisor) -> Finished:
    def wait(job_id: int) -> Job:
        return wait_for(supervisor, job_id, lambda job: not job.is_unfinished)

    return wait


@pytest.fixture(params=DATABASES)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[soupcore.Store]:
    """A store on SQLite, and one on a PostgreSQL where there is one."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    store = soupcore.Store(tmp_path / "shared", url)
    yield store
    store.close()


@pytest.fixture(scope="session")
def forks() -> Iterator["subprocess.Popen[str]"]:
    """Starts servers, see `start_server`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.forks"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    with process:
        yield process
        process.kill()


def start_server(
    forks: "subprocess.Popen[str]", store: soupcore.Store, tasks: list[str], **options: Any
) -> int:
    """Start a server that looks after the jobs of a store, and return its process id."""
    wanted = {"folder": str(store.folder), "url": store.url, "tasks": tasks}
    assert forks.stdin is not None
    assert forks.stdout is not None
    print(json.dumps(wanted | options), file=forks.stdin, flush=True)
    return int(forks.stdout.readline())


def parent_of(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, parent, *_ = stat[stat.rindex(")") + 2 :].split()
    return None if state == "Z" else int(parent)


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for(supervisor: Supervisor, job_id: int, condition: Callable[[Job], bool]) -> Job:
    deadline, looked = time.monotonic() + PATIENCE, 0.0
    while time.monotonic() < deadline:
        if time.monotonic() - looked > 0.3:
            looked = time.monotonic()
            supervisor.look_after()
        job = supervisor.queue.get(job_id)
        assert job is not None
        if condition(job):
            return job
        time.sleep(0.02)
    raise AssertionError(f"job {job_id} did not get there in {PATIENCE:.0f} s")
