"""Processes of two servers on one workspace are killed at random moments: nothing is lost."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select

from soupcore import Evaluator, Store, Sweep, load_task
from soupcore.connectivity.path import grid
from soupcore.jobs import Queue, State
from soupcore.mixtures import interpolate
from soupcore.store.leases import HolderRow
from tests.helpers import save_sweep
from tests.jobs.conftest import parent_of, start_server, wait_until
from tests.toy import moved, random_state, toy_split, write_task

pytestmark = pytest.mark.integration  # it takes long

EXAMPLES = 512
NAMES = [f"run-{number}" for number in range(6)]
ALPHAS = 13
POINTS = len(NAMES) + 15 * (ALPHAS - 2)
PAUSE = 0.02  # seconds a point takes at least

# Each pass leaves a line: the process, and a number that tells the weights.
TASK = f"""
import os, time

LOG = os.open(HERE / "passes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def build():
    model = build_model()
    def count(module, arguments, output):
        time.sleep({PAUSE} * len(output) / {EXAMPLES})
        weights = sum(float(p.double().sum()) for p in module.parameters())
        os.write(LOG, f"{{os.getpid()}} {{weights!r}} {{len(output)}}\\n".encode())
    model.register_forward_hook(count)
    return model

task = ClassificationTask(build, splits, name="slow toy")
"""


class Servers:
    """Two servers on one workspace, started again when they were killed."""

    def __init__(
        self, store: Store, task: str, forks: "subprocess.Popen[str]", **options: Any
    ) -> None:
        self.store = store
        self._options = options
        self._task = task
        self._forks = forks
        self.pids = [self._start(), self._start()]

    def _start(self) -> int:
        return start_server(self._forks, self.store, [self._task], **self._options)

    def workers(self) -> dict[int, int]:
        """Return the workers that hold leases: `{worker: server}`."""
        with self.store.session() as session:
            pids = list(session.scalars(select(HolderRow.pid).where(HolderRow.is_worker)))
        return {pid: parent for pid in pids if (parent := parent_of(pid)) in self.pids}

    def kill(self, victims: str, chance: random.Random) -> None:
        """Kill a server, its worker, or both, and start the server again."""
        server = chance.choice(self.pids)
        workers = [worker for worker, parent in self.workers().items() if parent == server]
        if victims in ("server", "both"):
            os.kill(server, signal.SIGKILL)
            self.pids[self.pids.index(server)] = self._start()
        if victims in ("worker", "both"):
            for worker in workers:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)

    def end(self) -> None:
        """Kill all."""
        for pid in [*self.workers(), *self.pids]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    return write_task(tmp_path, {"select": toy_split("select", EXAMPLES)}, TASK)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    base = random_state(0)
    runs = {name: moved(base, 0.3, seed=seed) for seed, name in enumerate(NAMES, 1)}
    return str(save_sweep(tmp_path / "sweep", {"base": base} | runs))


@pytest.fixture
def servers(shared: Store, task_file: Path, forks: "subprocess.Popen[str]") -> Iterator[Servers]:
    servers = Servers(shared, f"{task_file}:task", forks)
    yield servers
    servers.end()


def requests(folder: str, task_file: Path) -> list[dict[str, Any]]:
    """Return the requests of two jobs that share most of their points."""
    pairs = [list(pair) for pair in combinations(NAMES, 2)]
    base = {"sweep": folder, "task": f"{task_file}:task", "alphas": ALPHAS, "splits": ["select"]}
    return [base | {"pairs": pairs}, base | {"pairs": pairs[::-1][:-2]}]


def resume(queue: Queue, jobs: list[int]) -> bool:
    """Resume those that have failed; return whether all are done."""
    found = [queue.get(job) for job in jobs]
    for job in found:
        assert job is not None
        if job.state == State.FAILED:
            assert "Finished evaluations are stored; resume the job" in str(job.error)
            queue.resume(job.id)
    return all(job is not None and job.state == State.DONE for job in found)


def passes(task_file: Path) -> Counter[str]:
    """Count the whole passes at each point, by a number that tells its weights."""
    log = task_file.with_name("passes")
    examples: Counter[str] = Counter()
    for line in log.read_text().splitlines() if log.exists() else ():
        _, weights, count = line.split()
        examples[weights] += int(count)
    return Counter({weights: -(-count // EXAMPLES) for weights, count in examples.items()})


def assert_all_is_right(store: Store, folder: str, task_file: Path) -> None:
    """Compare what is in the store, bit by bit, with what an undisturbed process computes."""
    sweep, task = Sweep.from_folder(folder), load_task(f"{task_file}:task")
    points = [
        interpolate(sweep[a].mixture, sweep[b].mixture, alpha)
        for a, b in combinations(NAMES, 2)
        for alpha in grid(ALPHAS)
    ]
    known = Evaluator(task, store, device="cpu").stored(points, "select")
    own = Store(task_file.parent / "own")
    whole = task.split("select").inputs
    assert len(whole) == EXAMPLES
    found = Evaluator(task, own, device="cpu").evaluate_all(points, "select", keep_outputs=False)
    for stored, computed in zip(known, found, strict=True):
        assert stored is not None
        assert torch.equal(stored.losses, computed.losses)
        assert torch.equal(stored.scores, computed.scores)
    own.close()


@pytest.mark.parametrize("seed", [0])
def test_kills_at_random_moments_lose_no_results_and_repeat_none(
    servers: Servers, shared: Store, folder: str, task_file: Path, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    kills = ["worker", "server", "both"] * 10
    chance.shuffle(kills)
    queue = Queue(shared)
    jobs = [queue.submit("paths", "Paths", asked) for asked in requests(folder, task_file)]
    done = 0
    for victims in kills:
        until = time.monotonic() + chance.uniform(0, 0.3)
        # A worker is at work, or all is done before the last kill.
        wait_until(lambda: resume(queue, jobs) or bool(servers.workers()))
        while time.monotonic() < until:
            resume(queue, jobs)
            time.sleep(0.02)
        done += resume(queue, jobs)
        servers.kill(victims, chance)
    assert done == 0, "there was too little work for so many kills"
    wait_until(lambda: resume(queue, jobs))
    counted = passes(task_file)
    assert len(counted) == POINTS
    # A kill loses only the point that its worker was at.
    assert counted.total() <= POINTS + len(kills)
    assert_all_is_right(shared, folder, task_file)


def test_two_servers_of_two_workers_compute_every_point_once(
    shared: Store, folder: str, task_file: Path, forks: "subprocess.Popen[str]"
) -> None:
    queue = Queue(shared)
    asked = [
        request | {"beyond": [-0.1 * number]}
        for number in range(1, 3)
        for request in requests(folder, task_file)
    ]
    jobs = [queue.submit("paths", "Paths", request) for request in asked]
    servers = Servers(shared, f"{task_file}:task", forks, devices=["cpu", "cpu:0"])
    try:
        wait_until(lambda: resume(queue, jobs))
    finally:
        servers.end()
    counted = passes(task_file)
    assert set(counted.values()) == {1}
    assert len(counted) == POINTS + 2 * 15  # with those beyond an end
    workers = {line.split()[0] for line in task_file.with_name("passes").read_text().splitlines()}
    assert len(workers) == 4
    assert_all_is_right(shared, folder, task_file)
