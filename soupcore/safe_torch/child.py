"""The child process: for each torch file, it forks, sets limits, and writes one JSON object.

Importing this package takes longer than reading a file, so the child imports it once. It does not
touch a file itself: each is read by a fork of its own, which ends with the file. Standard input is
a Unix socket. A request is a JSON list of texts, with the descriptors of the file and of a pipe for
the answer. The reply is the exit status of the fork, once it has ended. The answer is one of:

- `{"contents": …}`, see `contents.read_contents`;
- `{"rewritten": …}`, see `rewriting.rewrite`, if the request is "rewrite" and a weight set;
- `{"values": …}`, see `contents.read_values`, if the request is "values";
- `{"prefixes": …}`, see `formats.legacy_prefixes`, if the request is "prefixes";
- `{"refusal": [problem, solution]}`;
- `{"exhausted": true}` if memory ran out, for which the file may not be the reason.
"""

import gc
import json
import os
import resource
import signal
import socket
import sys
from typing import Any, BinaryIO

from soupcore.safe_torch import MOST_CPU_SECONDS, MOST_MEMORY, MOST_OUTPUT, STATUS
from soupcore.safe_torch.contents import read_contents, read_values
from soupcore.safe_torch.formats import legacy_prefixes
from soupcore.safe_torch.refusal import Refusal
from soupcore.safe_torch.rewriting import rewrite

_MOST_REQUEST = 64 << 10  # bytes


def main() -> None:
    """Have forks read one file after another, until the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a fork ends at once, without a traceback
    requests = socket.socket(fileno=0)
    gc.collect()
    gc.freeze()
    while True:
        text, descriptors, *_ = socket.recv_fds(requests, _MOST_REQUEST, 2)
        if not text:
            os._exit(0)
        fork = os.fork()
        if fork == 0:
            try:
                file, output = descriptors
                _read(file, output, json.loads(text))
            finally:
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)
        _, status = os.waitpid(fork, 0)
        requests.sendall(STATUS.pack(os.waitstatus_to_exitcode(status)))


def answer(file: BinaryIO, request: list[str]) -> bytes:
    """Return the answer to a request; see the module."""
    try:
        text = json.dumps(_found(file, request), separators=(",", ":")).encode()
        if len(text) > MOST_OUTPUT:
            text = _refused("The description of its tensors is larger than that of any model.")
    except Refusal as refusal:
        text = _refused(refusal.problem, refusal.way_out)
    except MemoryError:
        text = b'{"exhausted": true}'
    except Exception as error:  # a bug in this package that a damaged file triggers
        text = _refused(f"It is damaged in an unknown way ({type(error).__name__}: {error}).")
    return text


def _read(file: int, output: int, request: list[str]) -> None:
    """Read the file, write the answer, and end."""
    os.dup2(file, 0)  # closes the socket
    os.dup2(output, 1)
    os.closerange(3, max(file, output) + 1)
    opened = os.fdopen(0, "rb")
    _limit()
    gc.disable()  # it would traverse millions of small objects again and again
    sys.addaudithook(_deny)
    text = answer(opened, request)
    while text:
        text = text[os.write(1, text) :]
    os._exit(0)  # destroying a deeply nested object would take time


def _found(file: BinaryIO, request: list[str]) -> dict[str, Any]:
    if request == ["values"]:
        return {"values": read_values(file)}
    if request == ["prefixes"]:
        return {"prefixes": legacy_prefixes(file)}
    if request:
        return {"rewritten": rewrite(file, *request[1:])}
    return {"contents": read_contents(file)}


def _refused(problem: str, way_out: str = "") -> bytes:
    return json.dumps({"refusal": [problem[:2_000], way_out[:2_000]]}).encode()


def _limit() -> None:
    """Lower the resource limits to those that reading needs."""
    # The soft limit is a second lower, because only its signal shows why the process ended.
    _lower(resource.RLIMIT_CPU, MOST_CPU_SECONDS, MOST_CPU_SECONDS + 1)
    _lower(resource.RLIMIT_AS, MOST_MEMORY)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_NOFILE, 3)


def _lower(kind: int, most: int, hard: int | None = None) -> None:
    _, allowed = resource.getrlimit(kind)  # a lower limit of the system stays
    hard = most if hard is None else hard
    if allowed != resource.RLIM_INFINITY:
        most, hard = min(most, allowed), min(hard, allowed)
    resource.setrlimit(kind, (most, hard))


def _deny(event: str, args: tuple[Any, ...]) -> None:
    # Reading never imports, opens or starts anything. If a file makes it do so, it ends here.
    if event != "builtins.id":
        raise PermissionError(f"it tried {event}")
