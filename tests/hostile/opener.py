"""Opens hostile files in a monitored process, and prints the outcomes.

python -m tests.hostile.opener FOLDER   prints lines of JSON: `Before`, `Outcome` …, `After`
"""

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import soupcore
from soupcore.checkpoints import sandbox
from soupcore.workspace import workspace_folder
from tests.hostile import assembler as asm
from tests.hostile import bombs
from tests.hostile.corpus import CORPUS, HARMLESS

_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes; unit of getrusage


@dataclass(frozen=True)
class Outcome:
    """The outcome of opening one file.

    Attributes:
        name: Its name in the corpus.
        refusal: Message of the error; None if the whole file could be read.
        error: Type of the error.
        opened: Whether it could be opened, so that only reading it may have failed.
        seconds: CPU time of this process and its children for bombs; wall time for other files.
        peak: Peak memory so far of this process plus that of its largest child, in bytes.
    """

    name: str
    refusal: str | None
    error: str | None
    opened: bool
    seconds: float
    peak: int


@dataclass(frozen=True)
class Before:
    """The state before the first file.

    Attributes:
        peak: As for `Outcome`.
    """

    peak: int


@dataclass(frozen=True)
class After:
    """The state after the last file.

    Attributes:
        problems: `{file: problem}` of the files that a sweep of the folder excludes.
        seen: Suspicious operations of this process.
    """

    problems: dict[str, str]
    seen: list[str]


class Watch:
    """An audit hook that records operations which opening a file does not need."""

    _NEVER = (
        "exec",
        "compile",
        "import",
        "pickle.find_class",
        "marshal.",
        "code.",
        "ctypes.",
        "socket.",
        "urllib.",
        "os.",
        "pty.",
        "shutil.",
        "tempfile.",
        "subprocess.Popen",
        "sys.settrace",
        "sys.setprofile",
    )
    _READING = ("os.listdir", "os.scandir")

    def __init__(self, allowed: Path) -> None:
        self.allowed = allowed.resolve()
        self.seen: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            strange = not self._may_open(*args)
        elif event == "os.mkdir":
            strange = not self._is_ours(args[0])
        elif event == "subprocess.Popen":
            strange = not _is_reader(args[1])
        elif event.startswith("socket."):
            strange = not _is_of_reader(event, *args)
        elif event == "os.walk":
            *_, follows_links = args
            strange = follows_links
        else:
            strange = event.startswith(self._NEVER) and event not in self._READING
        if strange:
            self.seen.append(f"{event} {args!r:.200}")

    def _may_open(self, path: object, mode: str | None, flags: int) -> bool:
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        return not writes or path == os.devnull or isinstance(path, int) or self._is_ours(path)

    def _is_ours(self, path: Any) -> bool:
        return Path(os.fsdecode(path)).resolve().is_relative_to(self.allowed)


def _is_reader(arguments: object) -> bool:
    """Return whether a process is the safe reader's child: an isolated Python with our program."""
    return (
        isinstance(arguments, list)
        and arguments[:4] == [sys.executable, "-I", "-S", "-c"]
        and "soupcore.safe_torch.child" in arguments[4]
    )


def _is_of_reader(event: str, connection: socket.socket, *args: object) -> bool:
    """Return whether a socket reaches no further than the child: those of a Unix pair."""
    family = args[0] if event == "socket.__new__" else connection.family  # not known yet when new
    return family == socket.AF_UNIX and event in ("socket.__new__", "socket.sendmsg")


def main() -> None:
    folder = Path(sys.argv[1])
    soupcore.open_checkpoint(folder / "honest.pt").scan()  # triggers lazy imports
    watch = Watch(workspace_folder())
    sys.addaudithook(watch)
    _tell(Before(_peak()))
    measured = [*bombs.FILES, *bombs.HARMLESS]
    for file in measured:
        _tell(_outcome(file.name, folder / file.name, _cpu_seconds))
    for file in [*CORPUS, *HARMLESS]:
        if file not in measured:
            _tell(_outcome(file.name, folder / file.name, time.perf_counter))
    _tell(_outcome("honest.pt", folder / "honest.pt", _cpu_seconds))  # with the peak of all others
    sweep = soupcore.Sweep.from_folder(folder)
    assert "honest" in sweep.names()
    problems = {f.ingredient: f"{f.problem} {f.way_out}" for f in sweep.fit.findings}
    _tell(After(problems, watch.seen))


def _tell(what: Before | Outcome | After) -> None:
    print(json.dumps(asdict(what)), flush=True)


def _outcome(name: str, path: Path, seconds: Callable[[], float]) -> Outcome:
    started = seconds()
    refusal = error = None
    opened = False
    try:
        checkpoint = soupcore.open_checkpoint(path)
        opened = True
        checkpoint.scan()
        if not set(checkpoint.tensors) or bytes(checkpoint.read("w").numpy()) != asm.NUMBERS:
            error = "other weights"
    except Exception as caught:
        refusal, error = str(caught), type(caught).__name__
    return Outcome(name, refusal, error, opened, seconds() - started, _peak())


def _cpu_seconds() -> float:
    sandbox.end_readers()  # only then is the usage of its forks known
    return sum(usage.ru_utime + usage.ru_stime for usage in _usages())


def _peak() -> int:
    return _UNIT * sum(usage.ru_maxrss for usage in _usages())


def _usages() -> list[resource.struct_rusage]:
    """Return the resource usage of this process and of its ended children."""
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


if __name__ == "__main__":
    main()
