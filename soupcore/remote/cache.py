"""The cache of remote files in the workspace: whole files, each downloaded once.

A file is stored under a name that its content determines (`RemoteFile.key`), beside a record of its
URL and of the last use. An interrupted download continues where it ended, also in a later process.
Complete files are verified: the size, and the SHA-256, git id or MD5 if the source provides one. If
the files exceed the budget, the least recently used ones are removed.
"""

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from soupcore.display import in_words
from soupcore.errors import RemoteError, StoreError
from soupcore.new_files import check_space, full_disk, is_full, new_file
from soupcore.remote import files
from soupcore.remote.files import MOST_TRIES, CutOffError, RemoteFile, Source
from soupcore.workspace import private_folder, workspace_folder

REMOTE = "remote"  # folder in the workspace: sweeps, and the cache as a hidden folder
_FILES = ".files"
_PART = ".part"
_KEY = re.compile(r"[0-9a-f]{40}")
_BUDGET = "STOCKPOT_CACHE_GB"
_DEFAULT_BUDGET = 100.0  # GB
_POLL = 0.1  # seconds between two looks at the lock of another process
_AT_ONCE = 1 << 20  # bytes

OnBytes = Callable[[int], None]


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


@dataclass(frozen=True)
class Entry:
    """A file in the cache.

    Attributes:
        key: Its name there.
        url: Its URL; empty if its record is missing.
        nbytes: Its size on disk.
        used: Time of its last use, in seconds since 1970.
        is_complete: Whether it is downloaded completely.
    """

    key: str
    url: str
    nbytes: int
    used: float
    is_complete: bool


def _budget_from_environment() -> int:
    """Return the budget in bytes: `$STOCKPOT_CACHE_GB`, or 100 GB.

    Raises:
        StoreError: The variable is not a positive number.
    """
    text = os.environ.get(_BUDGET, "") or str(_DEFAULT_BUDGET)
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = 0.0
    if not 0 < gigabytes < 1e9:
        raise StoreError(f"${_BUDGET} is {text!r}; set it to a number of gigabytes, such as 100.")
    return round(gigabytes * 1e9)


class Cache:
    """The cache of a workspace. Any number of processes may use it.

    Args:
        workspace: The workspace; by default, `workspace_folder()`.
        budget: Largest size of all files in bytes; by default, `$STOCKPOT_CACHE_GB` or 100 GB.

    Attributes:
        folder: The folder of the files.
        budget: The budget in bytes.
    """

    def __init__(self, workspace: Path | None = None, budget: int | None = None) -> None:
        self.folder = (workspace or workspace_folder()) / REMOTE / _FILES
        self.budget = _budget_from_environment() if budget is None else budget

    def path(self, file: RemoteFile) -> Path:
        """Return the path of a file in the cache; the file may be missing."""
        return self.folder / file.key

    def has(self, file: RemoteFile) -> bool:
        """Return whether a file is in the cache."""
        try:
            return self.path(file).stat().st_size == file.size
        except OSError:
            return False

    def touch(self, file: RemoteFile) -> None:
        """Record that a file is used now."""
        with suppress(OSError):  # a read-only workspace, or removed meanwhile
            os.utime(self._record(file.key))

    def fetch(
        self,
        file: RemoteFile,
        source: Source,
        on_bytes: OnBytes = lambda nbytes: None,
        keep: Collection[str] = (),
    ) -> Path:
        """Return the path of a file in the cache, after downloading it if it is missing.

        Args:
            file: The file.
            source: The source that holds the file.
            on_bytes: Called with the number of bytes available since the last call; it may raise to
                stop. The downloaded part stays, and the next call continues there.
            keep: Keys of files that must not be removed to make room.

        Raises:
            RemoteError: The file is gone, changed or damaged, access is refused, or the connection
                was lost several times in a row.
            StoreError: The budget or the disk is too small.
        """
        if self.has(file):
            self.touch(file)
            on_bytes(file.size)
            return self.path(file)
        private_folder(self.folder)
        with self._part(file, on_bytes) as part:
            if self.has(file):  # another process has downloaded it meanwhile
                on_bytes(file.size)
                return self.path(file)
            self._download(file, source, part, on_bytes, {*keep, file.key})
        return self.path(file)

    def _download(
        self,
        file: RemoteFile,
        source: Source,
        part: BinaryIO,
        on_bytes: OnBytes,
        keep: Collection[str],
    ) -> None:
        place = self._place_of_part(file.key)
        with new_file(self._record(file.key), durable=False) as record:
            record.write(json.dumps(file.to_json()).encode())
        hashes = _hashes(file)
        at = 0
        while block := part.read(_AT_ONCE):  # of an earlier attempt
            _update(hashes, block)
            at += len(block)
            on_bytes(len(block))
        self.make_room(file.size - at, keep)
        check_space(self.folder, file.size - at)
        source.check_same(file)
        tries = 0
        try:
            while at < file.size:
                try:
                    for block in _to_the_end(source, file, at):
                        part.write(block)
                        _update(hashes, block)
                        at += len(block)
                        tries = 0 if block else tries
                        on_bytes(len(block))
                except CutOffError as error:
                    tries += 1
                    part.flush()
                    if tries >= MOST_TRIES:
                        raise RemoteError(
                            f"{file.url}: {error}. {in_words(at)} of {in_words(file.size)} are "
                            "downloaded; the next attempt continues there. Files that are in the "
                            "cache already can be used offline."
                        ) from None
                    _wait(files.WAIT * 2**tries / 2, on_bytes)
            part.flush()
            os.fsync(part.fileno())
        except OSError as error:
            if is_full(error):
                raise full_disk(self.path(file), file.size - at) from error
            raise
        problem = self._problem(file, source, at, hashes)
        if problem:
            place.unlink(missing_ok=True)
            self._record(file.key).unlink(missing_ok=True)
            source.check_same(file)  # raises if the file was replaced in the meantime
            raise RemoteError(f"{file.url} {problem}. Try again.")
        place.replace(self.path(file))

    def _problem(
        self, file: RemoteFile, source: Source, size: int, hashes: Mapping[str, _Hash]
    ) -> str:
        if size != file.size:
            return f"has {size:,} bytes, but {file.size:,} were announced"
        for name, expected in (("sha256", file.sha256), ("git", file.git)):
            if expected and name in hashes and hashes[name].hexdigest() != expected:
                return "was damaged during the download: its digest differs from that on the Hub"
        if "md5" in hashes and hashes["md5"].hexdigest() != file.etag and source.is_md5(file):
            return "was damaged during the download: its MD5 differs from its ETag"
        return ""

    def make_room(self, nbytes: int, keep: Collection[str] = ()) -> list[Entry]:
        """Remove the least recently used files until new ones fit into the budget.

        Args:
            nbytes: Size of the new files in bytes.
            keep: Keys of files to keep.

        Returns:
            The removed files.

        Raises:
            StoreError: The new files and those to keep exceed the budget.
        """
        entries = self.entries()
        total = sum(entry.nbytes for entry in entries) + nbytes
        kept = total - sum(entry.nbytes for entry in entries if entry.key not in keep)
        if total > self.budget and kept > self.budget:
            raise StoreError(
                f"The files of this sweep take {in_words(kept)}, but the cache of remote files "
                f"has a budget of {in_words(self.budget)}. Set ${_BUDGET} to a larger number of "
                "gigabytes."
            )
        removed = []
        for entry in sorted(entries, key=lambda entry: entry.used):
            if total <= self.budget:
                break
            if entry.key not in keep and self._remove(entry.key):
                total -= entry.nbytes
                removed.append(entry)
        return removed

    def entries(self) -> list[Entry]:
        """Return all files in the cache, the most recently used first."""
        found = []
        for path in self.folder.iterdir() if self.folder.is_dir() else ():
            key = path.name.removesuffix(_PART)
            if not _KEY.fullmatch(key):
                continue
            try:
                nbytes, used = path.stat().st_size, path.stat().st_mtime
            except OSError:  # removed meanwhile
                continue
            record = self._record(key)
            url = ""
            with suppress(OSError, ValueError, KeyError, TypeError):
                url = str(json.loads(record.read_bytes())["url"])
                used = max(used, record.stat().st_mtime)
            found.append(Entry(key, url, nbytes, used, path.name == key))
        return sorted(found, key=lambda entry: (-entry.used, entry.url))

    def clear(self, keys: Collection[str] | None = None) -> int:
        """Remove files, by default all, and return the number of bytes that this freed.

        Downloads in progress stay.
        """
        return sum(
            entry.nbytes
            for entry in self.entries()
            if (keys is None or entry.key in keys) and self._remove(entry.key)
        )

    def files_unused_since(self, time: float) -> list[Path]:
        """Return the files, with their records, that were not used since a time."""
        return [
            path
            for entry in self.entries()
            if entry.used < time
            for path in (
                self.folder / f"{entry.key}{'' if entry.is_complete else _PART}",
                self._record(entry.key),
            )
            if path.exists()
        ]

    def _remove(self, key: str) -> bool:
        part = self._place_of_part(key)
        with suppress(FileNotFoundError), part.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:  # it is being downloaded
                return False
            part.unlink(missing_ok=True)
        self.folder.joinpath(key).unlink(missing_ok=True)
        self._record(key).unlink(missing_ok=True)
        return True

    def _record(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _place_of_part(self, key: str) -> Path:
        return self.folder / f"{key}{_PART}"

    @contextmanager
    def _part(self, file: RemoteFile, on_bytes: OnBytes) -> Iterator[BinaryIO]:
        """Open the unfinished file, at its beginning, as the only process that writes to it."""
        place = self._place_of_part(file.key)
        while True:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "r+b") as part:
                while not _lock(part):
                    _wait(_POLL, on_bytes)
                try:
                    is_current = os.fstat(descriptor).st_ino == place.stat().st_ino
                except FileNotFoundError:  # the other process has finished it
                    is_current = False
                if is_current:
                    try:
                        yield part
                    finally:
                        if self.has(file):
                            place.unlink(missing_ok=True)
                    return


def _to_the_end(source: Source, file: RemoteFile, at: int) -> Iterator[bytes]:
    """Yield the bytes of a file from `at` on; stop within a block after its expected end.

    Raises:
        CutOffError: It ends too early.
    """
    for block in source.stream(file, at):
        yield block
        at += len(block)
        if at > file.size:
            return
    if at < file.size:
        raise CutOffError("the connection ended early")


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no support for locks
        return True
    return True


def _wait(seconds: float, on_bytes: OnBytes) -> None:
    """Wait, and stop waiting if `on_bytes` raises."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        on_bytes(0)
        time.sleep(min(left, _POLL))
    on_bytes(0)


def _hashes(file: RemoteFile) -> dict[str, Any]:
    """Return hash objects for the digests that can be verified, by name."""
    if file.sha256:
        return {"sha256": hashlib.sha256()}
    if file.git:
        git = hashlib.sha1(usedforsecurity=False)
        git.update(f"blob {file.size}\0".encode())
        return {"git": git}
    if re.fullmatch("[0-9a-f]{32}", file.etag):
        return {"md5": hashlib.md5(usedforsecurity=False)}
    return {}


def _update(hashes: Mapping[str, _Hash], block: bytes) -> None:
    for each in hashes.values():
        each.update(block)
