import os
from pathlib import Path
from typing import Any

import pytest
import torch

from soupcore import CheckpointError, open_checkpoint
from soupcore.checkpoints import contents
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


def test_a_refused_file_is_looked_at_again(tmp_path: Path, reads: list[Path]) -> None:
    path = tmp_path / "a.pt"
    torch.save([1], path)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="kind list"):
            open_checkpoint(path)
    assert len(reads) == 2


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
