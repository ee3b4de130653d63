import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from soupcore.disk import check_space, in_words, reserve
from soupcore.errors import FullDiskError


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1_500_000, "1.5 MB"),
        (2_345_678_901, "2.35 GB"),
        (5e12, "5 TB"),
    ],
)
def test_sizes_are_written_with_three_digits(nbytes: float, words: str) -> None:
    assert in_words(nbytes) == words


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


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, FullDiskError), (errno.EDQUOT, FullDiskError)]
)
def test_a_disk_that_fills_up_while_blocks_are_reserved_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def full(descriptor: int, start: int, length: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (tmp_path / "a").open("w+b") as file, pytest.raises(error, match=r"/a needs 1 kB"):
        reserve(file, tmp_path / "a", 1000)
