import errno
import fcntl
import os
import shutil
import stat
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace

import pytest

from soupcore.errors import FullDiskError
from soupcore.new_files import (
    NewFile,
    check_space,
    create_private,
    new_file,
    new_folder,
    remove_leftovers,
    reserve,
)

LEFTOVER = ".soup.pt.0123456789abcdef.part"


@pytest.mark.parametrize("durable", [True, False])
def test_a_new_file_gets_its_name_when_it_is_complete(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"earlier")
    with new_file(path, durable=durable) as file:
        file.write(b"new")
        assert path.read_bytes() == b"earlier"
        assert len(list(tmp_path.iterdir())) == 2
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_of_a_file_that_was_not_published(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def fail() -> None:
        with new_file(tmp_path / "a.txt") as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    with NewFile(tmp_path / "a.txt") as new:
        new.file.write(b"half")
        new.finish()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("folder", "umask", "mode"),
    [
        (0o700, 0o000, 0o600),
        (0o700, 0o022, 0o600),
        (0o755, 0o022, 0o644),
        (0o755, 0o077, 0o600),
        (0o775, 0o022, 0o644),
        (0o775, 0o002, 0o664),
        (0o2770, 0o077, 0o660),  # shared with its group
    ],
    ids=oct,
)
def test_a_file_has_the_permissions_of_its_folder_and_the_umask(
    tmp_path: Path, folder: int, umask: int, mode: int
) -> None:
    tmp_path.chmod(folder)
    before = os.umask(umask)
    try:
        with new_file(tmp_path / "a.txt") as file:
            file.write(b"new")
        create_private(tmp_path / "b.txt")
    finally:
        os.umask(before)
    for name in ("a.txt", "b.txt"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


def test_a_file_that_exists_is_not_created_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"earlier")
    create_private(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == b"earlier"


def test_only_files_of_dead_writers_are_removed(tmp_path: Path) -> None:
    others = [
        "soup.pt",
        ".soup.pt.part",
        ".soup.pt.0123.part",
        "x.soup.pt.0123456789abcdef.part",
        ".soup.pt.0123456789ABCDEF.part",
        ".soup.pt.0123456789abcdef.part~",
    ]
    for name in (*others, LEFTOVER, ".0123456789abcdef.part"):
        (tmp_path / name).write_bytes(b"half")
    for name in (".a.0123456789abcdee.part", ".0123456789abcdee.part"):
        (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / ".b.0123456789abcdee.part").symlink_to(tmp_path)
    os.mkfifo(tmp_path / ".c.0123456789abcdee.part")
    remove_leftovers(tmp_path)
    left = {".b.0123456789abcdee.part", ".c.0123456789abcdee.part"}
    assert {path.name for path in tmp_path.iterdir()} == left | {*others}


# Folders


def test_a_new_folder_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with new_folder(path) as folder:
        (folder / "inner").write_bytes(b"1")
        remove_leftovers(tmp_path)  # its writer lives
        assert not path.exists()
    assert [inner.read_bytes() for inner in path.iterdir()] == [b"1"]
    assert list(tmp_path.iterdir()) == [path]


def test_the_first_of_two_folders_of_one_name_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with new_folder(path) as slow:
        (slow / "slow").touch()
        with new_folder(path) as fast:
            (fast / "fast").touch()
    assert [inner.name for inner in path.iterdir()] == ["fast"]
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_of_a_folder_that_was_not_finished(tmp_path: Path) -> None:
    def fail() -> None:
        with new_folder(tmp_path / "a") as folder:
            (folder / "inner").write_bytes(b"1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not list(tmp_path.iterdir())


# Others that clean up at the same time, and a full disk


@pytest.mark.parametrize("quota", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_in_a_sentence(tmp_path: Path, quota: int) -> None:
    def fill(context: AbstractContextManager[object]) -> None:
        with context:
            raise OSError(quota, os.strerror(quota))

    for context in (NewFile(tmp_path / "a"), new_file(tmp_path / "a"), new_folder(tmp_path / "a")):
        with pytest.raises(FullDiskError, match=rf"disk is full: {tmp_path}/a cannot be written"):
            fill(context)
    assert not list(tmp_path.iterdir())


def test_files_of_a_live_writer_are_not_removed(tmp_path: Path) -> None:
    with NewFile(tmp_path / "a.txt") as new:
        new.file.write(b"whole")
        remove_leftovers(tmp_path)
        new.publish()
    assert (tmp_path / "a.txt").read_bytes() == b"whole"


def test_a_new_file_removed_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    raced: list[int] = []

    def slow_lock(descriptor: int, operation: int) -> None:
        if not operation & fcntl.LOCK_NB and not raced:
            raced.append(descriptor)
            remove_leftovers(tmp_path)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow_lock)
    with new_file(tmp_path / "a.txt") as file:
        file.write(b"whole")
    assert raced
    assert (tmp_path / "a.txt").read_bytes() == b"whole"


def test_files_are_written_and_never_removed_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    (tmp_path / LEFTOVER).write_bytes(b"who knows")
    with new_file(tmp_path / "a.txt") as file:
        file.write(b"whole")
    remove_leftovers(tmp_path)
    assert (tmp_path / LEFTOVER).exists()
    assert (tmp_path / "a.txt").read_bytes() == b"whole"


def test_a_file_that_does_not_fit_is_refused_with_its_size_and_the_free_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3_000_000))
    check_space(tmp_path / "soup", 3_000_000)
    with pytest.raises(FullDiskError, match=r"/soup needs 3 MB, and 3 MB are free.*prune"):
        check_space(tmp_path / "soup", 3_000_001)


def test_reserved_blocks_are_on_disk(tmp_path: Path) -> None:
    with (tmp_path / "a").open("w+b") as file:
        reserve(file, tmp_path / "a", 1 << 20)
        reserve(file, tmp_path / "a", 0)
    status = (tmp_path / "a").stat()
    assert (status.st_size, status.st_blocks * 512 >= 1 << 20) == (1 << 20, True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_while_blocks_are_reserved_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(descriptor: int, start: int, length: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (tmp_path / "a").open("w+b") as file, pytest.raises(FullDiskError, match=r"/a needs 1 kB"):
        reserve(file, tmp_path / "a", 1000)
