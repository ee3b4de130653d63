"""A process that does long work, one job after the other, those at the screen first.

It does the jobs of one task, or those that need none. A `Supervisor` starts it and wakes it by
writing a byte to its standard input. When that closes, because the server is gone, it stops its
job and ends; if the job does not stop, it ends all the same.
"""

import argparse
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from soupcore.calls import Report, Result
from soupcore.errors import Cancelled, StockpotError
from soupcore.jobs.kinds import KINDS, Request, TaskChangedError, WarmState
from soupcore.jobs.queue import Job, LostJobError, Queue, State, overtaking
from soupcore.leases import Holder
from soupcore.progress import silence
from soupcore.store import Store

_REPORT_EVERY = 0.1  # seconds; also how long a cancel may go unseen between two batches
_NICENESS = 5  # so that the pages, and what else their user does, come first
_LOOK_EVERY = 1.0  # seconds between looks for jobs that another server submitted
_GRACE = 5.0  # seconds to stop the job once the server is gone

logger = logging.getLogger(__name__)


class _Stopped(Exception):  # noqa: N818 - the server went away, which is no fault
    """Raised in a job when the worker is told to end."""


class Worker:
    """Does the jobs of a queue.

    Args:
        queue: The queue.
        warm: What stays warm between jobs.
        task: The task whose jobs it does; None for those that need none.
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
        self._stopping = False  # at the next report of the job it is at
        self._ending = False  # after the job it is at

    def stop(self) -> None:
        """Ask it to end at the next report of the job it is at."""
        self._stopping = True
        self._woken.set()

    def run(self) -> None:
        """Do jobs until `stop` is called, or there was nothing to do for long."""
        busy = time.monotonic()
        with self._queue.store.holder.held():
            while not (self._stopping or self._ending):
                self._woken.clear()
                job = self._claim()
                if job is not None:
                    self.do(job)
                    busy = time.monotonic()
                elif time.monotonic() - busy > self._idle_s:
                    break
                else:
                    self._woken.wait(_LOOK_EVERY)
        self._queue.store.holder.leave()

    def listen(self, descriptor: int) -> None:
        """Take wakes from a descriptor; when it closes, stop, and see to it that the process ends.

        The task may hang, so this is for a thread of its own.
        """
        while _read(descriptor):
            self._woken.set()
        self.stop()
        time.sleep(_GRACE)
        os.killpg(os.getpgrp(), signal.SIGKILL)  # with what the task has forked

    def _claim(self, kinds_: tuple[str, ...] | None = None) -> Job | None:
        return self._queue.claim(self._name, kinds_, task=self._task, accepts=self._warm.may_open)

    def do(self, job: Job) -> None:
        """Do one job and write how it ended, unless it was taken from this worker meanwhile."""
        reported = 0.0
        known: Mapping[str, Any] | None = None
        cancelled = False

        def report(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
            nonlocal reported, known, cancelled
            news = partial is not None and partial != known
            if cancelled:  # a recipe that gives its best so far took note, and went on
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
            if (before := overtaking(job.kind)) and not self._ending:
                while (urgent := self._claim(before)) is not None:
                    self.do(urgent)

        try:
            result = _handler(job.kind)(self._warm, job.request, report)
        except Cancelled:
            self._queue.finish(job, State.CANCELLED)
        except LostJobError:
            logger.warning("Job %s (%s) was taken from this worker", job.id, job.kind)
        except TaskChangedError:
            # What the file did to this process before it was changed must not outlive the change.
            self._ending = True
            self._queue.give_back(job)
        except _Stopped:
            self._fail(
                job, "The app was stopped. What was finished is kept; resume it to do the rest."
            )
        except StockpotError as error:
            self._fail(job, str(error))
        except SystemExit as error:
            logger.exception("Job %s (%s) tried to exit", job.id, job.kind)
            self._fail(job, f"The task's code called exit ({error}). {self._where}")
        except Exception as error:
            # Whatever a user's task or a full disk raises ends this job, not the worker.
            logger.exception("Job %s (%s) failed", job.id, job.kind)
            self._fail(job, f"{type(error).__name__}: {error}. {self._where}")
        else:
            self._queue.finish(job, State.DONE, result=result)

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
    except OSError:  # the task has closed it
        return b""


def _take_standard_input() -> int:
    """Return a descriptor of standard input; the task finds an empty one instead."""
    wakes = os.dup(0)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return wakes


def main() -> None:
    """Run a worker on a store, whose database `$STOCKPOT_DATABASE` names."""
    parser = argparse.ArgumentParser(prog="python -m soupcore.jobs.worker", description=__doc__)
    parser.add_argument("--folder", required=True, help="the store's folder")
    parser.add_argument("--name", help="the name that it holds its jobs under")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--task", help="the task whose jobs it does")
    parser.add_argument("--idle", type=float, default=float("inf"), help="seconds; it ends then")
    parser.add_argument("--root", type=Path, action="append", help="a folder for sweeps")
    arguments = parser.parse_args()
    silence()
    os.nice(_NICENESS)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    store = Store(arguments.folder, os.environ["STOCKPOT_DATABASE"])
    store.holder = Holder(store.engine, arguments.name, is_worker=True)
    store.remove_leftovers()
    task: str | None = arguments.task
    warm = WarmState(store, [] if task is None else [task], arguments.device, arguments.root)
    worker = Worker(Queue(store), warm, task, arguments.idle)
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    listener = threading.Thread(target=worker.listen, args=(_take_standard_input(),), daemon=True)
    listener.start()
    worker.run()


if __name__ == "__main__":
    main()
