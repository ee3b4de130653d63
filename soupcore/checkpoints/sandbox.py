"""Reading a torch file of others in a process of its own, which can do little and not for long."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from soupcore import strict
from soupcore.errors import CheckpointError
from soupcore.strict.child import MOST_CPU_SECONDS, MOST_OUTPUT

MOST_SECONDS = 10

# An empty package of our name lets the child import the strict reader and nothing beside it: this
# package's own __init__ would import torch.
_PROGRAM = """
import sys
package = type(sys)("soupcore")
package.__path__ = [sys.argv[1]]
sys.modules["soupcore"] = package
from soupcore.strict.child import main
main()
"""
_PACKAGE = Path(strict.__path__[0]).parent


class TimeLimitError(CheckpointError):
    """Reading did not end in time, which may be the machine's fault as well as the file's."""


def read_contents(descriptor: int, path: Path) -> dict[str, Any]:
    """Read what a torch file holds; see `soupcore.strict.contents.read_contents`.

    The child gets the open file itself, so that what it read is what the caller will read. It may
    use 1 GiB of memory, 8 s of CPU time and 10 s in all, and neither write nor start anything. (On
    Windows, which has no such limits for a process, the 10 s and the reader's own counts hold.)

    Args:
        descriptor: The file, open for reading.
        path: What to call it.

    Raises:
        CheckpointError: The file is refused, or the child came to its limits.
        TimeLimitError: It came to that of 10 s.
    """
    process = subprocess.Popen(  # noqa: S603 - this interpreter, on a text of ours
        [sys.executable, "-I", "-S", "-c", _PROGRAM, str(_PACKAGE)],
        stdin=descriptor,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    expired = threading.Event()

    def end() -> None:
        expired.set()
        process.kill()

    timer = threading.Timer(MOST_SECONDS, end)
    timer.start()
    try:
        with process:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            output = process.stdout.read(MOST_OUTPUT + 1)
            if len(output) > MOST_OUTPUT:
                process.kill()
    finally:
        timer.cancel()
    try:
        answer = json.loads(output)
    except ValueError:
        reason = _reason(process.returncode, expired.is_set())
        kind = TimeLimitError if expired.is_set() else CheckpointError
        raise kind(
            f"{path} cannot be opened: {reason}. No checkpoint needs that, so the file is damaged "
            "or made to harm; do not open it elsewhere."
        ) from None
    if refusal := answer.get("refusal"):
        problem, way_out = refusal
        raise CheckpointError(f"{path} cannot be opened. {problem}", way_out)
    contents: dict[str, Any] = answer["contents"]
    return contents


def _reason(returncode: int, expired: bool) -> str:
    if expired:
        return f"reading what is in it takes more than {MOST_SECONDS} s"
    if returncode == -getattr(signal, "SIGXCPU", 0):
        return f"reading what is in it takes more than {MOST_CPU_SECONDS} s of CPU time"
    return f"the process that read it broke down (exit status {returncode})"
