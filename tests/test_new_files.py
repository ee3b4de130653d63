import fcntl
import os
import stat
from pathlib import Path

import pytest

from soupcore.new_files import NewFile, new_file, remove_leftovers

LEFTOVER = ".soup.pt.0123456789abcdef.part"


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_has_its_name_once_it_is_whole(tmp_path: Path, durable: bool) -> None:
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


@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_the_mode_is_0644_less_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with new_file(tmp_path / "a.txt") as file:
            file.write(b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644 & ~umask


def test_what_a_dead_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    others = [
        "soup.pt",
        ".soup.pt.part",
        ".soup.pt.0123.part",
        ".0123456789abcdef.part",
        "x.soup.pt.0123456789abcdef.part",
        ".soup.pt.0123456789ABCDEF.part",
        ".soup.pt.0123456789abcdef.part~",
    ]
    for name in (*others, LEFTOVER):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".a.0123456789abcdee.part").mkdir()
    (tmp_path / ".b.0123456789abcdee.part").symlink_to(tmp_path / "soup.pt")
    remove_leftovers(tmp_path)
    assert not (tmp_path / LEFTOVER).exists()
    assert len(list(tmp_path.iterdir())) == len(others) + 2


def test_what_a_living_writer_writes_is_not_removed(tmp_path: Path) -> None:
    with NewFile(tmp_path / "a.txt") as new:
        new.file.write(b"whole")
        remove_leftovers(tmp_path)
        new.publish()
    assert (tmp_path / "a.txt").read_bytes() == b"whole"


def test_a_file_taken_for_a_leftover_before_it_was_locked_is_made_again(
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


def test_without_locks_files_are_written_and_none_is_taken_for_a_leftover(
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
