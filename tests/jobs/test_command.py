import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import soupcore
from soupcore import cli
from soupcore.jobs import Queue, State, Supervisor
from tests.jobs.conftest import wait_for


@pytest.mark.integration
def test_the_worker_command_runs_jobs_of_a_shared_workspace_until_sigterm(
    store: soupcore.Store, queue: Queue, request_: dict[str, Any]
) -> None:
    wanted = request_ | {"names": ["run1"], "splits": ["select"]}
    job_id = queue.submit("evaluate", "Evaluate", wanted)
    environment = os.environ | {"STOCKPOT_WORKSPACE": str(store.folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "soupcore.cli", "worker", "--task", request_["task"]]
    with subprocess.Popen(
        [*command, "--device", "cpu"],
        env=environment,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        watching = Supervisor(store, [])  # offers no task, so it cannot run the job
        try:
            job = wait_for(watching, job_id, lambda job: not job.is_unfinished)
        finally:
            watching.stop()
            process.send_signal(signal.SIGTERM)
        printed, _ = process.communicate()
    assert job.state == State.DONE, job.error
    assert str(store.folder) in printed
    assert process.returncode == 0
    assert queue.standing() == []


def test_a_worker_needs_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["worker"])
    assert "--task" in capsys.readouterr().err
