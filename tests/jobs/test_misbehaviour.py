"""What a task does that it should not ends its own job, with words, and nobody else's."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import soupcore
from soupcore.jobs import Job, Queue, State
from soupcore.store.leases import HolderRow
from tests.jobs.conftest import NAMES, parent_of, start_server, wait_until

# One task for each, in a file whose splits and network are those of the others.
BEHAVIOUR = """
import os, signal, sys, time

def task_that(misbehave):
    def build():
        model = build_model()
        model.register_forward_hook(lambda *_: misbehave())
        return model
    return ClassificationTask(build, splits, name=misbehave.__name__)

def raise_half_a_character():
    raise OSError("cannot read /data/caf\\udce9.png")

def leave_a_fork_behind():
    if os.fork() == 0:
        (HERE / "fork").write_text(str(os.getpid()))
        time.sleep(600)
    while not (HERE / "fork").exists():
        time.sleep(0.01)
    print("My last words.", flush=True)
    os._exit(4)

def print_a_lot():
    for _ in range(400):
        os.write(1, b"x" * 100_000 + b"\\n")
    raise RuntimeError("printed")

def close_everything():
    os.closerange(0, 3)
    raise RuntimeError("closed")

def hang():
    (HERE / "hangs").touch()
    while True:
        time.sleep(1)

exits = task_that(lambda: os._exit(3))
calls_exit = task_that(lambda: sys.exit("bye"))
crashes = task_that(lambda: os.kill(os.getpid(), signal.SIGSEGV))
half = task_that(raise_half_a_character)
forks = task_that(leave_a_fork_behind)
prints = task_that(print_a_lot)
closes = task_that(close_everything)
hangs = task_that(hang)
"""

WORDS = {
    "exits": "ended with exit code 3",
    "calls_exit": "called exit (bye)",
    "crashes": "ended by the signal SIGSEGV",
    "half": "cannot read /data/caf\\udce9.png",
    "forks": "ended with exit code 4. The last lines that it printed:\nMy last words.\n",
    "prints": "printed",
    "closes": "closed",
}


@pytest.fixture
def bad(task_file: Path) -> Path:
    path = task_file.with_name("bad.py")
    path.write_text(task_file.read_text() + BEHAVIOUR)
    return path


@pytest.fixture
def queue(store: soupcore.Store) -> Queue:
    return Queue(store)


@pytest.fixture
def server(
    forks: "subprocess.Popen[str]", store: soupcore.Store, bad: Path, request_: dict[str, Any]
) -> Iterator[int]:
    tasks = [request_["task"], *(f"{bad}:{name}" for name in [*WORDS, "hangs"])]
    pid = start_server(forks, store, tasks, grace_s=0.5)
    yield pid
    if parent_of(pid) is not None:
        os.kill(pid, signal.SIGKILL)
    with store.session() as session:
        for row in session.query(HolderRow):
            row.process.kill()


def submit(queue: Queue, task: str, request: dict[str, Any], **options: Any) -> int:
    asked = request | {"task": task, "names": NAMES[:1], "splits": ["select"]}
    return queue.submit("evaluate", "", asked, **options)


def ended(queue: Queue, job_id: int) -> Job:
    wait_until(lambda: not get(queue, job_id).is_unfinished)
    return get(queue, job_id)


def get(queue: Queue, job_id: int) -> Job:
    job = queue.get(job_id)
    assert job is not None
    return job


@pytest.mark.usefixtures("server")
def test_each_failure_ends_its_own_job_with_a_sentence(
    queue: Queue, request_: dict[str, Any], bad: Path, store: soupcore.Store
) -> None:
    jobs = {name: submit(queue, f"{bad}:{name}", request_) for name in WORDS}
    honest = submit(queue, request_["task"], request_)
    for name, words in WORDS.items():
        job = ended(queue, jobs[name])
        assert (job.state, name) == (State.FAILED, name)
        assert words in str(job.error)
    assert ended(queue, honest).state == State.DONE
    fork = int(bad.with_name("fork").read_text())
    wait_until(lambda: parent_of(fork) is None)
    assert sum(path.stat().st_size for path in store.folder.glob("worker.log*")) < 20 << 20


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("by", ["cancel", "deadline"])
def test_a_hung_job_is_killed_and_blocks_no_other(
    queue: Queue, request_: dict[str, Any], bad: Path, by: str
) -> None:
    deadline = 0.5 if by == "deadline" else None
    hung = submit(queue, f"{bad}:hangs", request_, deadline_s=deadline)
    next_one = submit(queue, f"{bad}:hangs", request_ | {"weights": ""})
    wait_until(lambda: bad.with_name("hangs").exists())
    bad.with_name("hangs").unlink()
    if by == "cancel":
        queue.cancel(hung)
    job = ended(queue, hung)
    assert job.state == State.CANCELLED
    assert (str(job.error).startswith("It was stopped at its deadline")) == (by == "deadline")
    wait_until(lambda: bad.with_name("hangs").exists())
    assert get(queue, next_one).state == State.RUNNING


def test_a_hung_worker_ends_by_itself_when_its_server_is_gone(
    queue: Queue, request_: dict[str, Any], bad: Path, server: int, store: soupcore.Store
) -> None:
    hung = submit(queue, f"{bad}:hangs", request_)
    wait_until(lambda: bad.with_name("hangs").exists())
    worker = queue.process_of(str(get(queue, hung).worker))
    assert worker is not None
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: worker.has_ended)
    assert get(queue, hung).state == State.RUNNING
    queue.fail_abandoned()  # as any other server does
    assert get(queue, hung).state == State.FAILED
