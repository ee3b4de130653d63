"""Rows of a local sweep's table that name checkpoints by URLs, and names for these checkpoints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from soupcore.remote import check_url
from soupcore.remote.urls import (
    HUB_AND_S3,
    names_of,
    scheme_of,
    unique_names,
    without_credentials,
)
from soupcore.sweeps.findings import Finding, some
from soupcore.sweeps.hyperparameters import read_urls


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
        """Return only the table, with a finding that says that its URLs are not opened."""
        problem = f"names checkpoints by URLs, which are not opened: {some([*self.urls])}"
        way_out = "A downloaded table names no further files. Open the URLs themselves."
        findings = [*self.findings, Finding("warning", self.table, "", problem, way_out)]
        return TableUrls(self.table, labels=self.labels, findings=findings)


def find_table_urls(
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
