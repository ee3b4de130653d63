import os
import stat
from pathlib import Path

import pytest

from soupcore import Evaluator, Store, Sweep, uniform
from soupcore.errors import StoreError
from soupcore.jobs import Queue
from soupcore.tasks import ClassificationTask
from soupcore.workspace import private_folder, read_id, workspace_folder, write_id


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_environment_sets_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOCKPOT_WORKSPACE", str(tmp_path / "a" / "b"))
    assert workspace_folder() == tmp_path / "a" / "b"
    monkeypatch.setenv("STOCKPOT_WORKSPACE", "~/c")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert workspace_folder() == tmp_path / "c"
    monkeypatch.delenv("STOCKPOT_WORKSPACE")
    assert workspace_folder() == tmp_path / ".stockpot"


def test_a_workspace_that_cannot_be_created_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STOCKPOT_WORKSPACE", str(tmp_path / "file" / "workspace"))
    with pytest.raises(StoreError, match=r"/file/workspace cannot be created .*Set STOCKPOT"):
        workspace_folder()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
@pytest.mark.parametrize(
    ("before", "after"),
    [(None, 0o700), (0o755, 0o700), (0o777, 0o700), (0o700, 0o700), (0o2775, 0o2770)],
)
def test_a_folder_of_the_workspace_is_private_whatever_the_umask(
    tmp_path: Path, umask: int, before: int | None, after: int
) -> None:
    folder = tmp_path / "folder"
    if before is not None:
        folder.mkdir()
        folder.chmod(before)
    earlier = os.umask(umask)
    try:
        private_folder(folder)
    finally:
        os.umask(earlier)
    assert mode_of(folder) == after


def test_everything_in_the_workspace_is_private(
    sweep: Sweep, task: ClassificationTask, workspace: Path
) -> None:
    workspace.chmod(0o755)
    earlier = os.umask(0)
    try:
        store = Store()
        Queue(store)
        evaluator = Evaluator(task, store, device="cpu")
        evaluator.evaluate(sweep["run1"].mixture, "val")
        soup = uniform(sweep)
        soup.save(private_folder(store.soup_folder(soup.id, "pt")) / "a.safetensors")
        open_files = {p.name for p in workspace.rglob("*") if p.is_file() and mode_of(p) & 0o077}
        open_folders = [p for p in workspace.rglob("*") if p.is_dir() and mode_of(p) & 0o077]
        names = {path.name for path in workspace.rglob("*")}
        store.close()
    finally:
        os.umask(earlier)
    assert mode_of(workspace) == 0o700
    assert not open_folders
    assert not open_files
    assert {
        "a.safetensors",
        "scans.sqlite",
        "stockpot.sqlite",
        "stockpot.sqlite-wal",
        "stockpot.sqlite-shm",
    } <= names


def test_an_id_is_kept_and_moves_with_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    assert read_id(folder) is None
    workspace = write_id(folder)
    assert read_id(folder) == workspace
    folder.rename(tmp_path / "b")
    assert read_id(tmp_path / "b") == workspace
    assert write_id(tmp_path / "b", "other") == read_id(tmp_path / "b") == "other"
    folder.mkdir()
    assert write_id(folder) != workspace
