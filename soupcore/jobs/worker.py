"""The process that does the long work, one job after the other, those at the screen first.

It is started and woken by a `Supervisor`, which writes a byte to its standard input; when that
closes, because the server is gone, it ends after the job it is at.
"""

import argparse
import logging
import os
import select
import signal
import sys
import time
import uuid
from collections.abc import Mapping
from typing import Any

from soupcore.errors import Cancelled, StockpotError
from soupcore.jobs import connectivity_kinds, kinds
from soupcore.jobs.kinds import WarmState
from soupcore.jobs.queue import Job, Queue, State, overtaking
from soupcore.store import Store

_REPORT_EVERY = 0.1  # seconds; also how long a cancel may go unseen between two batches
_NICENESS = 5  # so that the pages, and what else their user does, come first
_LOOK_EVERY = 1.0  # seconds between looks for jobs that another server submitted

KINDS = kinds.KINDS | connectivity_kinds.KINDS

logger = logging.getLogger(__name__)


class _Stopped(Exception):  # noqa: N818 - the server went away, which is no fault
    """Raised in a job when the worker is told to end."""


class Worker:
    """Does the jobs of a queue."""

    def __init__(self, queue: Queue, warm: WarmState) -> None:
        self.name = uuid.uuid4().hex
        self._queue = queue
        self._warm = warm
        self._lock = queue.worker_lock(self.name)
        self._stopping = False

    def stop(self) -> None:
        """Ask it to end at the next report of the job it is at."""
        self._stopping = True

    def run(self) -> None:
        """Do jobs until standard input closes or `stop` is called."""
        while not self._stopping:
            job = self._queue.claim(self.name)
            if job is not None:
                self.do(job)
            elif not _wait_for_wake():
                break

    def do(self, job: Job) -> None:
        """Do one job and write how it ended."""
        reported = 0.0
        known: Mapping[str, Any] | None = None
        cancelled = False

        def report(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
            nonlocal reported, known, cancelled
            news = partial is not None and partial != known
            if cancelled:  # a recipe that gives its best so far took note, and went on
                if news:
                    self._queue.report(job.id, done, total, partial)
                raise Cancelled
            if not news and time.monotonic() - reported < _REPORT_EVERY:
                return
            reported, known = time.monotonic(), partial
            if self._queue.report(job.id, done, total, partial) is State.CANCELLING:
                cancelled = True
                raise Cancelled
            if self._stopping:
                raise _Stopped
            if kinds_before := overtaking(job.kind):
                while (urgent := self._queue.claim(self.name, kinds_before)) is not None:
                    self.do(urgent)

        try:
            result = KINDS[job.kind](self._warm, job.request, report)
        except Cancelled:
            self._queue.finish(job.id, State.CANCELLED)
        except _Stopped:
            self._queue.finish(
                job.id,
                State.FAILED,
                error="The app was stopped. What was finished is kept; resume it to do the rest.",
            )
        except StockpotError as error:
            self._queue.finish(job.id, State.FAILED, error=str(error))
        except Exception as error:
            # Whatever a user's task or a full disk raises ends this job, not the worker.
            logger.exception("Job %s (%s) failed", job.id, job.kind)
            self._queue.finish(
                job.id,
                State.FAILED,
                error=f"{type(error).__name__}: {error}. "
                f"The traceback is in {self._warm.store.folder / 'worker.log'}.",
            )
        else:
            self._queue.finish(job.id, State.DONE, result=result)


def _wait_for_wake() -> bool:
    """Wait for a wake or a while; False when standard input was closed."""
    ready, _, _ = select.select([sys.stdin], [], [], _LOOK_EVERY)
    return not ready or os.read(sys.stdin.fileno(), 4096) != b""


def main() -> None:
    """Run a worker on a store, whose database `$STOCKPOT_DATABASE` names."""
    parser = argparse.ArgumentParser(prog="python -m soupcore.jobs.worker", description=__doc__)
    parser.add_argument("--folder", required=True, help="the store's folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--task", action="append", default=[], help="a task that may be run")
    arguments = parser.parse_args()
    os.nice(_NICENESS)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    store = Store(arguments.folder, os.environ["STOCKPOT_DATABASE"])
    store.remove_leftovers()
    worker = Worker(Queue(store), WarmState(store, arguments.task, arguments.device))
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


if __name__ == "__main__":
    main()
