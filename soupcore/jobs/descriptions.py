"""Descriptions of tasks, made in processes of their own.

A task's file is code: it may hang, exit, or change torch for all that runs in its process. So a
server never runs one. It has a process run the file, describe the task, and end.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillRunningError
from contextlib import suppress
from pathlib import Path
from typing import Any

from soupcore.errors import TaskError
from soupcore.jobs.logs import Log, Pump
from soupcore.processes import kill_group
from soupcore.tasks import TaskDescription
from soupcore.tasks.loading import task_signature

_PACKAGE_ROOT = Path(__file__).parents[2]
_LIMIT = 600.0  # seconds: a task may have to read all of its data to identify it
_RETRY = 10.0  # seconds
_MOST_BYTES = 16 << 20  # of a description


class Descriptions:
    """The descriptions of tasks that a server offers, each made once for each text of its file.

    Args:
        log: What tasks print while they are described goes there.
        limit_s: Seconds after which a process that does not answer is ended.
        retry_s: Seconds after which a task that could not be described is tried again when it is
            asked for.
    """

    def __init__(self, log: Path, *, limit_s: float = _LIMIT, retry_s: float = _RETRY) -> None:
        self._log = Log(log)
        self._limit_s = limit_s
        self._retry_s = retry_s
        self._failed: dict[tuple[str, str], float] = {}  # when
        self._known: dict[tuple[str, str], Future[TaskDescription]] = {}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._mutex = threading.Lock()

    def get(self, spec: str, wait_s: float) -> TaskDescription | None:
        """Return the description of a task; None where it is not known in the time given.

        Args:
            spec: Where the task is, `path/to/file.py:attribute`.
            wait_s: Seconds to wait for it.

        Raises:
            TaskError: There is no such file, it fails, or it does not answer.
        """
        try:
            return self._ask(spec).result(timeout=wait_s)
        except StillRunningError:
            return None

    def prepare(self, spec: str) -> None:
        """Begin to describe a task that will be asked for; says nothing where it cannot be."""
        with suppress(TaskError):
            self._ask(spec)

    def stop(self) -> None:
        """End the processes that have not answered."""
        with self._mutex:
            for process in self._running:
                kill_group(process.pid)

    def _ask(self, spec: str) -> "Future[TaskDescription]":
        key = (spec, task_signature(spec))
        with self._mutex:
            if key in self._failed and time.monotonic() - self._failed[key] > self._retry_s:
                del self._known[key], self._failed[key]  # its data or a module may be there now
            if key not in self._known:
                future = self._known[key] = Future[TaskDescription]()
                describe = threading.Thread(
                    target=self._describe, args=(spec, key, future), name="describe", daemon=True
                )
                describe.start()
            return self._known[key]

    def _describe(self, spec: str, key: tuple[str, str], future: "Future[TaskDescription]") -> None:
        try:
            future.set_result(TaskDescription.from_json(self._answer(spec)))
        except Exception as error:
            with self._mutex:
                self._failed[key] = time.monotonic()
            if not isinstance(error, TaskError):
                error = TaskError(f"{spec} could not be described: {error}")
            future.set_exception(error)

    def _answer(self, spec: str) -> Mapping[str, Any]:
        """Have a process describe a task, and return its answer."""
        output, printed = os.pipe()
        answers, answer = os.pipe()
        path = [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]
        pieces: list[bytes] = []

        def take(piece: bytes) -> None:
            if sum(map(len, pieces)) < _MOST_BYTES:
                pieces.append(piece)

        try:
            process = subprocess.Popen(  # noqa: S603 - our own module with a task that was named
                [sys.executable, "-P", "-m", "soupcore.tasks.describing", spec, str(answer)],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                pass_fds=(answer,),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))},
                start_new_session=True,
            )
        except BaseException:
            os.close(output)
            os.close(answers)
            raise
        finally:
            os.close(printed)
            os.close(answer)
        pump, reader = Pump(output, self._log.write), Pump(answers, take)
        with self._mutex:
            self._running.add(process)
        try:
            process.wait(self._limit_s)
        except subprocess.TimeoutExpired:
            raise TaskError(
                f"{spec} did not answer within {self._limit_s:.0f} s, so it was ended. Run it "
                "with Python by itself to see where it waits."
            ) from None
        finally:
            kill_group(process.pid)  # and what it has forked
            process.wait()
            with self._mutex:
                self._running.discard(process)
        reader.last_lines()  # waits for the end of the answer
        try:
            found: dict[str, Any] = json.loads(b"".join(pieces))
        except ValueError:
            lines = pump.last_lines()
            raise TaskError(
                f"{spec} ended its process (exit code {process.returncode}) before it could be "
                "described. Run it with Python by itself to see where."
                + (f" The last lines that it printed:\n{lines}" if lines else "")
            ) from None
        if "error" in found:
            raise TaskError(found["error"])
        return found
