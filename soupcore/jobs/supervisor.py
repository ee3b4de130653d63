"""Keeps worker processes running beside a server: one for each task and device.

A task is a stranger's code, which may change torch for all that runs in its process, leak, hang or
end it. So each has workers of its own, which start with its first job and end when they have been
idle for long; work that needs no task is done by a worker that never loads one.
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
from soupcore.jobs.logs import Log, Pump
from soupcore.jobs.queue import Job, Queue, Standing, State, storable
from soupcore.leases import LEASE
from soupcore.processes import kill_group
from soupcore.store import Store
from soupcore.sweeps.folder import stays_within

_PACKAGE_ROOT = Path(__file__).parents[2]
_LOOK_EVERY = 1.0  # seconds
_PATIENCE = 5.0  # seconds for a worker to end by itself
_POLL = 0.02  # seconds
_GRACE = 6.0  # seconds for a job to stop, or to report, after it was asked to stop
_IDLE = 600.0  # seconds after which a worker ends
_KEPT_BYTES = 1 << 30

# A worker that ends before it takes a job is started again after a while, a few times.
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
        """Whether it has; it is not reaped, so that its id stays its own."""
        how = os.WEXITED | os.WNOWAIT | os.WNOHANG
        return self.process.returncode is not None or (
            os.waitid(os.P_PID, self.process.pid, how) is not None
        )

    def wake(self) -> None:
        """Have it look for jobs."""
        if self.process.stdin is not None:
            with suppress(OSError, ValueError):  # it just ended
                self.process.stdin.write(b"\n")
                self.process.stdin.flush()

    def ask_to_end(self) -> None:
        """Ask it to stop its job and to end."""
        self.process.terminate()
        self.hang_up()

    def hang_up(self) -> None:
        """Close its standard input."""
        if self.process.stdin is not None:
            with suppress(OSError):  # what was still to be written was only a wake
                self.process.stdin.close()

    def wait(self, seconds: float) -> None:
        """Wait a while for its end."""
        deadline = time.monotonic() + seconds
        while not self.has_ended and time.monotonic() < deadline:
            time.sleep(_POLL)

    def end(self) -> str:
        """Kill what is left of it and of what it forked, and return how it ended, in words."""
        kill_group(self.process.pid)
        status = self.process.wait()
        self.hang_up()
        lines = self.pump.last_lines()
        return f"The process that did it {_in_words(status)}." + (
            f" The last lines that it printed:\n{lines}\n" if lines else ""
        )


class Supervisor:
    """Submits jobs, sees to it that workers do them, and ends those that do not stop.

    It looks after the jobs of all servers on the store: those whose worker is gone can be resumed
    within half a minute, and those that do not stop when they are cancelled are ended.

    Args:
        store: Where jobs and results live.
        tasks: The tasks that the workers may load.
        devices: Where they compute: one worker each for a task.
        roots: Folders that the sweeps may be in; anywhere without any.
        idle_s: Seconds after which a worker without work ends, unless it is of the first task.
        grace_s: Seconds that a job has to stop once it was cancelled.
    """

    def __init__(
        self,
        store: Store,
        tasks: Sequence[str],
        devices: Sequence[str] = ("auto",),
        roots: Sequence[Path] = (),
        *,
        idle_s: float = _IDLE,
        grace_s: float = _GRACE,
    ) -> None:
        self.queue = Queue(store)
        self._store = store
        self._tasks = tuple(tasks)
        self._devices = tuple(devices)
        self._roots = tuple(roots)
        self._idle_s = idle_s
        self._grace_s = grace_s
        self._workers: dict[Slot, _Worker] = {}
        self._failed_starts: dict[Slot, tuple[int, float]] = {}  # how many, and when the last
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
            ReadOnlyError: The workspace cannot be written.
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
        """Return what a queued job waits for, in words, if no worker of this server can do it."""
        if job.state != State.QUEUED:
            return None
        if job.task is not None and job.task not in self._offered:
            return f"waits for a server started with --task {job.task}"
        folder = job.request.get("sweep")
        if folder and self._roots and not stays_within(self._roots)(Path(folder)):
            return f"waits for a server started with --root {folder}"
        return None

    def look_after(self) -> None:
        """Look at all jobs and workers, and do what has to be done; it happens by itself, too."""
        if self._store.is_read_only:
            return
        with self._mutex:
            self._start_to_watch()
            for slot, worker in list(self._workers.items()):
                if worker.has_ended:
                    self._bury(slot, worker)
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
        """Start workers ahead of the first job, so that they are warm by then.

        They are those of the first task, and the one that opens sweeps.
        """
        if self._store.is_read_only:
            return
        with self._mutex:
            self._start_to_watch()
            for task in (*self._tasks[:1], None):
                self._start_missing(task)

    def stop(self) -> None:
        """End the workers; the jobs they are at can be resumed."""
        self._stopped.set()
        if self._watch is not None and self._watch is not threading.current_thread():
            self._watch.join()
        with self._mutex:
            self._watch = None
            for worker in self._workers.values():
                worker.ask_to_end()
            for slot, worker in list(self._workers.items()):
                worker.wait(_PATIENCE)
                self._bury(slot, worker)

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that were started and not yet seen to have ended."""
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

    def _bury(self, slot: Slot, worker: _Worker) -> None:
        """Take note that a worker has ended, and end its jobs."""
        del self._workers[slot]
        how = worker.end()
        had_begun = self.queue.abandon(worker.name, how)
        failed = worker.process.returncode > 0 and not had_begun
        count = self._failed_starts.get(slot, (0, 0.0))[0] + 1 if failed else 0
        self._failed_starts[slot] = (count, time.monotonic())
        if count >= _STARTS:
            logger.error("No worker for %s could be started. %s", slot, how)
            self.queue.fail_waiting(slot[0], f"No process could be started for it. {how}")
            del self._failed_starts[slot]

    def _end_silent(self, jobs: Sequence[Standing]) -> None:
        """End the workers whose job was asked to stop, and neither stops nor reports."""
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
                self._bury(slot, self._workers[slot])
                continue
            process = self.queue.process_of(name)
            if process is not None and process.is_here and process.kill():
                self.queue.abandon(name)
            elif job.seconds_silent > self._grace_s + 2 * LEASE:
                # Its own server does not end it; what it still writes is refused from now on.
                self.queue.finish(job, State.CANCELLED)

    def _start_missing(self, task: str | None) -> None:
        for device in self._devices if task is not None else self._devices[:1]:
            slot = (task, device)
            count, when = self._failed_starts.get(slot, (0, 0.0))
            if slot not in self._workers and not (
                count and time.monotonic() - when < count * _PAUSE
            ):
                self._workers[slot] = self._start(task, device)

    def _start(self, task: str | None, device: str) -> _Worker:
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
        name = uuid.uuid4().hex
        arguments = [
            f"--folder={self._store.folder}",
            f"--device={device}",
            f"--name={name}",
            *([] if task in self._tasks[:1] else [f"--idle={self._idle_s}"]),
            *([] if task is None else [f"--task={task}"]),
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
        # -P: files in the folder that the server was started in stand for no modules.
        return subprocess.Popen(  # noqa: S603 - our own module with our own arguments
            [sys.executable, "-P", "-m", "soupcore.jobs.worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # a group of its own; Ctrl-C is for the server
        )


class _Sleep:
    """Notices that this machine slept: all leases seem to have run out then."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()  # the monotonic clock stands while it sleeps
        self._until = 0.0

    def is_recent(self) -> bool:
        """Whether the machine slept since the last call, or shortly before."""
        offset = time.time() - time.monotonic()
        if offset - self._offset > LEASE / 3:
            self._until = time.monotonic() + LEASE
        self._offset = offset
        return time.monotonic() < self._until


def _watch(supervisor: "weakref.ref[Supervisor]", stopped: threading.Event) -> None:
    """Look after the jobs again and again, as long as there is a supervisor."""
    while not stopped.wait(_LOOK_EVERY):
        watched = supervisor()
        if watched is None:
            return
        try:
            watched.look_after()
        except Exception:  # the database is away for a while
            logger.exception("The jobs could not be looked after")
        del watched


def _in_words(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    name = signal.Signals(-status).name
    if -status == signal.SIGKILL:
        return f"was killed ({name}); the system does that where memory runs out"
    return f"was ended by the signal {name}"
