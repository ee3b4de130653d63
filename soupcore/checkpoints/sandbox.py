"""Reading of untrusted torch files in a child process with few rights and little time.

A child process imports the reader once and forks for each file (see `soupcore.safe_torch.child`).
It reads one file at a time, and waits for the next one until this process ends.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from soupcore import safe_torch
from soupcore.errors import CheckpointError
from soupcore.safe_torch import MOST_CPU_SECONDS, MOST_MEMORY, MOST_OUTPUT, STATUS

# The limit on CPU time ends a malicious file. This one ends a wait for storage that does not
# answer, and is long enough for a reader on a busy machine.
MOST_SECONDS = 60

# An empty package named `soupcore` lets the child import the safe reader and nothing else: neither
# soupcore/__init__.py nor its imports.
_PROGRAM = """
import sys
package = type(sys)("soupcore")
package.__path__ = [sys.argv[1]]
sys.modules["soupcore"] = package
from soupcore.safe_torch.child import main
main()
"""
_PACKAGE = Path(safe_torch.__file__).parents[1]


class NoVerdictError(CheckpointError):
    """The child process ended without a result. A retry may succeed."""


def read_contents(descriptor: int, path: Path) -> dict[str, Any]:
    """Read the contents of a torch file; see `soupcore.safe_torch.contents.read_contents`.

    The child receives the open file, so that it reads the same bytes as the caller. Its fork for
    this file may use 1 GiB of memory, 8 s of CPU time and 60 s in total. It can neither write files
    nor start processes.

    Args:
        descriptor: The file, open for reading.
        path: Its path, for errors.

    Raises:
        CheckpointError: The file is refused, or reading it takes too much CPU time.
        NoVerdictError: The child could not start, ran out of time or memory, crashed, or was
            killed.
    """
    answer = _answer(descriptor, path)
    if refusal := answer.get("refusal"):
        problem, way_out = refusal
        raise CheckpointError(f"{path} cannot be opened. {problem}", way_out)
    contents: dict[str, Any] = answer["contents"]
    return contents


def rewrite(descriptor: int, path: Path, weights: str) -> dict[str, Any]:
    """Return the pickle of a soup in the form of a torch file; see `soupcore.safe_torch.rewriting`.

    The limits are those of `read_contents`.

    Args:
        descriptor: The file, open for reading.
        path: Its path, for errors.
        weights: Name of the weight set that the soup replaces; "" for the first one.

    Returns:
        The result of `soupcore.safe_torch.rewriting.rewrite`, or `{"problem": sentence}` if the
        file cannot be rewritten.

    Raises:
        CheckpointError: The child exceeded its limits, or was killed; see `read_contents`.
    """
    answer = _answer(descriptor, path, "rewrite", weights)
    if refusal := answer.get("refusal"):
        return {"problem": refusal[0]}
    rewritten: dict[str, Any] = answer["rewritten"]
    return rewritten


def read_values(descriptor: int, path: Path) -> dict[str, Any]:
    """Read the plain values of a torch file without weights.

    See `soupcore.safe_torch.contents.read_values`. The limits are those of `read_contents`.

    Args:
        descriptor: The file, open for reading.
        path: Its path, for errors.

    Raises:
        CheckpointError: The file is refused, or the child exceeded its limits.
    """
    answer = _answer(descriptor, path, "values")
    if refusal := answer.get("refusal"):
        problem, way_out = refusal
        raise CheckpointError(f"{path} cannot be read. {problem}", way_out)
    values: dict[str, Any] = answer["values"]
    return values


def legacy_prefixes(descriptor: int, path: Path) -> list[tuple[int, int]] | None:
    """Return the numbers before the storages of a file from before torch 1.6, by its beginning.

    See `soupcore.safe_torch.formats.legacy_prefixes`. The limits are those of `read_contents`.

    Args:
        descriptor: The file, open for reading.
        path: Its path, for errors.

    Returns:
        Offsets and numbers of elements, or None if the file is refused, for example because
        its pickles are incomplete.

    Raises:
        CheckpointError: The child exceeded its limits, or was killed.
    """
    answer = _answer(descriptor, path, "prefixes")
    return [(at, count) for at, count in answer["prefixes"]] if "prefixes" in answer else None


class _Reader:
    """A child process, which reads one file at a time.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - this interpreter and `_PROGRAM`
                    command,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    process_group=0,  # shared with its forks, to kill them too
                )
        except OSError:
            self._socket.close()
            raise

    @property
    def has_ended(self) -> bool:
        """Whether the process has ended, because it was killed."""
        return self._process.poll() is not None

    def read(self, descriptor: int, request: Sequence[str]) -> tuple[bytes, int]:
        """Return the answer of a fork, at most `MOST_OUTPUT` + 1 bytes, and its exit status."""
        receiving, sending = os.pipe()
        with os.fdopen(receiving, "rb") as pipe:
            with suppress(OSError):  # if it has ended, there is no answer
                text = json.dumps(request).encode()
                socket.send_fds(self._socket, [text], [descriptor, sending])
            os.close(sending)
            output = pipe.read(MOST_OUTPUT + 1)
        if len(output) > MOST_OUTPUT:
            self.kill()
        status = b""
        with suppress(OSError):
            status = self._socket.recv(STATUS.size)
        return output, STATUS.unpack(status)[0] if status else self._process.wait()

    def kill(self) -> None:
        """Kill the process and its fork."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Stop the process, and wait for its end."""
        with suppress(OSError):  # if it has ended
            self._socket.shutdown(socket.SHUT_RDWR)  # also if a fork of this process has a copy
        self._socket.close()
        self._process.wait()


# Idle readers of this process. A fork of it has separate readers.
_idle: dict[int, list[_Reader]] = {}
_MOST_IDLE = 4


def end_readers() -> None:
    """End the idle child processes. The next file starts another one."""
    idle = _idle.pop(os.getpid(), [])
    while idle:
        idle.pop().end()


atexit.register(end_readers)


def _take() -> _Reader:
    """Return an idle reader, or a new one."""
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_PACKAGE)]
    idle = _idle.setdefault(os.getpid(), [])
    while idle:
        reader = idle.pop()
        if reader.command == command and not reader.has_ended:
            return reader
        reader.end()
    return _Reader(command)


def _give_back(reader: _Reader) -> None:
    idle = _idle.setdefault(os.getpid(), [])
    if reader.has_ended or len(idle) >= _MOST_IDLE:
        reader.end()
    else:
        idle.append(reader)


def _answer(descriptor: int, path: Path, *request: str) -> dict[str, Any]:
    try:
        reader = _take()
    except OSError as error:
        raise NoVerdictError(
            f"{path} cannot be opened: the process to read it could not be started "
            f"({error.strerror}).",
            "Free memory or processes, and try again.",
        ) from None
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        reader.kill()

    timer = threading.Timer(MOST_SECONDS, expire)
    timer.start()
    try:
        output, status = reader.read(descriptor, request)
    except BaseException:  # such as KeyboardInterrupt
        reader.kill()
        raise
    finally:
        timer.cancel()
        timer.join()  # the timer must not kill the reader of the next file
        _give_back(reader)
    try:
        answer: dict[str, Any] = json.loads(output)
    except ValueError:
        if len(output) > MOST_OUTPUT:
            reason = f"its description takes more than {MOST_OUTPUT} bytes"
            raise CheckpointError(f"{path} cannot be opened: {reason}. {_SUSPECT}") from None
        raise _without_answer(path, status, expired.is_set()) from None
    if answer.get("exhausted"):
        raise NoVerdictError(
            f"{path} cannot be opened: reading its contents takes more than "
            f"{MOST_MEMORY >> 20} MiB of memory, or more than the machine has free.",
            "Free memory and try again. If this happens again, the file is damaged or malicious.",
        )
    return answer


_SUSPECT = (
    "No valid checkpoint needs that, so the file is damaged or malicious. Do not open it elsewhere."
)
_CRASHES = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}


def _without_answer(path: Path, status: int, expired: bool) -> CheckpointError:
    """Return the error for a child that ended with this exit status and without a result."""
    start = f"{path} cannot be opened: "
    if expired:
        return NoVerdictError(
            f"{start}reading its contents takes more than {MOST_SECONDS} s, although it needs "
            "little CPU time. The storage or the machine is slow.",
            "Try again.",
        )
    if status == -signal.SIGXCPU:
        reason = f"reading its contents takes more than {MOST_CPU_SECONDS} s of CPU time"
        return CheckpointError(f"{start}{reason}. {_SUSPECT}")
    if status < 0 and -status not in _CRASHES:
        name = signal.strsignal(-status) or "unknown"
        return NoVerdictError(
            f"{start}the process that read it was killed (signal {-status}, {name}), by a user or "
            "because the machine ran out of memory. The file may be fine.",
            "Try again. If this happens again, free memory first.",
        )
    return NoVerdictError(
        f"{start}the process that read it crashed (exit status {status}).",
        "Try again. If this happens again, the file may be damaged or malicious.",
    )
