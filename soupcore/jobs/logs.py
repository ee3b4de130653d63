"""What workers print, in a log that stays small whatever they print."""

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LARGEST = 4 << 20  # bytes, of the log and of the one before it, each
_AT_ONCE = 1 << 16  # bytes
_LAST_LINES = 5
_LAST_BYTES = 2000


class Log:
    """A file of limited size; what is older is in a second one, `NAME.1`, and then gone.

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
            with suppress(FileNotFoundError):  # another process has just done so
                os.replace(self._path, self._path.with_name(f"{self._path.name}.1"))


class Pump:
    """Carries to a log what a process prints, and keeps its last lines.

    What the process has forked may hold the pipe open for longer than it lives itself, so nothing
    waits for its end.

    Args:
        pipe: Descriptor to read from; the pump closes it.
        write: Takes what was printed.
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
                with suppress(OSError):  # a full disk; the process goes on
                    self._write(content)
        finally:
            os.close(self._pipe)
