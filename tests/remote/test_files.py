import sys

import fsspec
import pytest

from soupcore.errors import RemoteError
from soupcore.remote import files
from soupcore.remote.files import RemoteFile, read_range
from soupcore.remote.filesystems import FileSystem
from soupcore.remote.hub import Hub


class Halved(FileSystem):
    """Files of which the first requests return only the first half of a range."""

    def __init__(self, times: int) -> None:
        super().__init__("memory")
        self.times = times

    def read(self, file: RemoteFile, start: int, stop: int) -> bytes:
        self.times -= 1
        content = super().read(file, start, stop)
        return content if self.times < 0 else content[: len(content) // 2]


def test_a_range_that_ends_early_is_requested_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "WAIT", 0)
    with fsspec.open("memory://halved", "wb") as written:
        written.write(b"0123456789")
    file = RemoteFile("memory://halved", 10)
    assert read_range(Halved(1), file, 2, 100) == b"23456789"
    with pytest.raises(RemoteError, match="halved cannot be read: the connection ended early"):
        read_range(Halved(files.MOST_TRIES), file, 2, 8)


def test_an_error_names_the_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(scheme: str) -> None:
        raise ImportError(scheme)

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(RemoteError, match=r"pip install 'stockpot\[hub\]'"):
        Hub()
    with pytest.raises(RemoteError, match=r"pip install 'stockpot\[s3\]'"):
        FileSystem("s3")
    with pytest.raises(RemoteError, match="gs:// cannot be read here"):
        FileSystem("gs")
