"""Processes: their identity and end, their output in log files, and their import path.

A process is identified uniquely even if its process id is reused.
"""

import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

_PROC = Path("/proc")
_PACKAGE_ROOT = Path(__file__).parents[1]  # the folder with the package `soupcore`

_LARGEST_LOG = 4 << 20  # bytes, for each of the log and its predecessor
_AT_ONCE = 1 << 16  # bytes
_LAST_LINES = 5
_LAST_BYTES = 2000


@dataclass(frozen=True)
class Process:
    """A process on some machine.

    Attributes:
        machine: Host name, boot id and process-id namespace; "" where the system does not provide
            them. Then only its lease shows whether the process is alive.
        pid: Process id.
        started: Start time in clock ticks since boot; "" if unknown.
    """

    machine: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> "Process":
        """Return this process."""
        return cls.of(os.getpid())

    @classmethod
    def of(cls, pid: int) -> "Process":
        """Return the process of this machine with a process id."""
        return cls(_machine(), pid, _started(pid) or "")

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine and can be looked up and killed."""
        return self.machine != "" and self.machine == _machine()

    @property
    def has_ended(self) -> bool:
        """Whether it is known to have ended."""
        return self.is_here and _started(self.pid) != self.started

    def kill(self) -> bool:
        """Kill the process and its process group; returns False if that is not possible."""
        if self.has_ended:
            return True
        return self.is_here and self.pid != os.getpid() and kill_group(self.pid)


def kill_group(leader: int) -> bool:
    """Kill a process, or its group if it leads one; returns False for another user's process."""
    try:
        if os.getpgid(leader) == leader:
            os.killpg(leader, signal.SIGKILL)
        else:
            os.kill(leader, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return True


def has_exited(process: "subprocess.Popen[bytes]") -> bool:
    """Return whether a child process has ended, without reaping it, so that its id is not reused.

    Args:
        process: A process that this process started.
    """
    how = os.WEXITED | os.WNOWAIT | os.WNOHANG
    return process.returncode is not None or os.waitid(os.P_PID, process.pid, how) is not None


def python_path() -> str:
    """Return `$PYTHONPATH` for child processes, so that they import this package."""
    return os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]))


class Log:
    """A log file with rotation: a full file is renamed to `NAME.1`, replacing the previous one.

    Several processes may write to it.
    """

    def __init__(self, path: Path, largest: int = _LARGEST_LOG) -> None:
        self._path = path
        self._largest = largest

    def write(self, content: bytes) -> None:
        """Append to the log."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, content)
            is_full = os.fstat(descriptor).st_size >= self._largest
        finally:
            os.close(descriptor)
        if is_full:
            with suppress(FileNotFoundError):  # another process has just renamed it
                os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))


class Pump:
    """Copies the output of a process from a pipe to a log, and keeps its last lines.

    Forked processes may keep the pipe open after the process has ended, so nothing waits for the
    end of the pipe.

    Args:
        pipe: Descriptor to read from; the pump closes it.
        write: Called with each piece of output.
    """

    def __init__(self, pipe: int, write: Callable[[bytes], None]) -> None:
        self._pipe = pipe
        self._write = write
        self._last = deque[bytes](maxlen=2)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def last_lines(self, patience: float = 0.5) -> str:
        """Return the last lines, after the process has ended."""
        self._thread.join(patience)
        text = b"".join(self._last)[-_LAST_BYTES:].decode(errors="backslashreplace")
        return "\n".join(text.strip().splitlines()[-_LAST_LINES:])

    def _run(self) -> None:
        try:
            while content := os.read(self._pipe, _AT_ONCE):
                self._last.append(content)
                with suppress(OSError):  # the disk is full; the process continues
                    self._write(content)
        finally:
            os.close(self._pipe)


@cache
def _machine() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (_PROC / "self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{socket.gethostname()} {boot} {namespace}"


def _started(pid: int) -> str | None:
    """Return when a process started, in clock ticks after the boot; None if it does not run."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The process name before the last ")" may contain any character.
    state, *fields = text[text.rindex(")") + 2 :].split()
    return None if state in "ZX" else fields[18]
