"""Processes of this machine, told apart even where a process id is used a second time."""

import os
import signal
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process on some machine.

    Attributes:
        machine: The machine, its boot and its namespace of process ids; "" where the system does
            not tell them, and then only the lease of a process says whether it runs.
        pid: Process id.
        started: When it started, as the system counts.
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
        """Return the process of this machine with an id."""
        return cls(_machine(), pid, _started(pid) or "")

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this machine, which can be looked up and killed."""
        return self.machine != "" and self.machine == _machine()

    @property
    def has_ended(self) -> bool:
        """Whether it is known to have ended."""
        return self.is_here and _started(self.pid) != self.started

    def kill(self) -> bool:
        """Kill it and what it forked; False where that cannot be done from here."""
        if self.has_ended:
            return True
        return self.is_here and self.pid != os.getpid() and kill_group(self.pid)


def kill_group(leader: int) -> bool:
    """Kill a process, and its group where it leads one; False where it is another user's."""
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
    state, *fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold anything
    return None if state in "ZX" else fields[18]
