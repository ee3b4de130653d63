"""Processes of this machine, identified uniquely even if a process id is reused."""

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
