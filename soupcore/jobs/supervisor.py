"""Runs the worker processes of a server: one for each task and device.

A task is arbitrary code, which may change torch for everything in its process, leak memory, hang,
or exit. So each task has its own workers, which start with its first job and end when they have
been idle for a long time. Jobs that need no task run in a worker that never loads one.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soupcore.errors import ReadOnlyError
from soupcore.jobs.job import Job, Standing, State, storable
from soupcore.jobs.queue import Queue
from soupcore.processes import Log, Pump, has_exited, kill_group, python_path
from soupcore.store import Store
from soupcore.store.leases import LEASE
from soupcore.sweeps.folder import stays_within

_LOOK_EVERY = 1.0  # seconds
_PATIENCE = 5.0  # seconds for a worker to end by itself
_POLL = 0.02  # seconds
_GRACE = 6.0  # seconds for a job to stop, or to report, after the request to stop
_IDLE = 600.0  # seconds after which an idle worker ends
_KEPT_BYTES = 1 << 30

# A worker that fails before it takes a job is started this many times, with growing pauses.
_STARTS = 3
_PAUSE = 2.0  # seconds

Slot = tuple[str | None, str]  # the task, None for none, and the device

logger = logging.getLogger(__name__)


@dataclass
class _Worker:
    """A worker process of this server."""

    name: str
    process: subprocess.Popen[bytes]
    pump: Pump

    @property
    def has_ended(self) -> bool:
        """Whether it has ended; see `soupcore.processes.has_exited`."""
        return has_exited(self.process)

    def wake(self) -> None:
        """Make it look for jobs."""
        if self.process.stdin is not None:
            with suppress(OSError, ValueError):  # it just ended
                self.process.stdin.write(b"\n")
                self.process.stdin.flush()

    def request_end(self) -> None:
        """Request that it stops its job and ends."""
        self.process.terminate()
        self.hang_up()

    def hang_up(self) -> None:
        """Close its standard input."""
        if self.process.stdin is not None:
            with suppress(OSError):  # only wake-ups are lost
                self.process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait until it has ended, at most the given time."""
        deadline = time.monotonic() + seconds
        while not self.has_ended and time.monotonic() < deadline:
            time.sleep(_POLL)

    def end(self) -> str:
        """Kill the process and its forks if they still run; return a sentence on how it ended."""
        kill_group(self.process.pid)
        status = self.process.wait()
        self.hang_up()
        lines = self.pump.last_lines()
        return f"The worker process {_cause_of_end(status)}." + (
            f" The last lines that it printed:\n{lines}\n" if lines else ""
        )


class Supervisor:
    """Submits jobs, starts workers for them, and kills workers whose job does not stop.

    It monitors the jobs of all servers on the store: jobs whose worker has ended can be resumed
    within half a minute, and cancelled jobs that do not stop are ended.

    Args:
        store: Store of jobs and results.
        tasks: The tasks that the workers may load.
        devices: Devices for computation. Each task has one worker per device.
        roots: Folders that sweeps may be in; empty for any folder.
        ray: Address of a Ray cluster that evaluates points; see `soupcore.evaluation.cluster`.
        idle_s: Seconds after which an idle worker ends, except for workers of the first task.
        grace_s: Seconds for a cancelled job to stop.
    """

    def __init__(
        self,
        store: Store,
        tasks: Sequence[str],
        devices: Sequence[str] = ("auto",),
        roots: Sequence[Path] = (),
        *,
        ray: str | None = None,
        idle_s: float = _IDLE,
        grace_s: float = _GRACE,
    ) -> None:
        self.queue = Queue(store)
        self._store = store
        self._tasks = tuple(tasks)
        self._devices = tuple(devices)
        self._roots = tuple(roots)
        self._ray = ray
        self._idle_s = idle_s
        self._grace_s = grace_s
        self._workers: dict[Slot, _Worker] = {}
        self._failed_starts: dict[Slot, tuple[int, float]] = {}  # their number, and the last time
        self._mutex = threading.RLock()
        self._log = Log(store.folder / "worker.log")
        self._sleep = _Sleep()
        self._watch: threading.Thread | None = None
        self._stopped = threading.Event()
        if not store.is_read_only:
            self.queue.fail_abandoned()
            self._start_to_watch()

    def submit(self, kind: str, title: str, request: Mapping[str, Any], **options: Any) -> int:
        """Add a job, wake the workers, and return the job's id; see `Queue.submit`.

        Raises:
            ReadOnlyError: The workspace is read-only.
        """
        if self._store.is_read_only:
            raise ReadOnlyError(self._store.folder)
        job_id = self.queue.submit(kind, title, request, **options)
        self.look_after()
        return job_id

    def offer(self, task: str) -> None:
        """Let workers load another task."""
        with self._mutex:
            if task not in self._tasks:
                self._tasks = (*self._tasks, task)

    def resume(self, job_id: int) -> None:
        """Queue a failed or cancelled job again and wake the workers."""
        self.queue.resume(job_id)
        self.look_after()

    def waits_for(self, job: Job) -> str | None:
        """Return a message if a queued job cannot run on this server; else None."""
        if job.state != State.QUEUED:
            return None
        if job.task is not None and job.task not in self._offered:
            return f"waits for a server started with --task {job.task}"
        folder = job.request.get("sweep")
        if folder and self._roots and not stays_within(self._roots)(Path(folder)):
            return f"waits for a server started with --root {folder}"
        return None

    def look_after(self) -> None:
        """Check all jobs and workers, and start or stop workers. A thread calls it regularly."""
        if self._store.is_read_only:
            return
        with self._mutex:
            self._start_to_watch()
            for slot, worker in list(self._workers.items()):
                if worker.has_ended:
                    self._remove(slot, worker)
            jobs = self.queue.standing()
            if not jobs:
                return
            for job in jobs:
                if job.is_overdue:
                    self.queue.stop_overdue(job)
            self._end_silent(jobs)
            own = {worker.name for worker in self._workers.values()}
            self.queue.fail_abandoned(by_lease=not self._sleep.is_recent(), own=own)
            waiting = {job.task for job in jobs if job.state == State.QUEUED}
            for task in (None, *self._tasks):
                if (None if task is None else storable(task)) in waiting:
                    self._start_missing(task)
            for worker in self._workers.values():
                worker.wake()

    def start(self) -> None:
        """Start workers before the first job: those of the first task, and one for no task."""
        if self._store.is_read_only:
            return
        with self._mutex:
            self._start_to_watch()
            for task in (*self._tasks[:1], None):
                self._start_missing(task)

    def stop(self) -> None:
        """Stop the workers. Their jobs can be resumed."""
        self._stopped.set()
        if self._watch is not None and self._watch is not threading.current_thread():
            self._watch.join()
        with self._mutex:
            self._watch = None
            for worker in self._workers.values():
                worker.request_end()
            for slot, worker in list(self._workers.items()):
                worker.wait(_PATIENCE)
                self._remove(slot, worker)

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that are not known to have ended."""
        return [worker.process.pid for worker in self._workers.values()]

    @property
    def _offered(self) -> set[str]:
        return {storable(task) for task in self._tasks}

    def _start_to_watch(self) -> None:
        if self._watch is None:
            self._stopped = threading.Event()
            self._watch = threading.Thread(
                target=_watch, args=(weakref.ref(self), self._stopped), name="watch", daemon=True
            )
            self._watch.start()

    def _remove(self, slot: Slot, worker: _Worker) -> None:
        """Remove a worker, kill it if it still runs, and end its jobs."""
        del self._workers[slot]
        reason = worker.end()
        had_begun = self.queue.abandon(worker.name, reason)
        failed = worker.process.returncode > 0 and not had_begun
        count = self._failed_starts.get(slot, (0, 0.0))[0] + 1 if failed else 0
        self._failed_starts[slot] = (count, time.monotonic())
        if count >= _STARTS:
            logger.error("No worker for %s could be started. %s", slot, reason)
            self.queue.fail_waiting(slot[0], f"No worker could be started for this job. {reason}")
            del self._failed_starts[slot]

    def _end_silent(self, jobs: Sequence[Standing]) -> None:
        """Kill the workers whose cancelled job neither stops nor reports."""
        newest: dict[str, Standing] = {}
        for job in jobs:
            if job.worker is not None and job.state != State.QUEUED:
                before = newest.get(job.worker, job)
                newest[job.worker] = max(job, before, key=lambda job: (job.started or 0.0, job.id))
        own = {worker.name: slot for slot, worker in self._workers.items()}
        for name, job in newest.items():
            if job.state != State.CANCELLING or job.seconds_silent < self._grace_s:
                continue
            if name in own:
                slot = own[name]
                self._remove(slot, self._workers[slot])
                continue
            process = self.queue.process_of(name)
            if process is not None and process.is_here and process.kill():
                self.queue.abandon(name)
            elif job.seconds_silent > self._grace_s + 2 * LEASE:
                # Its own server does not kill it. Its updates have no effect from now on.
                self.queue.finish(job, State.CANCELLED)

    def _start_missing(self, task: str | None) -> None:
        several = task is not None and self._ray is None  # a cluster has its own devices
        for device in self._devices if several else self._devices[:1]:
            slot = (task, device)
            count, when = self._failed_starts.get(slot, (0, 0.0))
            if slot not in self._workers and not (
                count and time.monotonic() - when < count * _PAUSE
            ):
                self._workers[slot] = self._start(task, device)

    def _start(self, task: str | None, device: str) -> _Worker:
        environment = {
            # Threads that spin while they wait make small networks 30 times slower as soon as
            # another process needs a core.
            "OMP_WAIT_POLICY": "passive",
            # By default, glibc returns large freed blocks to the system, and the pages for the next
            # batch's activations have to be mapped and zeroed again: half the time of a pass.
            "MALLOC_MMAP_THRESHOLD_": str(_KEPT_BYTES),
            "MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
            **os.environ,
            "PYTHONPATH": python_path(),
            "STOCKPOT_DATABASE": self._store.url,  # not an argument, as it may hold a password
        }
        name = uuid.uuid4().hex
        arguments = [
            f"--folder={self._store.folder}",
            f"--device={device}",
            f"--name={name}",
            *([] if task in self._tasks[:1] else [f"--idle={self._idle_s}"]),
            *([] if task is None else [f"--task={task}"]),
            *([] if task is None or self._ray is None else [f"--ray={self._ray}"]),
            *(f"--root={root}" for root in self._roots),
        ]
        output, write_end = os.pipe()
        try:
            process = self._spawn(arguments, environment, write_end)
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(write_end)
        return _Worker(name, process, Pump(output, self._log.write))

    def _spawn(
        self, arguments: Sequence[str], environment: Mapping[str, str], output: int
    ) -> subprocess.Popen[bytes]:
        # -P: modules are not imported from the working directory.
        return subprocess.Popen(  # noqa: S603 - our own module with our own arguments
            [sys.executable, "-P", "-m", "soupcore.jobs.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # a separate process group, which Ctrl-C does not reach
        )


class _Sleep:
    """Detects that this machine was suspended, after which all leases seem to have expired."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()  # the monotonic clock stops while suspended
        self._until = 0.0

    def is_recent(self) -> bool:
        """Return whether the machine was suspended since the last call, or shortly before it."""
        offset = time.time() - time.monotonic()
        if offset - self._offset > LEASE / 3:
            self._until = time.monotonic() + LEASE
        self._offset = offset
        return time.monotonic() < self._until


def _watch(supervisor: "weakref.ref[Supervisor]", stopped: threading.Event) -> None:
    """Call `look_after` regularly while the supervisor exists."""
    while not stopped.wait(_LOOK_EVERY):
        watched = supervisor()
        if watched is None:
            return
        try:
            watched.look_after()
        except Exception:  # for example, the database is unavailable for a while
            logger.exception("Jobs and workers could not be checked")
        del watched


def _cause_of_end(status: int) -> str:
    """Return how a process with this exit status ended, as a predicate."""
    if status >= 0:
        return f"ended with exit code {status}"
    name = signal.Signals(-status).name
    if -status == signal.SIGKILL:
        return f"was killed ({name}), which the system does if memory runs out"
    return f"was ended by the signal {name}"
