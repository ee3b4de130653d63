"""Keeps one worker process running beside a server."""

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


class Supervisor:
    """Submits jobs and sees to it that a worker does them.

    Args:
        store: Where jobs and results live.
        tasks: The tasks that the worker may load.
        device: Where it computes.
    """

    def __init__(self, store: Store, tasks: Sequence[str], device: str = "auto") -> None:
        self.queue = Queue(store)
        self._store = store
        self._arguments = [f"--device={device}", *(f"--task={task}" for task in tasks)]
        self._process: subprocess.Popen[bytes] | None = None
        self._mutex = threading.Lock()
        self.queue.fail_abandoned()

    def submit(self, kind: str, title: str, request: Mapping[str, Any]) -> int:
        """Add a job, wake the worker, and return the job's id."""
        job_id = self.queue.submit(kind, title, request)
        self.look_after()
        return job_id

    def resume(self, job_id: int) -> None:
        """Queue a failed or cancelled job again and wake the worker."""
        self.queue.resume(job_id)
        self.look_after()

    def look_after(self) -> None:
        """Start the worker if it is not running and there is work, and wake it."""
        with self._mutex:
            if self._process is not None and self._process.poll() is not None:
                self._close()
                self.queue.fail_abandoned()
            if self._process is None:
                if not self.queue.unfinished():
                    return
                self.queue.fail_abandoned()
                self._process = self._start()
            self._wake()

    def start(self) -> None:
        """Start the worker ahead of the first job, so that it is warm by then."""
        with self._mutex:
            if self._process is None:
                self._process = self._start()

    def stop(self) -> None:
        """End the worker; the job it is at can be resumed."""
        with self._mutex:
            if self._process is None:
                return
            self._process.terminate()
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._close()
            self.queue.fail_abandoned()

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker, None while there is none."""
        return self._process.pid if self._process else None

    def _start(self) -> subprocess.Popen[bytes]:
        path = [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {
            # Threads that spin while they wait make small networks 30 times slower as soon as
            # anything else wants a core.
            "OMP_WAIT_POLICY": "passive",
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
                    *self._arguments,
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C in the server's terminal is for the server
            )

    def _wake(self) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with suppress(BrokenPipeError):  # it just ended; the next look starts another
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(BrokenPipeError):  # what was still to be written was only a wake
                self._process.stdin.close()
            self._process.wait()
        self._process = None
