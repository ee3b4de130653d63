"""Keeps worker processes running beside a server, one for each device."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from soupcore.jobs.queue import Queue
from soupcore.store import Store

_PACKAGE_ROOT = Path(__file__).parents[2]
_PATIENCE = 5.0  # seconds for a worker to end by itself
_KEPT_BYTES = 1 << 30


class Supervisor:
    """Submits jobs and sees to it that workers do them.

    Args:
        store: Where jobs and results live.
        tasks: The tasks that the workers may load.
        devices: Where they compute: one worker each.
    """

    def __init__(
        self, store: Store, tasks: Sequence[str], devices: Sequence[str] = ("auto",)
    ) -> None:
        self.queue = Queue(store)
        self._store = store
        self._tasks = tuple(tasks)
        self._devices = tuple(devices)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._mutex = threading.Lock()
        self.queue.fail_abandoned()

    def submit(self, kind: str, title: str, request: Mapping[str, Any]) -> int:
        """Add a job, wake the workers, and return the job's id."""
        job_id = self.queue.submit(kind, title, request)
        self.look_after()
        return job_id

    def resume(self, job_id: int) -> None:
        """Queue a failed or cancelled job again and wake the workers."""
        self.queue.resume(job_id)
        self.look_after()

    def look_after(self) -> None:
        """Start the workers that are not running, if there is work, and wake them all."""
        with self._mutex:
            ended = [d for d, process in self._processes.items() if process.poll() is not None]
            for device in ended:
                _hang_up(self._processes.pop(device))
            if ended:
                self.queue.fail_abandoned()
            if len(self._processes) < len(self._devices):
                if not self.queue.unfinished():
                    return
                self.queue.fail_abandoned()
                self._start_missing()
            for process in self._processes.values():
                _wake(process)

    def start(self) -> None:
        """Start the workers ahead of the first job, so that they are warm by then."""
        with self._mutex:
            self._start_missing()

    def stop(self) -> None:
        """End the workers; the jobs they are at can be resumed."""
        with self._mutex:
            for process in self._processes.values():
                process.terminate()
                _hang_up(process)  # which also wakes it
            for process in self._processes.values():
                try:
                    process.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
            self._processes.clear()
            self.queue.fail_abandoned()

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that were started and not yet seen to have ended."""
        return [process.pid for process in self._processes.values()]

    def _start_missing(self) -> None:
        for device in self._devices:
            if device not in self._processes:
                self._processes[device] = self._start(device)

    def _start(self, device: str) -> subprocess.Popen[bytes]:
        path = [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {
            # Threads that spin while they wait make small networks 30 times slower as soon as
            # anything else wants a core.
            "OMP_WAIT_POLICY": "passive",
            # glibc gives large blocks back to the system when they are freed, and the pages of the
            # next batch's activations have to be zeroed and mapped again: half the time of a pass.
            "MALLOC_MMAP_THRESHOLD_": str(_KEPT_BYTES),
            "MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "STOCKPOT_DATABASE": self._store.url,  # may hold a password, so no argument
        }
        with (self._store.folder / "worker.log").open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own module with our own arguments
                [
                    sys.executable,
                    "-m",
                    "soupcore.jobs.worker",
                    f"--folder={self._store.folder}",
                    f"--device={device}",
                    *(f"--task={task}" for task in self._tasks),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C in the server's terminal is for the server
            )


def _wake(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # it just ended; the next look starts another
            process.stdin.write(b"\n")
            process.stdin.flush()


def _hang_up(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):  # what was still to be written was only a wake
            process.stdin.close()
