"""The output of worker processes, in a log of limited size."""

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LARGEST = 4 << 20  # bytes, for each of the log and its predecessor
_AT_ONCE = 1 << 16  # bytes
_LAST_LINES = 5
_LAST_BYTES = 2000


class Log:
    """A log file with rotation: a full file is renamed to `NAME.1`, replacing the previous one.

    Several processes may write to it.
    """

    def __init__(self, path: Path, largest: int = _LARGEST) -> None:
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
