"""Verifies the data in a workspace against checksums."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from soupcore.store import Store
from soupcore.store.arrays import DamagedArraysError, verify
from soupcore.store.database import SQLITE_FILE
from soupcore.store.tables import EvaluationRow, PartRow, SoupFileRow

# Caches of scans and contents of checkpoints. Without them, checkpoints are read again.
CACHES = ("scans.sqlite", "contents.sqlite")

OnFiles = Callable[[int, int], None]


@dataclass(frozen=True)
class Problem:
    """A damaged or missing file in a workspace.

    Attributes:
        path: The file.
        problem: The problem, as a sentence.
        way_out: The action of `repair`, as a sentence.
    """

    path: Path
    problem: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem} {self.way_out}"


def check(
    folder: Path, url: str | None = None, *, on_files: OnFiles = lambda done, total: None
) -> list[Problem]:
    """Read all data in a workspace and verify it against checksums.

    Args:
        folder: The workspace.
        url: URL of the database, as for `Store`.
        on_files: Called with the number of files checked and in total.

    Returns:
        The problems found.

    Raises:
        StoreError: The database cannot be used for a reason other than damage.
    """
    problems = [
        Problem(folder / name, f"It is damaged ({problem}).", "It is removed and rebuilt.")
        for name in CACHES
        if (problem := damage_of(folder / name))
    ]
    if url is None and (problem := damage_of(folder / SQLITE_FILE)):
        way_out = "It is moved aside, and all readable rows are kept."
        return [*problems, Problem(folder / SQLITE_FILE, f"It is damaged ({problem}).", way_out)]
    store = Store(folder, url)
    try:
        return [*problems, *files_that_are_damaged(store, on_files)]
    finally:
        store.close()


def damage_of(database: Path) -> str | None:
    """Return the damage of a SQLite file; None if it is intact or does not exist."""
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if answer == "ok" else str(answer)


def files_that_are_damaged(store: Store, on_files: OnFiles) -> Iterator[Problem]:
    """Yield the array files of a store that are missing or damaged, and damaged soup files."""
    with store.session() as session:
        places = [*session.scalars(select(EvaluationRow.arrays).distinct())]
        places += session.scalars(select(PartRow.arrays).distinct())
        soup_files = list(session.scalars(select(SoupFileRow)))
    arrays = sorted({place.partition("#")[0] for place in places})
    total = len(arrays) + len(soup_files)
    for done, file in enumerate(arrays):
        on_files(done, total)
        try:
            verify(store.folder / file, again=True)
        except DamagedArraysError as error:
            way_out = "Its results are removed and computed again when needed."
            yield Problem(store.folder / file, f"It {error.problem}.", way_out)
    for done, row in enumerate(soup_files, len(arrays)):
        on_files(done, total)
        path = store.soup_folder(row.soup, row.form) / row.name
        if problem := _damage_of_soup_file(path, row.sha256):
            yield Problem(path, problem, "Create the file again on the page of the soup.")
    on_files(total, total)


def _damage_of_soup_file(path: Path, sha256: str) -> str | None:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None  # removed to save space
    except OSError as error:
        return f"It cannot be read ({error.strerror})."
    return None if digest == sha256 else "It is damaged: its SHA-256 is wrong."
