import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from soupcore import CheckpointError, open_checkpoint
from soupcore.checkpoints import sandbox

# What stands in for the reader, to see the limits at work.
STANDING_IN = """
from soupcore.strict import child, contents
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
    head, _, _ = sandbox._PROGRAM.partition("from soupcore")
    monkeypatch.setattr(sandbox, "_PROGRAM", head + STANDING_IN.format(body, limits))
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
        pytest.param("import socket", "", "PermissionError: it tried import", id="import"),
        pytest.param("open('/etc/passwd')", "", "PermissionError: it tried open", id="open"),
        pytest.param("os = contents.os; os.system('x')", "", "it tried os.system", id="command"),
        pytest.param("eval('1')", "", "it tried compile", id="eval"),
        pytest.param("return 'x' * 99", "child.MOST_OUTPUT = 50", "more than any model", id="talk"),
        pytest.param("raise KeyError(3)", "", "unknown way .KeyError: 3", id="mistake"),
        pytest.param("contents.os._exit(3)", "", "broke down .exit status 3", id="end"),
        pytest.param("contents.os.abort()", "", "broke down .exit status -6", id="crash"),
        pytest.param("raise child.Refusal('It is bad.')", "", "opened. It is bad.$", id="refusal"),
    ],
)
def test_what_the_child_must_not_do_ends_in_a_refusal(
    monkeypatch: pytest.MonkeyPatch, path: Path, body: str, limits: str, problem: str
) -> None:
    with pytest.raises(CheckpointError, match=problem) as caught:
        read_with(monkeypatch, path, body, limits)
    assert str(caught.value).startswith(f"{path} cannot be opened")


def test_time_is_limited(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(sandbox, "MOST_SECONDS", 0.3)
    with pytest.raises(CheckpointError, match=r"takes more than 0\.3 s"):
        read_with(monkeypatch, path, "while True: pass")


def test_output_is_limited_on_this_side_too(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(sandbox, "MOST_OUTPUT", 100)
    with pytest.raises(CheckpointError, match="broke down"):
        read_with(monkeypatch, path, "return 'x' * 10_000_000")


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
    assert "soupcore.strict.child" in modules
    assert all(module == "soupcore" or module.startswith("soupcore.strict") for module in modules)


def test_many_files_are_opened_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.pt" for number in range(6)]
    for number, path in enumerate(paths):
        torch.save({"w": torch.tensor([number])}, path)
    with ThreadPoolExecutor(6) as threads:
        opened = [*threads.map(open_checkpoint, paths)]
    assert [checkpoint.read("w").item() for checkpoint in opened] == [*range(6)]
