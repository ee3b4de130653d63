import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import soupcore
from soupcore.jobs import State, Supervisor
from tests.jobs.conftest import BATCHES, NAMES, POINTS, Finished, wait_for


def state(supervisor: Supervisor, job_id: int) -> str:
    job = supervisor.queue.get(job_id)
    assert job is not None
    return job.state


def test_a_killed_worker_loses_only_the_evaluation_it_was_in(
    supervisor: Supervisor,
    finished: Finished,
    paths: dict[str, Any],
    passes_made: Callable[[], int],
) -> None:
    job_id = supervisor.submit("paths", "Paths", paths)
    for evaluations in (3, 9, 15):
        wait_for(supervisor, job_id, lambda job, n=evaluations: job.done > n * 2560)  # type: ignore[misc]
        (worker,) = supervisor.worker_pids
        os.kill(worker, signal.SIGKILL)
        failed = finished(job_id)
        assert failed.state == State.FAILED
        assert "resume" in str(failed.error)
        supervisor.resume(job_id)
    assert finished(job_id).state == State.DONE
    assert POINTS * BATCHES <= passes_made() <= (POINTS + 3) * BATCHES


SERVER = """
import sys, time
from soupcore import Store
from soupcore.jobs import Supervisor
supervisor = Supervisor(Store(sys.argv[1]), [sys.argv[2]], devices=["cpu"])
for job in supervisor.queue.recent():
    supervisor.resume(job.id)
while True:
    supervisor.look_after()
    print(*supervisor.worker_pids, flush=True)
    time.sleep(0.05)
"""


@pytest.mark.parametrize("victims", ["worker", "both"])
def test_a_kill_at_any_moment_loses_nothing_that_was_finished(
    victims: str,
    supervisor: Supervisor,
    finished: Finished,
    paths: dict[str, Any],
    store: soupcore.Store,
    passes_made: Callable[[], int],
) -> None:
    moments = random.Random(victims)  # noqa: S311 - no secret
    job_id = supervisor.queue.submit("paths", "Paths", paths)
    for _ in range(2):
        with run_server(store, paths["task"]) as server:
            worker = int(server.stdout.readline())  # type: ignore[union-attr]
            wait_until_passes(passes_made, moments.randrange(1, 100))
            os.kill(worker, signal.SIGKILL)
            while victims == "worker" and state(supervisor, job_id) != State.FAILED:
                time.sleep(0.001)
            server.kill()
    while state(supervisor, job_id) == State.RUNNING:  # until the killed are gone
        supervisor.queue.fail_abandoned()
    supervisor.resume(job_id)
    assert finished(job_id).state == State.DONE
    assert POINTS * BATCHES <= passes_made() <= (POINTS + 2) * BATCHES


def test_a_worker_whose_server_was_killed_ends_its_job_and_then_itself(
    supervisor: Supervisor,
    paths: dict[str, Any],
    store: soupcore.Store,
    passes_made: Callable[[], int],
) -> None:
    job_id = supervisor.queue.submit("paths", "Paths", paths)
    with run_server(store, paths["task"]) as server:
        wait_until_passes(passes_made, 5)
        server.kill()
    while state(supervisor, job_id) == State.RUNNING:
        time.sleep(0.001)
    assert state(supervisor, job_id) == State.DONE
    assert passes_made() == POINTS * BATCHES


def run_server(store: soupcore.Store, task: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SERVER, str(store.folder), task]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def wait_until_passes(passes_made: Callable[[], int], more: int) -> None:
    target = passes_made() + more
    while passes_made() < target:
        time.sleep(0.001)


def test_a_stopped_server_leaves_a_job_that_can_be_resumed(
    supervisor: Supervisor, finished: Finished, paths: dict[str, Any]
) -> None:
    job_id = supervisor.submit("paths", "Paths", paths)
    wait_for(supervisor, job_id, lambda job: job.done > 0)
    supervisor.stop()
    job = supervisor.queue.get(job_id)
    assert job is not None
    assert (job.state, supervisor.worker_pids) == (State.FAILED, [])
    supervisor.resume(job_id)
    assert finished(job_id).state == State.DONE


def test_each_device_has_a_worker_and_they_share_the_jobs(
    store: soupcore.Store, task_file: Path, request_: dict[str, Any]
) -> None:
    supervisor = Supervisor(store, [f"{task_file}:task"], devices=["cpu", "cpu:0"])
    try:
        jobs = [
            supervisor.submit("evaluate", "", request_ | {"names": [name], "splits": ["select"]})
            for name in NAMES
        ]
        assert len(supervisor.worker_pids) == 2
        done = [wait_for(supervisor, job, lambda job: not job.is_unfinished) for job in jobs]
        assert [job.state for job in done] == [State.DONE] * 3
    finally:
        supervisor.stop()


def test_what_a_killed_worker_left_is_gone_once_the_next_one_works(
    supervisor: Supervisor, finished: Finished, folder: str, store: soupcore.Store
) -> None:
    half = store.soup_folder("a", "safetensors") / ".soup.safetensors.0123456789abcdef.part"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    finished(supervisor.submit("open", "Read", {"sweep": folder}))
    assert not half.exists()


def test_the_worker_ends_when_its_server_is_gone(
    supervisor: Supervisor, finished: Finished, folder: str
) -> None:
    finished(supervisor.submit("open", "Read", {"sweep": folder}))
    (process,) = supervisor._processes.values()
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(10) == 0
