"""The members of a sweep: the runs in its folder, and those that its table names by URLs."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from natsort import natsorted, ns

from soupcore.checkpoints import Checkpoint
from soupcore.checkpoints.run_folders import Run
from soupcore.errors import RemoteError
from soupcore.progress import Progress, no_progress
from soupcore.remote import check_url
from soupcore.remote.urls import (
    HUB_AND_S3,
    names_of,
    scheme_of,
    unique_names,
    without_credentials,
)
from soupcore.sweeps.findings import Finding, some
from soupcore.sweeps.folder import Entries, find_entries, find_runs, stays_within
from soupcore.sweeps.hyperparameters import read_urls
from soupcore.sweeps.remote import Plan, RemoteSweep
from soupcore.sweeps.remote_table import RemoteTable
from soupcore.sweeps.snapshots import OTHERS, Snapshots, open_all, take


@dataclass(frozen=True)
class TableUrls:
    """The checkpoints that a table names by URLs.

    Attributes:
        table: Name of the table; empty if there is none.
        urls: `{ingredient: URL}`.
        labels: `{text in the table: ingredient}`, also of URLs that are not opened.
        findings: Rows whose URLs are not opened.
    """

    table: str = ""
    urls: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def ignored(self) -> "TableUrls":
        """Return the table without its URLs, and with a finding that they are not opened."""
        problem = f"names checkpoints by URLs, which are not opened: {some([*self.urls])}"
        way_out = "A downloaded table names no further files. Open the URLs themselves."
        findings = [*self.findings, Finding("warning", self.table, "", problem, way_out)]
        return TableUrls(self.table, labels=self.labels, findings=findings)


@dataclass
class Members:
    """The runs of a sweep, and the other entries of its folder.

    Attributes:
        folder: The folder.
        local: The runs in the folder, by name.
        entries: The other entries of the folder.
        named: The checkpoints that the table names by URLs.
        table: Their files; None if there are none.
    """

    folder: Path
    local: dict[str, Run]
    entries: Entries
    named: TableUrls
    table: RemoteTable | None

    @classmethod
    def find(cls, folder: Path, within: Collection[Path] | None = None) -> "Members":
        """Return the members of the sweep in a folder, without reading checkpoints.

        Args:
            folder: The folder.
            within: Folders that links must not leave; by default, links may lead anywhere.

        Raises:
            RemoteError: A URL in the table is malformed or contains credentials.
            SweepError: The folder does not exist or cannot be read.
        """
        local = find_runs(folder, within)
        places = {name: run.place for name, run in local.items()}
        named = _table_urls(
            folder, places, stays_within(within), hub_and_s3_only=within is not None
        )
        if named.urls and RemoteSweep.at(folder) is not None:
            named = named.ignored()
        table = RemoteTable.of_folder(folder, named.urls) if named.urls else None
        return cls(folder, local, find_entries(folder, local, within), named, table)

    @property
    def runs(self) -> dict[str, Run]:
        """All runs by name, in natural order; of those at URLs, the downloaded ones."""
        if self.table is None or not self.table.folder.is_dir():
            return self.local
        found = self.local | find_runs(self.table.folder)
        return {name: found[name] for name in natsorted(found, alg=ns.FLOAT)}

    @property
    def folders(self) -> list[Path]:
        """The folders of the runs."""
        return [self.folder, *([self.table.folder] if self.table is not None else [])]

    def roots(self, within: Collection[Path] | None) -> list[Path] | None:
        """Return the folders that links must not leave, with that of downloaded files."""
        if within is None or self.table is None:
            return None if within is None else [*within]
        return [*within, self.table.folder.parent]

    @property
    def findings(self) -> list[Finding]:
        """Entries that are not opened, and rows of the table."""
        return self.entries.findings + self.named.findings

    def refresh(self) -> None:
        """Resolve the URLs in the table again; see `RemoteTable.refresh`."""
        if self.table is not None:
            self.table.refresh()

    def is_complete(self, base_name: str, snapshot: Snapshots) -> bool:
        """Return whether opening needs no download of the files at URLs."""
        return self.table is None or self.table.is_complete(
            base_name, self._of_table(snapshot), self._headers(base_name, snapshot)
        )

    def complete(
        self, base_name: str, snapshot: Snapshots, on_progress: Progress = no_progress
    ) -> Plan:
        """Download the missing files at URLs that fit the others by their headers.

        Args:
            base_name: Name of the base.
            snapshot: The snapshots to open.
            on_progress: Called with the number of bytes downloaded and in total. Raise in it to
                cancel.

        Raises:
            RemoteError, StoreError: See `RemoteTable.complete`.
        """
        if self.table is None:
            return Plan(())
        local = self._headers(base_name, snapshot)
        try:
            return self.table.complete(
                base_name, self._of_table(snapshot), on_progress, local=local
            )
        except RemoteError as error:
            raise RemoteError(f"{self.folder / self.named.table}: {error}") from None

    def _headers(self, base_name: str, snapshot: Snapshots) -> Mapping[str, Checkpoint]:
        wanted = _only(snapshot, self.local)
        return open_all(take(self.local, wanted, base_name))[0]

    def _of_table(self, snapshot: Snapshots) -> Snapshots:
        return _only(snapshot, self.named.urls)


def _only(snapshot: Snapshots, names: Collection[str]) -> Snapshots:
    """Return the choice of snapshots for some of the runs."""
    if isinstance(snapshot, str):
        return snapshot
    return {name: each for name, each in snapshot.items() if name in names or name == OTHERS}


def _table_urls(
    folder: Path,
    paths: Mapping[str, Path],
    is_allowed: Callable[[Path], bool],
    *,
    hub_and_s3_only: bool,
) -> TableUrls:
    """Return the checkpoints that the table in a folder names by URLs, and that are not in it.

    An ingredient is named by the row's `NAME=URL`, or its column such as `name`, or the URL.

    Args:
        folder: The sweep's folder.
        paths: `{ingredient: file or folder}` of the checkpoints in it.
        is_allowed: Whether a file may be read, as links may leave the allowed folders.
        hub_and_s3_only: Whether to open no other schemes.

    Raises:
        RemoteError: A URL has another form than its scheme requires, or contains credentials.
    """
    table, rows = read_urls(folder, paths, is_allowed)
    found = TableUrls(table)
    here: dict[str, None] = {}
    wanted: dict[str, tuple[str, str]] = {}  # {text: (title, URL)}
    refused: dict[str, list[str]] = {}
    for row in rows:
        scheme = scheme_of(row.text)
        if row.here is not None:
            here[row.here] = None
        elif hub_and_s3_only and scheme not in HUB_AND_S3:
            refused.setdefault(scheme, []).append(row.text)
            found.labels[row.text] = row.text
        else:
            name, url = check_url(row.text)
            wanted[row.text] = name or row.title, url
    given = [(title,) if title else names_of(url) for title, url in wanted.values()]
    names = unique_names([*((name,) for name in paths), *given])[len(paths) :]
    for (text, (title, url)), name in zip(wanted.items(), names, strict=True):
        found.urls[name] = url
        found.labels.update({text: name, url: name, **({title: name} if title else {})})
    if here:
        problem = f"has URLs for checkpoints that are also in this folder: {some([*here])}"
        way_out = "The local files are used. Delete a local file to use its URL instead."
        found.findings.append(Finding("note", table, "", problem, way_out))
    found.findings.extend(
        Finding(
            "warning",
            table,
            "",
            f"names checkpoints on {scheme}://, which cannot be opened here: "
            f"{some([*map(without_credentials, texts)])}",
            "Use hf:// or s3://. The command line and the library open other URLs too.",
        )
        for scheme, texts in refused.items()
    )
    return found
