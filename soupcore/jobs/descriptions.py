"""Descriptions of tasks, computed in separate processes.

A task's file is code: it may hang, exit, or change torch for everything in its process. So a server
never runs it. A separate process runs the file, describes the task, and ends.
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
from soupcore.processes import Log, Pump, kill_group, python_path
from soupcore.tasks import TaskDescription
from soupcore.tasks.loading import task_signature

_LIMIT = 600.0  # seconds; a task may have to read all of its data to compute digests
_RETRY = 10.0  # seconds
_MOST_BYTES = 16 << 20  # of a description


class Descriptions:
    """The descriptions of a server's tasks, each computed once per version of the task's file.

    Args:
        log: Log file for the output of the processes.
        limit_s: Seconds after which a process that does not answer is killed.
        retry_s: Seconds after which the next request for a failed description tries again.
    """

    def __init__(self, log: Path, *, limit_s: float = _LIMIT, retry_s: float = _RETRY) -> None:
        self._log = Log(log)
        self._limit_s = limit_s
        self._retry_s = retry_s
        self._failed: dict[tuple[str, str], float] = {}  # time of the failure
        self._known: dict[tuple[str, str], Future[TaskDescription]] = {}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False
        self._mutex = threading.Lock()

    def get(self, spec: str, wait_s: float) -> TaskDescription | None:
        """Return the description of a task, or None if it is not ready in time.

        Args:
            spec: Location of the task, as for `load_task`.
            wait_s: Seconds to wait.

        Raises:
            TaskError: There is no such file, it fails, or it does not answer.
        """
        try:
            return self._requested(spec).result(timeout=wait_s)
        except StillRunningError:
            return None

    def prepare(self, spec: str) -> None:
        """Start to describe a task in the background. `get` raises its errors."""
        with suppress(TaskError):
            self._requested(spec)

    def stop(self) -> None:
        """Kill the processes that have not answered, and start no more."""
        with self._mutex:
            self._is_stopped = True
            for process in self._running:
                kill_group(process.pid)

    def _requested(self, spec: str) -> "Future[TaskDescription]":
        """Return the future description of a task, and start to compute it if necessary."""
        key = (spec, task_signature(spec))
        with self._mutex:
            if key in self._failed and time.monotonic() - self._failed[key] > self._retry_s:
                del self._known[key], self._failed[key]  # missing data or modules may exist now
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
        """Start a process that describes a task, and return its answer."""
        output, printed = os.pipe()
        answers, answer = os.pipe()
        pieces: list[bytes] = []

        def take(piece: bytes) -> None:
            if sum(map(len, pieces)) < _MOST_BYTES:
                pieces.append(piece)

        try:
            process = self._started(
                [sys.executable, "-P", "-m", "soupcore.tasks.describing", spec, str(answer)],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                pass_fds=(answer,),
                env={**os.environ, "PYTHONPATH": python_path()},
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
        try:
            process.wait(self._limit_s)
        except subprocess.TimeoutExpired:
            raise TaskError(
                f"{spec} did not answer within {self._limit_s:.0f} s, so it was stopped. Run the "
                "file with Python to see where it waits."
            ) from None
        finally:
            kill_group(process.pid)  # also kills processes that it has forked
            process.wait()
            with self._mutex:
                self._running.discard(process)
        reader.last_lines()  # waits for the end of the answer
        try:
            parsed: dict[str, Any] = json.loads(b"".join(pieces))
        except ValueError:
            lines = pump.last_lines()
            raise TaskError(
                f"{spec} ended its process (exit code {process.returncode}) before it could be "
                "described. Run the file with Python to see where."
                + (f" The last lines that it printed:\n{lines}" if lines else "")
            ) from None
        if "error" in parsed:
            raise TaskError(parsed["error"])
        return parsed

    def _started(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process that `stop` can kill."""
        with self._mutex:
            if self._is_stopped:
                raise TaskError("The server is stopping and describes no more tasks.")
            process = subprocess.Popen(command, **options)  # noqa: S603 - our own module
            self._running.add(process)
        return process
