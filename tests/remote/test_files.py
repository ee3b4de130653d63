import sys

import fsspec
import pytest

from soupcore.errors import RemoteError
from soupcore.remote.filesystems import FileSystem
from soupcore.remote.hub import Hub


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
