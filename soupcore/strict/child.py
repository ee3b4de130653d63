"""The child process that reads one torch file: its limits first, then the file, then one JSON.

Its standard input is the file, its standard output the answer: `{"contents": …}` (see
`soupcore.strict.contents`) or `{"refusal": ["why not", "what to do about it"]}`.
"""

import gc
import json
import os
import sys
from typing import Any

from soupcore.strict.contents import read_contents
from soupcore.strict.refusal import Refusal

MOST_MEMORY = 1 << 30  # bytes of address space
MOST_CPU_SECONDS = 8
MOST_OUTPUT = 64 << 20  # bytes


def main() -> None:
    """Read the file, print the answer, and end."""
    _limit()
    gc.disable()  # it would look at millions of small objects again and again
    file = os.fdopen(0, "rb")
    sys.addaudithook(_deny)
    try:
        contents = read_contents(file)
        text = json.dumps({"contents": contents}, separators=(",", ":")).encode()
        if len(text) > MOST_OUTPUT:
            text = _refused("What it says of its tensors is more than any model has.")
    except Refusal as refusal:
        text = _refused(refusal.problem, refusal.way_out)
    except MemoryError:
        text = _refused(f"Reading it takes more than {MOST_MEMORY >> 20} MiB of memory.")
    except Exception as error:  # a mistake of ours, that a damaged file brought to light
        text = _refused(f"It is damaged in an unknown way ({type(error).__name__}: {error}).")
    while text:
        text = text[os.write(1, text) :]
    os._exit(0)  # what was unpickled may be nested so deep that to tidy it up is work


def _refused(problem: str, way_out: str = "") -> bytes:
    return json.dumps({"refusal": [problem[:2_000], way_out[:2_000]]}).encode()


def _limit() -> None:
    """Take from this process all that reading does not need, where the system can do that."""
    try:
        import resource
    except ImportError:  # Windows: the caller's time limit is what holds there
        return
    # A second between the two limits, because only the first one's signal tells why it ended.
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_SECONDS, MOST_CPU_SECONDS + 1))
    for kind, most in (
        (resource.RLIMIT_AS, MOST_MEMORY),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 3),
    ):
        resource.setrlimit(kind, (most, most))


def _deny(event: str, args: tuple[Any, ...]) -> None:
    # Nothing in reading imports, opens or starts anything. Should a file ever find a way to, it
    # ends here.
    if event != "builtins.id":
        raise PermissionError(f"it tried {event}")
