import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from soupcore import CheckpointError, open_checkpoint
from soupcore.checkpoints import sandbox

# What stands in for the reader, to see the limits at work.
STANDING_IN = """
from soupcore.safe_torch import child
def read(file):
    {}
    return {{"read": file.read(4).decode()}}
child.read_contents = read
{}
child.main()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.pt").write_bytes(b"text")
    return tmp_path / "a.pt"


def read_with(
    monkeypatch: pytest.MonkeyPatch, path: Path, body: str, limits: str = ""
) -> dict[str, object]:
    use_reader(monkeypatch, body, limits)
    found: dict[str, object] = read(path)
    return found


def use_reader(monkeypatch: pytest.MonkeyPatch, body: str, limits: str = "") -> None:
    head, _, _ = sandbox._PROGRAM.partition("from soupcore")
    monkeypatch.setattr(sandbox, "_PROGRAM", head + STANDING_IN.format(body, limits))


def read(path: Path) -> Any:
    with path.open("rb") as file:
        return sandbox.read_contents(file.fileno(), path)


def test_the_child_reads_the_open_file(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    assert read_with(monkeypatch, path, "") == {"read": "text"}


@pytest.mark.parametrize(
    ("body", "limits", "problem"),
    [
        pytest.param("bytearray(2 << 30)", "", "takes more than 1024 MiB of memory", id="memory"),
        pytest.param(
            "while True: pass", "child.MOST_CPU_SECONDS = 1", "more than 8 s of CPU time", id="CPU"
        ),
        pytest.param("import sqlite3", "", "PermissionError: it tried import", id="import"),
        pytest.param("open('/etc/passwd')", "", "PermissionError: it tried open", id="open"),
        pytest.param("os = child.os; os.system('x')", "", "it tried os.system", id="command"),
        pytest.param("eval('1')", "", "it tried compile", id="eval"),
        pytest.param(
            "return 'x' * 99", "child.MOST_OUTPUT = 50", "larger than that of any model", id="talk"
        ),
        pytest.param("raise KeyError(3)", "", "unknown way .KeyError: 3", id="mistake"),
        pytest.param("child.os._exit(3)", "", "crashed .exit status 3", id="end"),
        pytest.param("child.os.abort()", "", "crashed .exit status -6", id="crash"),
        pytest.param("raise child.Refusal('It is bad.')", "", "opened. It is bad.$", id="refusal"),
    ],
)
def test_a_forbidden_action_of_the_child_ends_in_a_refusal(
    monkeypatch: pytest.MonkeyPatch, path: Path, body: str, limits: str, problem: str
) -> None:
    with pytest.raises(CheckpointError, match=problem) as caught:
        read_with(monkeypatch, path, body, limits)
    assert str(caught.value).startswith(f"{path} cannot be opened")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_child_that_was_killed_gives_no_verdict(
    monkeypatch: pytest.MonkeyPatch, path: Path, number: signal.Signals
) -> None:
    body = f"child.os.kill(child.os.getpid(), {int(number)})"
    is_settable = number != signal.SIGKILL
    # A child inherits that a signal is ignored, as below nohup.
    before = signal.signal(number, signal.SIG_DFL) if is_settable else None
    try:
        with pytest.raises(
            sandbox.NoVerdictError, match=f"was killed .signal {number:d}"
        ) as caught:
            read_with(monkeypatch, path, body, "child._deny = lambda event, args: None")
    finally:
        if is_settable:
            signal.signal(number, before)
    assert "The file may be fine" in caught.value.problem
    assert "malicious" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "is_verdict"),
    [
        ("raise child.Refusal('It is bad.')", True),
        ("raise KeyError(3)", True),
        ("bytearray(2 << 30)", False),
        ("child.os._exit(3)", False),
        ("child.os.abort()", False),
    ],
)
def test_only_refusals_of_the_child_are_verdicts_on_the_file(
    monkeypatch: pytest.MonkeyPatch, path: Path, body: str, is_verdict: bool
) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_with(monkeypatch, path, body)
    assert isinstance(caught.value, sandbox.NoVerdictError) is not is_verdict


def test_a_reader_that_cannot_be_started_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(path / "gone"))
    with pytest.raises(sandbox.NoVerdictError, match="could not be started"):
        read_with(monkeypatch, path, "")


def test_lower_limits_of_the_machine_stay(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    limits = "import resource as r; r.setrlimit(r.RLIMIT_AS, (900 << 20, 900 << 20))"
    found: object = read_with(monkeypatch, path, "return r.getrlimit(r.RLIMIT_AS)", limits)
    assert found == [900 << 20, 900 << 20]


@pytest.mark.parametrize(
    ("limit", "most", "body", "problem"),
    [
        ("MOST_SECONDS", 0.3, "while True: pass", r"takes more than 0\.3 s"),
        ("MOST_OUTPUT", 100, "return 'x' * 10_000_000", "takes more than 100 bytes"),
    ],
)
def test_time_and_output_are_limited_by_the_parent(
    monkeypatch: pytest.MonkeyPatch, path: Path, limit: str, most: float, body: str, problem: str
) -> None:
    monkeypatch.setattr(sandbox, limit, most)
    with pytest.raises(CheckpointError, match=problem):
        read_with(monkeypatch, path, body)


def test_the_child_can_neither_write_nor_open(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    limits = "import resource as r"
    body = "return [r.getrlimit(k) for k in (r.RLIMIT_FSIZE, r.RLIMIT_NOFILE, r.RLIMIT_CORE)]"
    found: object = read_with(monkeypatch, path, body, limits)
    assert found == [[0, 0], [3, 3], [0, 0]]


def test_the_child_imports_neither_torch_nor_the_rest_of_the_library(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "a.pt")
    mine = ["soupcore", "torch", "numpy"]
    show = f"print(*(name for name in sys.modules if name.split('.')[0] in {mine}))"
    program = sandbox._PROGRAM.replace("\nmain()", f"\n{show}")
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(sandbox._PACKAGE)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    modules = said.split()
    assert "soupcore.safe_torch.child" in modules
    assert all(
        module == "soupcore" or module.startswith("soupcore.safe_torch") for module in modules
    )


def test_one_process_imports_the_reader_and_each_file_has_a_fork_of_its_own(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    body = """
    child.count = getattr(child, "count", 0) + 1
    is_open = []
    for number in range(64):
        try:
            child.os.fstat(number)
            is_open.append(number)
        except OSError:
            pass
    return [child.os.getppid(), child.os.getpid(), child.count, is_open]
"""
    use_reader(monkeypatch, body)
    parents, forks, counts, descriptors = zip(*(read(path) for _ in range(3)), strict=True)
    assert len({*parents}) == 1
    assert len({*forks}) == 3
    assert counts == (1, 1, 1)
    assert descriptors == ([0, 1, 2],) * 3  # neither the socket nor another file
    sandbox.end_readers()
    with pytest.raises(ProcessLookupError):
        os.kill(parents[0], 0)
    assert read(path)[0] != parents[0]


@pytest.mark.parametrize("end", ["time", "signal"])
def test_a_reader_that_was_killed_is_replaced(
    monkeypatch: pytest.MonkeyPatch, path: Path, end: str
) -> None:
    use_reader(
        monkeypatch,
        "start = file.read(1)\n    while start == b'l': pass\n    return child.os.getppid()",
    )
    first = read(path)
    if end == "signal":
        os.kill(first, signal.SIGKILL)
        os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    else:
        loop = path.with_name("loop.pt")
        loop.write_bytes(b"loop")
        with monkeypatch.context() as hasty:
            hasty.setattr(sandbox, "MOST_SECONDS", 0.3)
            with pytest.raises(sandbox.NoVerdictError, match=r"more than 0\.3 s"):
                read(loop)
    assert read(path) != first


def test_a_fork_of_this_process_starts_its_own_readers(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    use_reader(monkeypatch, "return child.os.getppid()")
    first = read(path)
    receiving, sending = os.pipe()
    fork = os.fork()
    if fork == 0:
        try:
            os.write(sending, str(read(path)).encode())
            time.sleep(600)  # it keeps a copy of the socket
        finally:
            os._exit(0)
    try:
        assert int(os.read(receiving, 20)) != first
        assert read(path) == first
        sandbox.end_readers()  # does not wait for the fork
    finally:
        os.kill(fork, signal.SIGKILL)
        os.waitpid(fork, 0)
        os.close(receiving)
        os.close(sending)


def test_many_files_are_opened_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.pt" for number in range(6)]
    for number, path in enumerate(paths):
        torch.save({"w": torch.tensor([number])}, path)
    with ThreadPoolExecutor(6) as threads:
        opened = [*threads.map(open_checkpoint, paths)]
    assert [checkpoint.read("w").item() for checkpoint in opened] == [*range(6)]
