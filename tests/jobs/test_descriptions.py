import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from soupcore import Split, TaskError
from soupcore.jobs import Descriptions
from soupcore.tasks.describing import describe
from tests.jobs.forks import Forks

PATIENCE = 120.0
TARGETS = torch.arange(10) % 3

TASK = """
import os, sys, time
from pathlib import Path
import torch
from soupcore import ClassificationTask, Split

HERE = Path(__file__).parent
{before}
inputs, targets = torch.arange(40.0).reshape(10, 4), torch.arange(10) % 3
splits = {{"val": Split("select", inputs, targets)}}
task = ClassificationTask(lambda: torch.nn.Linear(4, 3), splits)
"""

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(before: str) -> str:
        (tmp_path / "task.py").write_text(TASK.format(before=before))
        return f"{tmp_path / 'task.py'}:task"

    return write


@pytest.fixture
def forking(monkeypatch: pytest.MonkeyPatch, worker_forks: Forks) -> None:
    """Fork the processes that describe tasks, which takes less time than to start Python."""
    forked = SimpleNamespace(
        Popen=worker_forks.popen,
        DEVNULL=subprocess.DEVNULL,
        TimeoutExpired=subprocess.TimeoutExpired,
    )
    monkeypatch.setattr("soupcore.jobs.descriptions.subprocess", forked)


@pytest.fixture
def descriptions(tmp_path: Path) -> Iterator[Descriptions]:
    found = Descriptions(tmp_path / "worker.log")
    yield found
    found.stop()


COUNT = """
print("hello")
torch.set_default_dtype(torch.float64)
(HERE / "runs").open("a").write(f"{os.getpid()} ")
"""


def test_a_task_is_described_in_another_process(
    descriptions: Descriptions, write: Write, tmp_path: Path
) -> None:
    spec = write(COUNT)
    found = descriptions.get(spec, PATIENCE)
    assert found is descriptions.get(spec, PATIENCE)
    assert found is not None
    (ran,) = (tmp_path / "runs").read_text().split()
    assert int(ran) != os.getpid()
    assert b"hello" in (tmp_path / "worker.log").read_bytes()
    assert torch.get_default_dtype() == torch.float32
    select = Split("select", torch.arange(40.0, dtype=torch.float64).reshape(10, 4), TARGETS)
    assert {name: split.digest for name, split in found.splits.items()} == {"val": select.digest}


@pytest.mark.usefixtures("forking")
def test_a_task_is_described_again_when_its_text_changes(
    descriptions: Descriptions, write: Write, tmp_path: Path
) -> None:
    first, again = (
        descriptions.get(write(text), PATIENCE) for text in (COUNT, COUNT + "changed = True")
    )
    assert first is not None
    assert again is not None
    assert again.key != first.key
    assert len((tmp_path / "runs").read_text().split()) == 2


@pytest.mark.parametrize(
    ("before", "message"), [("1 / 0", "ZeroDivisionError"), ("sys.exit(3)", "SystemExit: 3")]
)
def test_an_exception_of_a_task_is_its_description(write: Write, before: str, message: str) -> None:
    assert message in describe(write(before))["error"]


@pytest.mark.usefixtures("forking")
def test_a_task_that_ends_its_process_and_leaves_a_child_is_an_error_with_a_sentence(
    descriptions: Descriptions, write: Write
) -> None:
    ends = 'print("so long", flush=True); os.fork() or time.sleep(600); os._exit(7)'
    with pytest.raises(TaskError, match=r"(?s)exit code 7\).*so long"):
        descriptions.get(write(ends), PATIENCE)


@pytest.mark.usefixtures("forking")
def test_a_task_that_hangs_blocks_no_other_and_is_killed(tmp_path: Path, write: Write) -> None:
    descriptions = Descriptions(tmp_path / "worker.log", limit_s=2)
    spec = write('(HERE / "pid").write_text(str(os.getpid())); time.sleep(600)')
    assert descriptions.get(spec, wait_s=0.1) is None
    with pytest.raises(TaskError, match="did not answer within 2 s"):
        descriptions.get(spec, PATIENCE)


@pytest.mark.usefixtures("forking")
def test_a_task_is_tried_again_once_a_missing_file_may_exist(tmp_path: Path, write: Write) -> None:
    descriptions = Descriptions(tmp_path / "worker.log", retry_s=0)
    spec = write('(HERE / "data").read_text(); (HERE / "runs").open("a").write("x")')
    with pytest.raises(TaskError, match="FileNotFoundError"):
        descriptions.get(spec, PATIENCE)
    (tmp_path / "data").touch()
    assert descriptions.get(spec, PATIENCE) is descriptions.get(spec, PATIENCE)
    assert (tmp_path / "runs").read_text() == "x"


@pytest.mark.usefixtures("forking")
def test_stop_kills_the_processes_that_have_not_answered(tmp_path: Path, write: Write) -> None:
    descriptions = Descriptions(tmp_path / "worker.log")
    spec = write('(HERE / "pid").write_text(str(os.getpid())); time.sleep(600)')
    descriptions.prepare(spec)
    deadline = time.monotonic() + PATIENCE
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    descriptions.stop()
    with pytest.raises(TaskError, match="exit code -9"):
        descriptions.get(spec, PATIENCE)
    with pytest.raises(TaskError, match="server is stopping"):
        descriptions.get(write("# another version"), PATIENCE)


def test_a_missing_file_is_reported(descriptions: Descriptions, tmp_path: Path) -> None:
    descriptions.prepare(f"{tmp_path}/gone.py:task")
    with pytest.raises(TaskError, match="names no task"):
        descriptions.get(f"{tmp_path}/gone.py:task", PATIENCE)
