"""Servers and programs that are forked from a process which has imported everything: importing
torch for each would take most of the time of their tests.

python -m tests.jobs.forks               starts servers: it reads a line of JSON for each and prints
                                         the server's process id
python -m tests.jobs.forks DESCRIPTOR    starts programs, such as workers, as a socket asks for
                                         them; see `Forks`
"""

import ctypes
import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from soupcore import Store
from soupcore.evaluation import evaluations
from soupcore.jobs import Supervisor, supervisor, worker
from soupcore.tasks import describing  # noqa: F401 - imported before programs are forked

_PR_SET_CHILD_SUBREAPER = 36

# Workers write quick evaluations together. Here each is written at once, so that a kill can lose no
# more than the one that its worker is at.
evaluations._WRITE_EVERY = 0.0
evaluations._WRITE_SHARE = 0


class Forked:
    """A forked process, with the parts of `subprocess.Popen` that Stockpot uses."""

    def __init__(self, pid: int, stdin: io.FileIO | None = None) -> None:
        self.pid = pid
        self.stdin = stdin
        self.returncode: int | None = None

    def terminate(self) -> None:
        """Ask it to end."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float = math.inf) -> int:
        """Wait for its end, or raise `subprocess.TimeoutExpired`."""
        deadline = time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG if timeout < math.inf else 0)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            else:
                time.sleep(0.01)
        return self.returncode


class Forks:
    """A process that has no database open, which forks programs that become children of ours."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    @classmethod
    def of_this_process(cls) -> "Forks":
        """Fork it from this process, which has imported everything and started nothing."""
        here, there = socket.socketpair()
        if os.fork() == 0:
            here.close()
            fork_programs(there)
            os._exit(0)
        there.close()
        return cls(here)

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stdin: int,
        output: int,
        *more: int,
    ) -> int:
        """Run the `main` of a module in a new process, and return its id.

        Descriptors after `output`, at most one, have the number 3 in that process.
        """
        request = {"module": module, "arguments": arguments, "environment": dict(environment)}
        descriptors = [stdin, output, *more]
        _adopt_orphans(True)
        socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
        pid = int(self._socket.recv(100))
        _adopt_orphans(False)
        return pid

    def popen(
        self,
        command: Sequence[str],
        *,
        stdout: int,
        env: Mapping[str, str],
        pass_fds: tuple[int],
        **others: Any,
    ) -> Forked:
        """Start `python -P -m module argument … descriptor` as `subprocess.Popen` does."""
        _, _, _, module, *arguments, descriptor = command
        assert descriptor == str(pass_fds[0])
        with Path(os.devnull).open("rb") as null:
            pid = self.start(module, [*arguments, "3"], env, null.fileno(), stdout, *pass_fds)
        return Forked(pid)


def _adopt_orphans(adopts: bool) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(adopts))


def fork_programs(asking: socket.socket) -> None:
    """Fork programs as they are asked for, until the socket is closed."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(asking, 1 << 16, 3)
        if not message:
            return
        request = json.loads(message)

        def run(request: Any = request, descriptors: Any = descriptors) -> None:
            stdin, output, *more = descriptors
            for number, descriptor in enumerate([stdin, output, output, *more]):
                os.dup2(descriptor, number)
            os.closerange(3 + len(more), 200)
            os.environ.update(request["environment"])
            sys.argv = [request["module"], *request["arguments"]]
            import_module(request["module"]).main()
            sys.stdout.flush()

        # The one in between ends at once, so that the program goes to the server.
        read_end, write_end = os.pipe()
        between = os.fork()
        if between == 0:
            os.write(write_end, str(fork(run)).encode())
            os._exit(0)
        os.waitpid(between, 0)
        asking.send(os.read(read_end, 100))
        for descriptor in (*descriptors, read_end, write_end):
            os.close(descriptor)


class ForkingSupervisor(Supervisor):
    """Has its workers forked."""

    forks: Forks

    def _spawn(
        self, arguments: Sequence[str], environment: Mapping[str, str], output: int
    ) -> "subprocess.Popen[bytes]":
        read_end, write_end = os.pipe()
        pid = self.forks.start("soupcore.jobs.worker", arguments, environment, read_end, output)
        os.close(read_end)
        return cast("subprocess.Popen[bytes]", Forked(pid, io.FileIO(write_end, "wb")))


def fork(run: Callable[[], None]) -> int:
    """Return the id of a new process in a session of its own, which runs a function and ends."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setsid()
            run()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def serve(
    folder: str,
    url: str | None,
    tasks: list[str],
    devices: Sequence[str] = ("cpu",),
    **options: Any,
) -> None:
    """Run a server until it is killed."""
    ForkingSupervisor.forks = Forks.of_this_process()  # before there is a database or a thread
    running = ForkingSupervisor(Store(folder, url), tasks, devices, **options)
    while True:
        signal.pause()
        assert running


def main() -> None:
    """Start programs or servers as they are asked for."""
    if sys.argv[1:]:
        fork_programs(socket.socket(fileno=int(sys.argv[1])))
        return
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # servers that are killed leave no zombies
    supervisor._LOOK_EVERY = worker._LOOK_EVERY = 0.1
    worker._GRACE = 1.0
    for line in sys.stdin:
        wanted: dict[str, Any] = json.loads(line)

        def run(wanted: dict[str, Any] = wanted) -> None:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(2, 1)
            os.close(0)
            serve(**wanted)

        print(fork(run), flush=True)


if __name__ == "__main__":
    main()
