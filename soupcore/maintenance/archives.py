"""Copies of a workspace: backups of all results, and archives to import into another workspace.

An archive is a zip file with the arrays, whose names contain their SHA-256, and the rows as JSON.
It contains no weights, and nothing in it is executed, so archives from others are safe to import.
"""

import hashlib
import json
import re
import shutil
import sqlite3
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

from sqlalchemy import select

from soupcore.errors import StoreError
from soupcore.new_files import create_private, new_file
from soupcore.store import Store
from soupcore.store.arrays import place_of, write_content
from soupcore.store.database import SQLITE_FILE, path_of
from soupcore.store.tables import (
    AnnotationRow,
    Base,
    EvaluationRow,
    InnerProductRow,
    PartRow,
    SoupRow,
)
from soupcore.workspace import private_folder, read_id, write_id

_ROWS = "rows.json"
_FORMAT = 1
_TABLES: dict[str, type[Base]] = {
    row.__tablename__: row
    for row in (EvaluationRow, PartRow, SoupRow, InnerProductRow, AnnotationRow)
}
_OPTIONAL = {AnnotationRow.__tablename__}  # earlier versions did not export it
_MAX_ROWS_JSON = 1 << 30  # bytes
_COPIED_AT_ONCE = 1 << 24
_PLACE = re.compile(r"arrays/[0-9a-f]{2}/[0-9a-f]{64}-[0-9]+\.safetensors(#[0-9]+)?")

_Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Copied:
    """Numbers of rows and array files copied, and the size of the new files in bytes."""

    rows: int
    files: int
    nbytes: int


def backup(store: Store, target: Path) -> Copied:
    """Copy the database and all arrays, but no weights of soups. The workspace may be in use.

    The copy is a workspace: to restore it, set STOCKPOT_WORKSPACE to it or copy it back. Arrays
    from an earlier backup in the same folder are not copied again.

    Args:
        store: The workspace.
        target: Folder of the backup.

    Raises:
        StoreError: The database is on a PostgreSQL server, which has its own tools, or the folder
            belongs to another workspace.
    """
    source = path_of(store.engine)
    if source is None:
        raise StoreError(
            "The database of this workspace is on a server. Back it up with its own tools, such as "
            "pg_dump, and copy the folder `arrays` of the workspace afterwards."
        )
    workspace = read_id(store.folder)
    if target.resolve() == store.folder or read_id(private_folder(target)) not in (None, workspace):
        raise StoreError(f"{target} is another workspace. Choose an empty folder for the backup.")
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        snapshot = Path(scratch) / SQLITE_FILE
        create_private(snapshot)
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as connection,
            closing(sqlite3.connect(snapshot)) as copied,
        ):
            connection.backup(copied)
        snapshot.replace(target / SQLITE_FILE)
    write_id(target, workspace)
    copy = Store(target)
    try:
        rows = _rows(copy)
        files = _files_of(rows)
        nbytes = 0
        for name in sorted(files):
            nbytes += _copy_file(store.folder / name, target / name)
    finally:
        copy.close()
    return Copied(sum(map(len, rows.values())), len(files), nbytes)


def export_results(store: Store, target: Path) -> Copied:
    """Write evaluations, soups and inner products to an archive, for `import_results`.

    The archive contains no weights. Soups can be rebuilt from the checkpoints.
    """
    rows = _rows(store)
    names: dict[str, str] = {}
    nbytes = 0
    with new_file(target) as file, ZipFile(file, "w", ZIP_STORED) as archive:
        for name in sorted(_files_of(rows)):
            path = store.folder / name
            if not path.is_file():
                continue  # its rows are omitted
            with path.open("rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            # Files of earlier versions get a name of the current form.
            names[name] = str(place_of(sha256, path.stat().st_size))
            if names[name] not in archive.NameToInfo:  # files of equal content share a name
                archive.write(path, names[name])
                nbytes += path.stat().st_size
        kept = _with_files(rows, names)
        archive.writestr(_ROWS, json.dumps({"format": _FORMAT, "tables": kept}))
    return Copied(sum(map(len, kept.values())), len(set(names.values())), nbytes)


def import_results(
    store: Store, source: Path, moved: Mapping[str, str] = MappingProxyType({})
) -> Copied:
    """Add the contents of an archive to a workspace.

    Existing results do not change, except that evaluations without outputs are replaced by those
    with outputs.

    Args:
        store: The workspace.
        source: The archive, from `export_results`.
        moved: `{folder there: folder here}` of sweeps, because soups are listed by folder.

    Returns:
        Numbers of new rows and files.

    Raises:
        StoreError: The file is not such an archive, or is damaged. Results added before the error
            remain.
    """
    try:
        with ZipFile(source) as archive:
            rows = _read_rows(archive, source)
            new = _new_rows(store, rows, moved)
            files = _files_of(new)
            nbytes = sum(_extract(archive, name, store, source) for name in sorted(files))
    except (BadZipFile, KeyError, OSError) as error:
        raise StoreError(
            f"{source} is not an archive of results, or is damaged ({error})."
        ) from error
    for table, values in new.items():
        store.put(*(_TABLES[table](**row) for row in values))
    return Copied(sum(map(len, new.values())), len(files), nbytes)


def _rows(store: Store) -> _Rows:
    """Return all rows in JSON form."""
    found: _Rows = {}
    with store.session() as session:
        for table, model in _TABLES.items():
            columns = model.__table__.columns.keys()
            found[table] = [
                {name: _to_json(getattr(row, name)) for name in columns}
                for row in session.scalars(select(model))
            ]
    return found


def _to_json(value: object) -> object:
    return b64encode(value).decode() if isinstance(value, bytes) else value


def _files_of(rows: _Rows) -> set[str]:
    places = (row["arrays"] for table in rows.values() for row in table if "arrays" in row)
    return {place.partition("#")[0] for place in places}


def _with_files(rows: _Rows, names: Mapping[str, str]) -> _Rows:
    """Return the rows whose files are in the archive, with the names of these files there."""
    kept: _Rows = {}
    for table, values in rows.items():
        kept[table] = []
        for row in values:
            if "arrays" not in row:
                kept[table].append(row)
                continue
            file, hash_sign, index = row["arrays"].partition("#")
            if file in names:
                kept[table].append(row | {"arrays": f"{names[file]}{hash_sign}{index}"})
    return kept


def _read_rows(archive: ZipFile, source: Path) -> _Rows:
    if archive.getinfo(_ROWS).file_size > _MAX_ROWS_JSON:
        raise StoreError(f"{source} has more rows than any workspace.")
    try:
        content = json.loads(archive.read(_ROWS))
        if content["format"] != _FORMAT:
            raise StoreError(
                f"{source} was written by another version of Stockpot, in format "
                f"{content['format']!r}; this one reads format {_FORMAT}. Use the same version."
            )
        tables = {name: [] for name in _OPTIONAL} | content["tables"]
        return {
            table: [_checked(model, row) for row in tables[table]]
            for table, model in _TABLES.items()
        }
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{source} is not an archive of results: {error}.") from error


def _checked(model: type[Base], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a row, checked against the types of the columns."""
    values = {}
    for column in model.__table__.columns:
        # Earlier versions did not have all columns; those that came later may be empty.
        value = row.get(column.name) if column.nullable else row[column.name]
        wanted = column.type.python_type
        if wanted is bytes and isinstance(value, str):
            value = b64decode(value, validate=True)
        if wanted is float and isinstance(value, int):
            value = float(value)
        if not (isinstance(value, wanted) or (value is None and column.nullable)):
            raise TypeError(f"{column.name} is {value!r}")
        values[column.name] = value
    scores = values.get("scores") or {}
    if not isinstance(scores, dict) or not all(
        score is None or isinstance(score, float) for score in scores.values()
    ):
        raise TypeError(f"scores is {scores!r}")
    place = values.get("arrays")
    if isinstance(place, str) and not _PLACE.fullmatch(place):
        raise ValueError(f"{place!r} is not an array file")
    return values


def _new_rows(store: Store, rows: _Rows, moved: Mapping[str, str]) -> _Rows:
    """Return the rows that are not in the workspace."""
    new: _Rows = {}
    with store.session() as session:
        for table, values in rows.items():
            keys = [column.name for column in _TABLES[table].__table__.primary_key]
            new[table] = []
            for row in values:
                known = session.get(_TABLES[table], tuple(row[key] for key in keys))
                if isinstance(known, EvaluationRow) and row["has_outputs"] > known.has_outputs:
                    known = None
                if known is None:
                    new[table].append(row)
    for row in new[SoupRow.__tablename__]:
        row["sweep"] = moved.get(row["sweep"], row["sweep"])
    return new


def _extract(archive: ZipFile, name: str, store: Store, source: Path) -> int:
    """Write one file of arrays to the workspace and return its size."""
    size = archive.getinfo(name).file_size
    if not name.endswith(f"-{size}.safetensors"):
        raise StoreError(f"{source} is damaged: {name} has another size.")
    content = archive.read(name)
    if str(place_of(hashlib.sha256(content).hexdigest(), size)) != name:
        raise StoreError(f"{source} is damaged: {name} has another SHA-256.")
    write_content(store.folder, content)
    return size


def _copy_file(source: Path, target: Path) -> int:
    """Copy a file unless it exists; return the number of bytes copied."""
    size = source.stat().st_size if source.is_file() else 0
    if not source.is_file() or (target.is_file() and target.stat().st_size == size):
        return 0
    private_folder(target.parent)
    with source.open("rb") as read, new_file(target) as written:
        shutil.copyfileobj(read, written, _COPIED_AT_ONCE)
    return size
