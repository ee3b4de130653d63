import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from soupcore import CheckpointError, open_checkpoint
from soupcore.checkpoints import contents, sandbox
from soupcore.checkpoints.sandbox import read_contents


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which files were read in a child."""
    seen: list[Path] = []

    def counted(descriptor: int, path: Path) -> dict[str, Any]:
        seen.append(path)
        return read_contents(descriptor, path)

    monkeypatch.setattr(contents, "read_contents", counted)
    return seen


def save(path: Path, value: float) -> Path:
    torch.save({"model": {"w": torch.tensor([value])}, "ema": {"w": torch.zeros(1)}}, path)
    return path


def test_a_file_is_read_in_a_child_once(tmp_path: Path, reads: list[Path]) -> None:
    path = save(tmp_path / "a.pt", 1)
    first = open_checkpoint(path)
    again = open_checkpoint(path)
    other = open_checkpoint(path, weights="model")
    assert reads == [path]
    assert first.contents == again.contents == other.contents  # type: ignore[attr-defined]
    assert (again.read("w").item(), other.read("w").item()) == (0, 1)


def test_a_changed_file_is_read_again(tmp_path: Path, reads: list[Path]) -> None:
    path = save(tmp_path / "a.pt", 1)
    open_checkpoint(path)
    save(path, 2)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert open_checkpoint(path, weights="model").read("w").item() == 2
    assert len(reads) == 2


def test_a_refusal_is_remembered_under_the_name_by_which_the_file_is_opened(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    torch.save([1], path)
    monkeypatch.chdir(tmp_path)
    for name in (path, Path("a.pt")):
        with pytest.raises(CheckpointError, match="type list") as caught:
            open_checkpoint(name)
        assert str(caught.value).startswith(f"{name} cannot be opened. ")
        assert caught.value.way_out.startswith("Choose")
    assert reads == [path]


def test_a_file_that_took_too_long_is_read_again(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.pt", 1)
    with monkeypatch.context() as slow:
        slow.setattr(sandbox, "MOST_SECONDS", 0)
        slow.setattr(sandbox, "_PROGRAM", "import time; time.sleep(60)")
        with pytest.raises(CheckpointError, match="takes more than 0 s"):
            open_checkpoint(path)
    assert open_checkpoint(path).read("w").item() == 0
    assert reads == [path, path]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_file_whose_reader_was_killed_is_read_again(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    path = save(tmp_path / "a.pt", 1)
    with monkeypatch.context() as killed:
        program = f"import os; os.kill(os.getpid(), {int(number)})"
        killed.setattr(sandbox, "_PROGRAM", program)
        with pytest.raises(CheckpointError, match="was killed"):
            open_checkpoint(path)
    with contents.remembered_only(), pytest.raises(contents.NotRead):
        open_checkpoint(path)
    assert open_checkpoint(path).read("w").item() == 0
    assert reads == [path, path]


def test_cached_lookups_read_no_file(tmp_path: Path, reads: list[Path]) -> None:
    path = save(tmp_path / "a.pt", 1)
    with contents.remembered_only(), pytest.raises(contents.NotRead):
        open_checkpoint(path)
    assert not reads
    open_checkpoint(path)
    with contents.remembered_only():
        assert open_checkpoint(path).read("w").item() == 0


def test_without_a_usable_workspace_files_are_read_each_time(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.pt", 1)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "contents.sqlite").write_bytes(b"no database" * 100)
    for folder in (damaged, path / "below a file"):
        monkeypatch.setenv("STOCKPOT_WORKSPACE", str(folder))
        for _ in range(2):
            assert open_checkpoint(path).read("w").item() == 0
    assert len(reads) == 4


def test_another_version_of_the_reader_reads_again(
    tmp_path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.pt", 1)
    open_checkpoint(path)
    monkeypatch.setattr(contents, "_VERSION", -1)
    open_checkpoint(path)
    assert len(reads) == 2


def test_a_file_changed_while_the_child_reads_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "a.pt", 1)

    def changing(descriptor: int, path: Path) -> dict[str, Any]:
        found = read_contents(descriptor, path)
        with path.open("ab") as more:
            more.write(b"x")
        return found

    monkeypatch.setattr(contents, "read_contents", changing)
    with pytest.raises(CheckpointError, match="was changed while it was read"):
        open_checkpoint(path)
