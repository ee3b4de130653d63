"""Opens hostile files under watch, in a process of its own, and tells what came of it.

python -m tests.hostile.opener FOLDER   lines of JSON: `Before`, `Outcome` …, `After`
"""

import json
import os
import resource
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import soupcore
from soupcore.workspace import workspace_folder
from tests.hostile import assembler as asm
from tests.hostile.corpus import CORPUS, HARMLESS

_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of what getrusage tells


@dataclass(frozen=True)
class Outcome:
    """What came of one file.

    Attributes:
        name: Its name in the corpus.
        refusal: The message of the error; None where it could be read whole.
        error: The kind of the error.
        opened: Whether it was refused only when it was read.
        seconds: CPU time that it took, of this process and its children.
        peak: The most memory that this process and the largest of its children have had so far.
    """

    name: str
    refusal: str | None
    error: str | None
    opened: bool
    seconds: float
    peak: int


@dataclass(frozen=True)
class Before:
    """What was before the first file.

    Attributes:
        peak: As of an `Outcome`.
    """

    peak: int


@dataclass(frozen=True)
class After:
    """What was after the last file.

    Attributes:
        problems: What the folder's sweep says of each file that it leaves out.
        seen: What this process did that opening files is no reason for.
    """

    problems: dict[str, str]
    seen: list[str]


class Watch:
    """Sees what this process does that opening a file is no reason for."""

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
    """Whether a new process is the safe reader's child: this Python, shut off, on our program."""
    return (
        isinstance(arguments, list)
        and arguments[:4] == [sys.executable, "-I", "-S", "-c"]
        and "soupcore.safe_torch.child" in arguments[4]
    )


def main() -> None:
    folder = Path(sys.argv[1])
    soupcore.open_checkpoint(folder / "honest.pt").scan()  # imports what is imported lazily
    watch = Watch(workspace_folder())
    sys.addaudithook(watch)
    _tell(Before(_peak()))
    for file in [*CORPUS, *HARMLESS]:
        _tell(_outcome(file.name, folder / file.name))
    sweep = soupcore.Sweep.from_folder(folder)
    assert "honest" in sweep.names()
    problems = {f.ingredient: f"{f.problem} {f.way_out}" for f in sweep.fit.findings}
    _tell(After(problems, watch.seen))


def _tell(what: Before | Outcome | After) -> None:
    print(json.dumps(asdict(what)), flush=True)


def _outcome(name: str, path: Path) -> Outcome:
    started = _cpu_seconds()
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
    return Outcome(name, refusal, error, opened, _cpu_seconds() - started, _peak())


def _cpu_seconds() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in _usages())


def _peak() -> int:
    return _UNIT * sum(usage.ru_maxrss for usage in _usages())


def _usages() -> list[resource.struct_rusage]:
    """What this process has used, and what its children have that are no more."""
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


if __name__ == "__main__":
    main()
