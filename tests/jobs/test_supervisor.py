from pathlib import Path
from typing import Any

import pytest

import soupcore
from soupcore import jobs
from soupcore.jobs import State, Supervisor
from tests.jobs.conftest import NAMES, Finished, wait_for, wait_until
from tests.jobs.forks import ForkingSupervisor, Forks


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
    store: soupcore.Store, task_file: Path, request_: dict[str, Any], worker_forks: Forks
) -> None:
    ForkingSupervisor.forks = worker_forks
    supervisor = ForkingSupervisor(store, [f"{task_file}:task"], devices=["cpu", "cpu:0"])
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


def test_leftovers_of_a_killed_worker_are_removed_by_the_next_one(
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
    (worker,) = supervisor._workers.values()
    worker.hang_up()
    wait_until(lambda: worker.has_ended)
    assert worker.process.wait() == 0


def test_each_task_has_a_worker_of_its_own_which_ends_when_it_is_idle(
    store: soupcore.Store,
    task_file: Path,
    request_: dict[str, Any],
    folder: str,
    worker_forks: Forks,
) -> None:
    tasks = [f"{task_file}:task", f"{task_file}:failing"]
    ForkingSupervisor.forks = worker_forks
    supervisor = ForkingSupervisor(store, tasks, devices=["cpu"], idle_s=0.1)
    wanted = {"names": NAMES, "splits": ["select"]}
    try:
        asked = [request_ | wanted, {"task": tasks[1]} | request_ | wanted, {"sweep": folder}]
        kinds = ["evaluate", "evaluate", "open"]
        asked[1]["task"] = tasks[1]
        jobs = [supervisor.submit(kind, "", job) for kind, job in zip(kinds, asked, strict=True)]
        done = [wait_for(supervisor, job, lambda job: not job.is_unfinished) for job in jobs]
        assert [job.state for job in done] == [State.DONE, State.FAILED, State.DONE]
        assert len({job.worker for job in done}) == 3
        (first,) = (
            worker for worker in supervisor._workers.values() if worker.name == done[0].worker
        )
        wait_until(lambda: supervisor.worker_pids == [first.process.pid])
    finally:
        supervisor.stop()


def test_a_task_whose_file_is_changed_gets_a_new_process(
    supervisor: Supervisor, finished: Finished, request_: dict[str, Any], task_file: Path
) -> None:
    text = task_file.read_text()
    # What the first version did to torch would make the second fail.
    task_file.write_text(text + "\nimport torch\ntorch.set_default_dtype(torch.float64)\n")
    wanted = request_ | {"names": NAMES, "splits": ["select"]}
    assert finished(supervisor.submit("evaluate", "", wanted)).state == State.FAILED
    task_file.write_text(text)
    assert finished(supervisor.submit("evaluate", "", wanted)).state == State.DONE


def test_a_job_of_a_task_that_no_server_offers_waits_with_the_reason(
    supervisor: Supervisor, request_: dict[str, Any]
) -> None:
    elsewhere = supervisor.submit("evaluate", "", request_ | {"task": "/etc/other.py:task"})
    here = supervisor.queue.submit("evaluate", "", request_)
    jobs = [supervisor.queue.get(job) for job in (elsewhere, here)]
    words = [supervisor.waits_for(job) for job in jobs if job is not None]
    assert words == ["waits for a server started with --task /etc/other.py:task", None]


def test_a_sweep_outside_the_roots_waits_for_a_server_that_may_open_it(
    store: soupcore.Store, tmp_path: Path
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    supervisor = Supervisor(store, [], roots=[root])
    jobs = [
        supervisor.queue.get(supervisor.queue.submit("open", "", {"sweep": str(folder)}))
        for folder in (root / "sweep", elsewhere)
    ]
    words = [supervisor.waits_for(job) for job in jobs if job is not None]
    supervisor.stop()
    assert words == [None, f"waits for a server started with --root {elsewhere}"]


def test_workers_that_cannot_be_started_fail_the_jobs_that_wait_for_them(
    store: soupcore.Store, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setattr(jobs.supervisor, "_PAUSE", 0.01)
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # Python does not even start with it
    supervisor = Supervisor(store, [])
    try:
        job_id = supervisor.submit("open", "", {"sweep": folder})
        job = wait_for(supervisor, job_id, lambda job: not job.is_unfinished)
        assert job.state == State.FAILED
        assert "No worker could be started for this job." in str(job.error)
        assert "Python" in str(job.error)
    finally:
        supervisor.stop()
