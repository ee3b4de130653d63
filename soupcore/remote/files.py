"""Remote files, pinned to their content, and the interface of the sources that hold them."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Protocol

from soupcore.errors import RemoteError
from soupcore.remote.urls import HUB, scheme_of

MOST_TRIES = 5  # in a row without a byte
WAIT = 0.5  # seconds before the second try; doubled for each further one


class CutOffError(Exception):
    """A connection was lost, or a server is overloaded: another attempt may succeed."""


@dataclass(frozen=True)
class RemoteFile:
    """A remote file, pinned to its content.

    Attributes:
        url: Its URL; on the Hub with the commit as the revision.
        size: Its size in bytes.
        sha256: SHA-256 of its content, if the source provides it.
        git: Its id as a git blob, if the source provides it.
        version: Its version, if the source keeps several.
        etag: Its ETag without quotes. It is the MD5 of the content only in some cases.
        modified: Its time of change, if the source provides nothing better.
    """

    url: str
    size: int
    sha256: str = ""
    git: str = ""
    version: str = ""
    etag: str = ""
    modified: str = ""

    @property
    def key(self) -> str:
        """Name in the cache: 40 hex digits, equal for files of equal content where it is known."""
        known = self.sha256 and f"sha256:{self.sha256}"
        known = known or f"{self.url} {self.git} {self.version} {self.etag} {self.modified}"
        return hashlib.sha256(f"{known} {self.size}".encode()).hexdigest()[:40]

    @property
    def identity(self) -> str:
        """The property that pins the file, as text: its SHA-256, version, ETag or another."""
        for name, value in (
            ("SHA-256", self.sha256),
            ("version", self.version),
            ("ETag", self.etag),
            ("git blob", self.git),
            ("modified", self.modified),
        ):
            if value:
                return f"{name} {value}"
        return f"{self.size} bytes"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {name: value for name, value in asdict(self).items() if value != ""}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "RemoteFile":
        """Return the file of `to_json`.

        Raises:
            TypeError: Something is missing or unknown.
        """
        return cls(**body)


@dataclass(frozen=True)
class Found:
    """A file or folder that a URL names.

    Attributes:
        names: Possible names for the ingredient, the shortest first.
        files: `{path relative to the folder: file}`; one entry if it is a file.
        is_file: Whether it is a file.
    """

    names: tuple[str, ...]
    files: Mapping[str, RemoteFile]
    is_file: bool


class Source(Protocol):
    """A place that holds remote files. Messages of its errors contain no credentials."""

    def find(self, url: str) -> list[Found]:
        """Return the files and folders that a URL names, pinned; at least one.

        Raises:
            RemoteError: There is none, access is refused, or the source cannot be reached.
        """

    def read(self, file: RemoteFile, start: int, stop: int) -> bytes:
        """Read the bytes from `start` to `stop` by one request.

        Raises:
            CutOffError, RemoteError: See `stream`.
        """

    def stream(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to the end.

        Raises:
            CutOffError: The connection was lost.
            RemoteError: The file is gone or access is refused.
        """

    def check_same(self, file: RemoteFile) -> None:
        """Check that the file still has the content that it is pinned to.

        Raises:
            RemoteError: It was changed or removed.
        """

    def is_md5(self, file: RemoteFile) -> bool:
        """Return whether the file's ETag is the MD5 of its content."""


def source_of(url: str) -> Source:
    """Return the source that holds the files of a URL.

    Raises:
        RemoteError: A package that it needs is not installed, or the scheme is unknown.
    """
    return _source(scheme_of(url))


@cache
def _source(scheme: str) -> Source:
    if scheme == HUB:
        from soupcore.remote.hub import Hub

        return Hub()
    from soupcore.remote.filesystems import FileSystem

    return FileSystem(scheme)


def read_range(source: Source, file: RemoteFile, start: int, stop: int) -> bytes:
    """Read a range of a remote file, with a few attempts.

    Raises:
        RemoteError: The file is gone, access is refused, or all attempts failed.
    """
    for tries in range(MOST_TRIES):
        reason = "the connection ended early"
        try:
            content = source.read(file, start, stop)
            if len(content) >= min(stop, file.size) - start:
                return content
        except CutOffError as error:
            reason = str(error)
        time.sleep(WAIT * 2**tries)
    raise RemoteError(f"{file.url} cannot be read: {reason}.")
