"""The checkpoints at URLs that the rows of a local sweep's table name.

Their files form a separate remote sweep, whose folder in the workspace is derived from the folder
of the local one. Each URL is resolved separately and only once, so new, renamed and removed rows do
not change the files of the others. A URL that cannot be resolved becomes a finding, and the other
checkpoints are opened.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from soupcore.checkpoints import Checkpoint
from soupcore.errors import RemoteError, StoreError, SweepError
from soupcore.progress import Progress, no_progress
from soupcore.remote import RemoteFile, check_url
from soupcore.remote.cache import REMOTE
from soupcore.remote.urls import safe_name, without_credentials
from soupcore.sweeps.findings import Finding
from soupcore.sweeps.folder import folder_signature
from soupcore.sweeps.remote import NONE, Plan, RemoteSweep, files_of
from soupcore.sweeps.remote_files import checked, find_files
from soupcore.sweeps.snapshots import Snapshots
from soupcore.workspace import workspace_folder

_AT_ONCE = 8  # URLs that are resolved at the same time

_NAME = "checkpoint"  # while a URL is resolved; the name of the ingredient may change

_Row = dict[str, RemoteFile]  # files by their path after the name of the ingredient


@dataclass
class RemoteTable(RemoteSweep):
    """The remote files that the table of a local sweep names.

    Attributes:
        rows: The files of each URL that is resolved, by their path after the ingredient's name.
        failed: `{URL: why}` of URLs that could not be resolved. They are tried again by `refresh`.
    """

    rows: dict[str, _Row] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, folder: Path, urls: Mapping[str, str]) -> Self:
        """Return the remote files of the sweep in a folder, without changing stored ones.

        Args:
            folder: The folder of the local sweep.
            urls: `{ingredient: URL}`, as in its table now.

        Raises:
            RemoteError: A URL is malformed or contains credentials.
            SweepError: The manifest is damaged.
        """
        wanted = tuple(f"{name}={url}" for name, url in urls.items())
        for text in wanted:
            check_url(text)
        place = _place(folder)
        known = cls.at(place)
        if known is None or known.urls == wanted:
            return known or cls(place, wanted)
        rows = {url: known.rows[url] for url in urls.values() if url in known.rows}
        failed = {url: known.failed[url] for url in urls.values() if url in known.failed}
        return cls(place, wanted, _placed(urls, rows), rows=rows, failed=failed)

    @classmethod
    def _from_json(cls, folder: Path, body: Mapping[str, Any]) -> Self | None:
        """Return the table of a manifest; None if the manifest is that of another class."""
        if "rows" not in body:
            return None
        urls = tuple(map(str, body["urls"]))
        rows = {str(url): files_of(row) for url, row in body["rows"].items()}
        failed = {str(url): str(why) for url, why in body["failed"].items()}
        return cls(folder, urls, _placed(_by_name(urls), rows), rows=rows, failed=failed)

    def _files_to_json(self) -> dict[str, Any]:
        rows = self.rows.items()
        return {
            "rows": {url: {at: file.to_json() for at, file in row.items()} for url, row in rows},
            "failed": self.failed,
        }

    def refresh(self) -> None:
        """Resolve the URLs again, and use the current files.

        Raises:
            RemoteError: A URL that was resolved before cannot be resolved now. Then nothing
                changes.
        """
        rows, failed = _resolved({*_by_name(self.urls).values()})
        lost = next((why for url, why in failed.items() if url in self.rows), None)
        if lost is not None:
            raise RemoteError(lost)
        self._use(rows, failed)

    def is_complete(
        self, base_name: str, snapshot: Snapshots, local: Mapping[str, Checkpoint] = NONE
    ) -> bool:
        """Return whether opening it needs no download; see `RemoteSweep.is_complete`."""
        if not self.files and self.failed.keys() == {*_by_name(self.urls).values()}:
            return bool(local)
        return super().is_complete(base_name, snapshot, local)

    def complete(
        self,
        base_name: str,
        snapshot: Snapshots,
        on_progress: Progress = no_progress,
        *,
        local: Mapping[str, Checkpoint] = NONE,
    ) -> Plan:
        """Download the missing files; see `RemoteSweep.complete`.

        URLs that cannot be resolved become findings.

        Raises:
            RemoteError: No URL can be resolved, and there is no local checkpoint either.
        """
        if not self.files and not local:
            self.failed = {}  # nothing can be opened without them, so they are tried each time
        self._prepare()
        if not self.files and not local:
            raise RemoteError(next(iter(self.failed.values())))
        plan = Plan(())
        if self.files:
            plan = super().complete(base_name, snapshot, on_progress, local=local)
        failed = (_finding(name, self.failed[url])
                  for name, url in _by_name(self.urls).items() if url in self.failed)  # fmt: skip
        return replace(plan, findings=(*plan.findings, *failed))

    def _prepare(self) -> None:
        """Resolve the URLs that are new in the table, and store their files."""
        new = {*_by_name(self.urls).values()} - self.rows.keys() - self.failed.keys()
        stored = type(self).at(self.folder)
        if new or stored is None or stored.urls != self.urls:
            rows, failed = _resolved(new)
            self._use(self.rows | rows, self.failed | failed)

    def _use(self, rows: dict[str, _Row], failed: dict[str, str]) -> None:
        self.rows, self.failed = rows, failed
        self._replace(_placed(_by_name(self.urls), rows))


def remote_of(folder: str | Path) -> RemoteSweep | None:
    """Return the remote sweep in a folder, or that of the URLs in its table; None without one.

    The latter exists once the sweep was opened.

    Raises:
        SweepError: Its manifest is damaged.
    """
    found: RemoteSweep | None = RemoteSweep.at(Path(folder))
    if found is None:
        with suppress(StoreError):  # without a workspace, there is none
            found = RemoteTable.at(_place(Path(folder)))
    return found


def remote_files(folder: Path, files: Sequence[Path]) -> dict[str, RemoteFile]:
    """Return the pinned remote files among files in the folder of a sweep, by relative path."""
    remote = remote_of(folder)
    if remote is None:
        return {}
    place = remote.folder
    inside = (path.relative_to(place).as_posix() for path in files if place in path.parents)
    return {path: remote.files[path] for path in inside if path in remote.files}


def sweep_signature(folder: str | Path) -> str:
    """Return a text that changes whenever a file of a sweep does, in its folder or its cache."""
    remote = None
    with suppress(SweepError):  # opening the sweep raises it
        remote = remote_of(folder)
    places = {Path(folder), remote.folder} if remote is not None else {Path(folder)}
    return "\n".join(map(folder_signature, sorted(places)))


def _place(folder: Path) -> Path:
    """Return the folder of the remote files that the table of a local sweep names."""
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return workspace_folder() / REMOTE / f"{safe_name(folder.resolve().name)[:60]}-table-{digest}"


def _by_name(texts: Sequence[str]) -> dict[str, str]:
    """Return `{ingredient: URL}` of texts such as `NAME=URL`."""
    return dict(map(check_url, texts))


def _placed(urls: Mapping[str, str], rows: Mapping[str, _Row]) -> dict[str, RemoteFile]:
    """Return the files of rows, by their paths in the folder."""
    return {
        name + after: file
        for name, url in urls.items()
        for after, file in rows.get(url, {}).items()
    }


def _resolved(urls: Collection[str]) -> tuple[dict[str, _Row], dict[str, str]]:
    """Resolve URLs separately.

    Returns:
        `{URL: files}` of those that name a checkpoint, and `{URL: reason}` of the others.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = dict(zip(urls, pool.map(_row, urls), strict=True))
    rows = {url: row for url, row in found.items() if not isinstance(row, str)}
    return rows, {url: why for url, why in found.items() if isinstance(why, str)}


def _row(url: str) -> _Row | str:
    """Return the files of the checkpoint at a URL, or the reason why there is none."""
    try:
        found = find_files([f"{_NAME}={url}"])
        if len(found) > 1:
            return (
                f"{url} matches {len(found)} checkpoints, but a row of a table names one. Write a "
                "row for each."
            )
        files = checked([url], found)
    except RemoteError as error:
        return str(error)
    return {path.removeprefix(_NAME): file for path, file in files.items()}


def _finding(name: str, why: str) -> Finding:
    way_out = "Correct the row, or have the URLs resolved again."
    return Finding("misfit", name, "", without_credentials(why), way_out)
