import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from soupcore import Cancelled
from soupcore.errors import RemoteError, StoreError
from soupcore.remote import Cache, RemoteFile
from soupcore.remote.files import CutOffError, Found


class Flaky:
    """A source of one file that is cut off after some bytes, a given number of times.

    Attributes:
        asked: Where each request began.
    """

    def __init__(self, content: bytes, cuts: int = 0, after: int = 1000) -> None:
        self.content = content
        self.cuts = cuts
        self.after = after
        self.asked: list[int] = []
        self.changed = False

    def find(self, url: str) -> list[Found]:
        raise NotImplementedError

    def read(self, file: RemoteFile, start: int, stop: int) -> bytes:
        return self.content[start:stop]

    def stream(self, file: RemoteFile, start: int) -> Iterator[bytes]:
        self.asked.append(start)
        if self.cuts:
            self.cuts -= 1
            yield self.content[start : start + self.after]
            raise CutOffError("the line went dead")
        for at in range(start, len(self.content), 500):
            yield self.content[at : at + 500]

    def check_same(self, file: RemoteFile) -> None:
        if self.changed:
            raise RemoteError(f"{file.url} was changed")

    def is_md5(self, file: RemoteFile) -> bool:
        return "-" not in file.etag


CONTENT = os.urandom(5000)
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soupcore.remote.files.WAIT", 0.0)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path, budget=20_000)


def file(name: str = "a", content: bytes = CONTENT, etag: str = "") -> RemoteFile:
    sha = "" if etag else hashlib.sha256(content).hexdigest()
    return RemoteFile(f"x://b/{name}", len(content), sha256=sha, etag=etag)


def test_a_file_is_downloaded_once(cache: Cache) -> None:
    source = Flaky(CONTENT)
    assert cache.fetch(file(), source).read_bytes() == CONTENT
    assert cache.fetch(file("same content elsewhere"), source).read_bytes() == CONTENT
    assert source.asked == [0]
    (entry,) = cache.entries()
    assert (entry.url, entry.nbytes, entry.is_complete) == ("x://b/a", 5000, True)
    assert cache.path(file()).stat().st_mode & 0o077 == 0


def test_a_download_continues_where_it_was_cut_off(cache: Cache) -> None:
    source = Flaky(CONTENT, cuts=3)
    seen: list[int] = []
    assert cache.fetch(file(), source, seen.append).read_bytes() == CONTENT
    assert source.asked == [0, 1000, 2000, 3000]
    assert sum(seen) == 5000


def test_a_later_call_continues_too(cache: Cache) -> None:
    with pytest.raises(RemoteError, match=r"the line went dead. 0 bytes of 5 kB are downloaded"):
        cache.fetch(file(), Flaky(CONTENT, cuts=9, after=0))
    seen: list[int] = []

    def cancel(nbytes: int) -> None:
        seen.append(nbytes)
        if sum(seen) >= 2000:
            raise Cancelled

    with pytest.raises(Cancelled):
        cache.fetch(file(), Flaky(CONTENT), cancel)
    (entry,) = cache.entries()
    assert not entry.is_complete
    source = Flaky(CONTENT)
    assert cache.fetch(file(), source).read_bytes() == CONTENT
    assert source.asked == [entry.nbytes]


@pytest.mark.parametrize(
    ("pinned", "problem"),
    [
        (RemoteFile("x://b/a", 5000, sha256="0" * 64), "damaged during the download: its digest"),
        (RemoteFile("x://b/a", 5000, git="0" * 40), "damaged during the download: its digest"),
        (RemoteFile("x://b/a", 5000, etag="0" * 32), "damaged during the download: its MD5"),
        (RemoteFile("x://b/a", 4000), "bytes, but 4,000 were announced"),
    ],
)
def test_downloads_are_verified(cache: Cache, pinned: RemoteFile, problem: str) -> None:
    with pytest.raises(RemoteError, match=problem):
        cache.fetch(pinned, Flaky(CONTENT))
    assert cache.entries() == []


def test_downloads_without_a_checksum_are_accepted(cache: Cache) -> None:
    blob = hashlib.sha1(b"blob 5000\0" + CONTENT, usedforsecurity=False).hexdigest()
    md5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
    for pinned in (
        RemoteFile("x://b/git", 5000, git=blob),
        RemoteFile("x://b/md5", 5000, etag=md5),
        RemoteFile("x://b/parts", 5000, etag=f"{'0' * 32}-2"),
    ):
        assert cache.fetch(pinned, Flaky(CONTENT)).read_bytes() == CONTENT


def test_a_changed_file_is_not_downloaded(cache: Cache) -> None:
    source = Flaky(CONTENT)
    source.changed = True
    with pytest.raises(RemoteError, match="was changed"):
        cache.fetch(file(), source)
    assert source.asked == []


def test_the_files_that_were_not_used_for_longest_make_room(cache: Cache) -> None:
    contents = {name: os.urandom(6000) for name in "abcd"}
    for time, name in enumerate("abc"):
        path = cache.fetch(file(name, contents[name]), Flaky(contents[name]))
        for each in (path, path.with_name(f"{path.name}.json")):
            os.utime(each, (1000 + time, 1000 + time))
    cache.touch(file("a", contents["a"]))
    cache.fetch(file("d", contents["d"]), Flaky(contents["d"]))
    assert {entry.url for entry in cache.entries()} == {"x://b/a", "x://b/c", "x://b/d"}
    keep = [entry.key for entry in cache.entries()]
    with pytest.raises(StoreError, match=r"take 23 kB, but .* a budget of 20 kB. Set .STOCKPOT_C"):
        cache.fetch(file(), Flaky(CONTENT), keep=keep)
    assert cache.clear(keep[:1]) == 6000
    assert cache.clear() == 12_000
    assert list(cache.folder.iterdir()) == []


def test_files_in_download_are_not_removed(cache: Cache) -> None:
    def look(nbytes: int) -> None:
        assert cache.clear() == 0

    assert cache.fetch(file(), Flaky(CONTENT), look).read_bytes() == CONTENT


@pytest.mark.parametrize("text", ["much", "-1", "nan", "0"])
def test_a_bad_budget_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("STOCKPOT_CACHE_GB", text)
    with pytest.raises(StoreError, match=f"STOCKPOT_CACHE_GB is '{text}'"):
        Cache(tmp_path)
    monkeypatch.setenv("STOCKPOT_CACHE_GB", "1.5")
    assert Cache(tmp_path).budget == 1_500_000_000
