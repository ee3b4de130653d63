"""Checks of a workspace against checksums, and repair of damage.

A repair keeps all readable data; the rest is computed again when needed.
"""

import hashlib
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError, safe_open
from sqlalchemy import (
    ColumnElement,
    FromClause,
    MetaData,
    Table,
    create_engine,
    insert,
    literal_column,
    select,
)
from sqlalchemy.exc import SQLAlchemyError, StatementError

from soupcore.errors import StoreError
from soupcore.store import Store
from soupcore.store.arrays import ARRAYS, DamagedArraysError, verify
from soupcore.store.database import SQLITE_FILE
from soupcore.store.evaluations import SUMMARIES
from soupcore.store.tables import Base, EvaluationRow, MetaRow, SoupFileRow

# Caches of scans and contents of checkpoints. Without them, checkpoints are read again.
_CACHES = ("scans.sqlite", "contents.sqlite")

OnFiles = Callable[[int, int], None]

_Row = dict[str, object]
_UNREADABLE = (SQLAlchemyError, ValueError)


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
        for name in _CACHES
        if (problem := _damage_of(folder / name))
    ]
    if url is None and (problem := _damage_of(folder / SQLITE_FILE)):
        way_out = "It is moved aside, and all readable rows are kept."
        return [*problems, Problem(folder / SQLITE_FILE, f"It is damaged ({problem}).", way_out)]
    store = Store(folder, url)
    try:
        return [*problems, *_damaged_files(store, on_files)]
    finally:
        store.close()


def repair(folder: Path, url: str | None = None) -> list[str]:
    """Repair the problems found by `check`. The workspace must not be in use.

    A damaged database is moved aside, and its readable rows are copied to a new one. Evaluations
    whose rows were lost are restored from their array files. Rows that refer to damaged files are
    removed, so that their results are computed again when needed.

    Args:
        folder: The workspace.
        url: URL of the database, as for `Store`.

    Returns:
        Sentences about the repairs.

    Raises:
        StoreError: The database cannot be used for a reason other than damage.
    """
    done = []
    for name in _CACHES:
        if _damage_of(folder / name):
            (folder / name).unlink()
            done.append(f"Removed the damaged {name}; checkpoints are read again.")
    database = folder / SQLITE_FILE
    if url is None and _damage_of(database):
        aside = _move_aside(database)
        done.append(f"Moved the damaged database to {aside.name}.")
        new = Store(folder)
        done += _salvage(aside, new)
        new.close()
    store = Store(folder, url)
    store.remove_leftovers()
    done += _find_lost_evaluations(store)
    _forget_damaged_files(store)
    done += store.notes
    store.close()
    return done


def _damage_of(database: Path) -> str | None:
    """Return the damage of a SQLite file; None if it is intact or does not exist."""
    if not database.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if answer == "ok" else str(answer)


def _damaged_files(store: Store, on_files: OnFiles) -> Iterator[Problem]:
    """Yield the array files of a store that are missing or damaged, and damaged soup files."""
    with store.session() as session:
        soup_files = list(session.scalars(select(SoupFileRow)))
    arrays = sorted(store.array_files())
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


def _move_aside(database: Path) -> Path:
    aside = database.with_name(f"{database.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    database.rename(aside)
    log = Path(f"{database}-wal")
    if log.exists() and log.stat().st_size:
        log.rename(f"{aside}-wal")  # SQLite finds the log by the name of the database
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink(missing_ok=True)
    return aside


def _salvage(damaged: Path, store: Store) -> list[str]:
    """Copy the readable rows of a damaged database to a new one."""
    done = []
    with tempfile.TemporaryDirectory(dir=store.folder) as scratch:
        copy = Path(scratch) / "copy.sqlite"  # reading merges the log, which may damage more
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{damaged}{suffix}", f"{copy}{suffix}")
        for table in Base.metadata.sorted_tables:
            if table.name == MetaRow.__tablename__:
                continue
            rows: dict[object, _Row] = {}
            for row in _rows_of(copy, table.name):
                values = {column.name: row[column.name] for column in table.c if column.name in row}
                rows[tuple(values.get(column.name) for column in table.primary_key)] = values
            kept = _insert(store, table, list(rows.values()))
            if rows:
                lost = f" {len(rows) - kept} more are damaged." if kept < len(rows) else ""
                done.append(f"Kept {kept} rows of the table {table.name}.{lost}")
    return done


def _rows_of(database: Path, name: str) -> Iterator[_Row]:
    """Yield the rows of a table, from both ends up to the damaged pages."""
    engine = create_engine(f"sqlite:///{database}")
    rowid: ColumnElement[int] = literal_column("rowid")
    try:
        table = Table(name, MetaData(), autoload_with=engine)
        for order in (rowid.asc(), rowid.desc()):
            with engine.connect() as connection, suppress(*_UNREADABLE):
                for row in connection.execute(select(table).order_by(order)).mappings():
                    yield {str(column): value for column, value in row.items()}
                return
    except _UNREADABLE:  # not even the schema is readable
        return
    finally:
        engine.dispose()


def _insert(store: Store, table: FromClause, rows: list[_Row]) -> int:
    """Insert rows and return the number inserted; rows that lack a value are skipped."""
    kept = 0
    with store.engine.begin() as connection:
        for row in rows:
            statement = insert(cast("Table", table)).prefix_with("OR IGNORE")
            with suppress(StatementError):
                kept += connection.execute(statement, row).rowcount
    return kept


def _find_lost_evaluations(store: Store) -> list[str]:
    """Restore lost rows from array files, whose metadata describes the evaluations."""
    with store.session() as session:
        rows = session.scalars(select(EvaluationRow))
        known = {(row.mixture_key, row.task_key, row.split_digest): row.created for row in rows}
    found = 0
    for path in sorted((store.folder / ARRAYS).rglob("*.safetensors")):
        summaries = _summaries(path)
        file = str(path.relative_to(store.folder))
        for index, summary in enumerate(summaries):
            place = file if len(summaries) == 1 else f"{file}#{index}"
            row = EvaluationRow(**summary, arrays=place)
            point = row.mixture_key, row.task_key, row.split_digest
            if point not in known:
                store.put_evaluations([row])
                known[point] = row.created
                found += 1
    return [f"Restored {found} evaluations from their array files."] if found else []


def _summaries(path: Path) -> list[dict[str, Any]]:
    try:
        verify(path, again=True)
        with safe_open(path, framework="pt") as file:
            found: list[dict[str, Any]] = json.loads((file.metadata() or {}).get(SUMMARIES, "[]"))
    except (StoreError, SafetensorError, ValueError):
        return []
    return found


def _forget_damaged_files(store: Store) -> None:
    """Remove rows that refer to damaged files; the store keeps a note about each."""
    for problem in _damaged_files(store, lambda done, total: None):
        file = problem.path.relative_to(store.folder)
        if file.parts[0] == ARRAYS:
            store.forget_arrays(str(file))
        else:
            store.soup_files(*file.parts[1:3])  # removes rows of damaged files itself
