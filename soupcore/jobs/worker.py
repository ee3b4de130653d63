"""A worker process, which runs jobs one by one, interactive ones first.

It runs the jobs of one task, or those that need no task. A `Supervisor` starts it and wakes it by
writing a byte to its standard input. When standard input closes, because the server has ended, it
stops its job and ends, even if the job does not stop.
"""

import argparse
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from soupcore.calls import OpenSweep, Report, Result
from soupcore.errors import Cancelled, StockpotError
from soupcore.jobs.job import DERIVED, INTERACTIVE, Job, State, overtaking
from soupcore.jobs.kinds import KINDS, SHARED, Request, TaskChangedError, WarmState
from soupcore.jobs.known_sweeps import remember
from soupcore.jobs.queue import ADVICE, LostJobError, Queue
from soupcore.overview import Overview
from soupcore.progress import silence
from soupcore.store import Store
from soupcore.store.leases import Holder

_REPORT_EVERY = 0.1  # seconds; also the longest time until a cancellation is noticed
_NICENESS = 5  # gives priority to the pages and other programs of the user
_LOOK_EVERY = 1.0  # seconds between checks for jobs that another server submitted
_GRACE = 5.0  # seconds to stop the job once the server has ended

logger = logging.getLogger(__name__)


class _Stopped(Exception):  # noqa: N818 - not an error: the server has ended
    """Raised in a job when the worker has to stop."""


class _Enough(Exception):  # noqa: N818 - not an error
    """Raised to stop sharing a job: it has ended, or another job waits."""


class Worker:
    """Runs the jobs of a queue.

    While no job waits, it evaluates points of a job that another worker runs.

    Args:
        queue: The queue.
        warm: Tasks, sweeps and evaluators that stay loaded between jobs.
        task: The task whose jobs it runs; None for jobs that need no task.
        idle_s: Seconds without a job after which it ends.
    """

    def __init__(
        self,
        queue: Queue,
        warm: WarmState,
        task: str | None = None,
        idle_s: float = float("inf"),
    ) -> None:
        self._queue = queue
        self._warm = warm
        self._task = task
        self._idle_s = idle_s
        self._name = queue.store.holder.name
        self._woken = threading.Event()
        self._stopping = False  # stop at the next report of the current job
        self._ending = False  # end after the current job
        self._shared: set[tuple[int, int]] = set()  # jobs without points left; number and attempt

    def stop(self) -> None:
        """Request to stop at the next report of the current job."""
        self._stopping = True
        self._woken.set()

    def run(self) -> None:
        """Run jobs until `stop` is called, or there was no job for `idle_s`."""
        busy = time.monotonic()
        with self._queue.store.holder.held():
            while not (self._stopping or self._ending):
                self._woken.clear()
                job = self._claim()
                if job is not None:
                    self.do(job)
                    busy = time.monotonic()
                elif self._share():
                    busy = time.monotonic()
                elif time.monotonic() - busy > self._idle_s:
                    break
                else:
                    self._woken.wait(_LOOK_EVERY)
        self._queue.store.holder.leave()

    def listen(self, descriptor: int) -> None:
        """Receive wake-ups from a descriptor. When it closes, stop, and then kill the process.

        Run it in a separate thread, since the task may hang.
        """
        while _read(descriptor):
            self._woken.set()
        self.stop()
        time.sleep(_GRACE)
        os.killpg(os.getpgrp(), signal.SIGKILL)  # also kills processes that the task has forked

    def _claim(self, kinds: tuple[str, ...] | None = None) -> Job | None:
        return self._queue.claim(self._name, kinds, task=self._task, accepts=self._warm.may_open)

    def _share(self) -> bool:
        """Evaluate points of another worker's job. Returns False if there is no such job."""
        running = self._queue.running(SHARED.keys(), self._task, besides=self._name)
        for job in running:
            key = job.id, job.attempt
            is_open = key not in self._shared and self._warm.may_open(job.request)
            if is_open and self._queue.runs(job):
                with suppress(_Enough):
                    self._share_points(job)
                    self._shared.add(key)
                return True
        return False

    def _share_points(self, job: Job) -> None:
        looked = 0.0

        def report(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
            nonlocal looked
            if time.monotonic() - looked < _REPORT_EVERY:
                return
            looked = time.monotonic()
            if self._stopping or not self._queue.runs(job):
                raise _Enough

        try:
            SHARED[job.kind](self._warm, job.request, report)
        except _Enough:
            raise
        except TaskChangedError:
            self._ending = True
        except (Exception, SystemExit):  # the job's own worker meets the same error
            logger.warning("Job %s (%s) cannot be shared", job.id, job.kind, exc_info=True)

    def do(self, job: Job) -> None:
        """Run one job and write its outcome, unless this worker has lost the job."""
        reported = 0.0
        known: Mapping[str, Any] | None = None
        cancelled = False

        def report(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
            nonlocal reported, known, cancelled
            news = partial is not None and partial != known
            if cancelled:  # the recipe has caught `Cancelled` to return its best result so far
                if news:
                    self._queue.report(job, done, total, partial)
                raise Cancelled
            if not news and time.monotonic() - reported < _REPORT_EVERY:
                return
            reported, known = time.monotonic(), partial
            if self._queue.report(job, done, total, partial) is State.CANCELLING:
                cancelled = True
                raise Cancelled
            if self._stopping:
                raise _Stopped
            if (kinds := overtaking(job.kind)) and not self._ending:
                while (urgent := self._claim(kinds)) is not None:
                    self.do(urgent)

        try:
            result = _handler(job.kind)(self._warm, job.request, report)
        except Cancelled:
            self._queue.finish(job, State.CANCELLED)
        except LostJobError:
            logger.warning("Job %s (%s) was taken from this worker", job.id, job.kind)
        except TaskChangedError:
            # The old version of the file may have changed this process, so a new one is needed.
            self._ending = True
            self._queue.give_back(job)
        except _Stopped:
            self._fail(job, f"The app was stopped. {ADVICE}")
        except StockpotError as error:
            self._fail(job, str(error))
        except SystemExit as error:
            logger.exception("Job %s (%s) tried to exit", job.id, job.kind)
            self._fail(job, f"The task's code called exit ({error}). {self._where}")
        except Exception as error:
            # Errors of a user's task or of a full disk end this job, but not the worker.
            logger.exception("Job %s (%s) failed", job.id, job.kind)
            self._fail(job, f"{type(error).__name__}: {error}. {self._where}")
        else:
            self._queue.finish(job, State.DONE, result=result)
            self._remember_verdict(job)

    def _remember_verdict(self, job: Job) -> None:
        """Store the verdict on the sweep for the list of sweeps, after a job that may change it."""
        if job.task is None or job.kind in INTERACTIVE + DERIVED:
            return
        try:
            opening = OpenSweep.from_request(job.request)
            request = opening.request | {"task": job.request["task"]}
            remember(Overview.of(self._warm.context(request)))
        except (Exception, SystemExit):  # metrics of the task run the user's code
            logger.warning("The verdict after job %s is unknown", job.id, exc_info=True)

    def _fail(self, job: Job, why: str) -> None:
        self._queue.finish(job, State.FAILED, error=why)

    @property
    def _where(self) -> str:
        return f"The traceback is in {self._warm.store.folder / 'worker.log'}."


def _handler(kind: str) -> Callable[[WarmState, Request, Report], Result]:
    if kind not in KINDS:
        raise StockpotError(f"This version of Stockpot has no job of the kind {kind!r}.")
    return KINDS[kind]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # the task has closed the descriptor
        return b""


def _take_standard_input() -> int:
    """Return a duplicate of standard input, and replace standard input by an empty one."""
    wakes = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return wakes


def main() -> None:
    """Run a worker on a store, whose database URL is in $STOCKPOT_DATABASE."""
    parser = argparse.ArgumentParser(prog="python -m soupcore.jobs.worker", description=__doc__)
    parser.add_argument("--folder", required=True, help="the store's folder")
    parser.add_argument("--name", help="name of the worker in the database")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--task", help="the task whose jobs it runs")
    parser.add_argument(
        "--idle", type=float, default=float("inf"), help="idle seconds after which it ends"
    )
    parser.add_argument("--ray", help="address of a Ray cluster")
    parser.add_argument("--root", type=Path, action="append", help="a folder for sweeps")
    arguments = parser.parse_args()
    silence()
    os.nice(_NICENESS)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    store = Store(arguments.folder, os.environ["STOCKPOT_DATABASE"])
    store.holder = Holder(store.engine, arguments.name, is_worker=True)
    store.remove_leftovers()
    task: str | None = arguments.task
    tasks = [] if task is None else [task]
    warm = WarmState(store, tasks, arguments.device, arguments.root, arguments.ray)
    worker = Worker(Queue(store), warm, task, arguments.idle)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    listener = threading.Thread(target=worker.listen, args=(_take_standard_input(),), daemon=True)
    listener.start()
    worker.run()


if __name__ == "__main__":
    main()
