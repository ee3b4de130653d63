"""Opening of a workspace's database, its schema version, and upgrades of earlier versions.

`open_database` opens a database, and `prepare` creates missing tables and upgrades it.
"""

import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.schema import CreateColumn

from soupcore.errors import ReadOnlyError, StoreError
from soupcore.new_files import create_private, full_disk, has_no_space
from soupcore.store.tables import Base, MetaRow
from soupcore.workspace import read_id, write_id


def _add_stamps_to_soup_files(connection: Connection) -> None:
    add_column(connection, "soup_files", Column("stamp", String))


def _lease_jobs(connection: Connection) -> None:
    """Add the columns for leases to jobs, and allow only one unfinished job of equal ones."""
    jobs: list[Column[Any]] = [
        Column("task", String),
        Column("attempt", Integer, nullable=False, server_default="0"),
        *(Column(name, Float) for name in ("reported", "stopping", "deadline")),
    ]
    for column in jobs:
        add_column(connection, "jobs", column)
    if not inspect(connection).has_table("jobs"):
        return
    if connection.dialect.name == "postgresql":  # they may count the bytes of a large file
        for name in ("done", "total"):
            connection.exec_driver_sql(f"ALTER TABLE jobs ALTER COLUMN {name} TYPE BIGINT")
    table = Table("jobs", MetaData(), autoload_with=connection)
    seen: set[str] = set()
    for job in connection.execute(select(table).order_by(table.c.id.desc())).all():
        request = json.loads(job.request) if isinstance(job.request, str) else job.request
        whole = json.dumps([job.kind, request], sort_keys=True)
        values = {
            "task": request.get("task"),
            "fingerprint": hashlib.sha256(whole.encode()).hexdigest(),
        }
        if job.state in ("queued", "running"):
            if values["fingerprint"] in seen:
                values["state"] = "cancelled"
            seen.add(values["fingerprint"])
        connection.execute(table.update().where(table.c.id == job.id).values(values))
    connection.exec_driver_sql("DROP INDEX IF EXISTS ix_jobs_fingerprint")
    connection.exec_driver_sql(
        "CREATE UNIQUE INDEX jobs_once ON jobs (fingerprint) WHERE state IN ('queued', 'running')"
    )


def _add_scores_by_metric(connection: Connection) -> None:
    add_column(connection, "evaluations", Column("scores", JSON))


def _add_dismissals_to_jobs(connection: Connection) -> None:
    add_column(connection, "jobs", Column("dismissed", Float))


# Each function upgrades a database by one schema version, starting from version 1. They run in one
# transaction, before missing tables are created, so a table may be absent (see `add_column`).
_MIGRATIONS: list[Callable[[Connection], None]] = [
    _add_stamps_to_soup_files,
    _lease_jobs,
    _add_scores_by_metric,
    _add_dismissals_to_jobs,
]

SCHEMA_VERSION = 1 + len(_MIGRATIONS)

SQLITE_FILE = "stockpot.sqlite"

# Identifies the lock under which a PostgreSQL database is created and upgraded.
_ADVISORY_LOCK = 7_365_824_401
_PATIENCE = 30.0  # seconds to wait for the write lock of SQLite


def add_column(connection: Connection, table: str, column: Column[Any]) -> None:
    """Add a column to a table, for migrations. Does nothing if the table does not exist yet.

    Args:
        connection: A connection in `exclusively`.
        table: Name of the table.
        column: The column; nullable, or with a `server_default` for the rows that exist.
    """
    inspector = inspect(connection)
    if not inspector.has_table(table):
        return
    if column.name in {known["name"] for known in inspector.get_columns(table)}:
        return
    Table(table, MetaData(), column)
    quoted = connection.dialect.identifier_preparer.quote(table)
    declaration = CreateColumn(column).compile(dialect=connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {quoted} ADD COLUMN {declaration}")


def prepare(engine: Engine, folder: Path) -> None:
    """Create the tables that are missing and upgrade the database to this schema version.

    Any number of processes may call it at the same time.

    Args:
        engine: The database, from `open_database`.
        folder: The workspace folder that the rows refer to. The database stores the folder's id,
            which moves with the folder.

    Raises:
        StoreError: The database was written by a newer version of Stockpot, or belongs to another
            workspace folder.
    """
    with engine.connect() as connection:
        is_ready = _is_ready(connection, folder)
    if is_ready:
        return
    with exclusively(engine) as connection:
        if _is_ready(connection, folder):
            return  # another process has prepared it in the meantime
        for migrate in _MIGRATIONS[_version(connection) - 1 :]:
            migrate(connection)
        Base.metadata.create_all(connection)
        _write_meta(connection, "schema_version", str(SCHEMA_VERSION))
        owner = _read_meta(connection, "workspace")
        _write_meta(connection, "workspace", read_id(folder) or write_id(folder, owner))


def check_readable(engine: Engine, folder: Path) -> None:
    """Check that a database can be read without `prepare`, which has to write.

    Raises:
        StoreError: It was written by another version of Stockpot, or belongs to another workspace
            folder.
    """
    with engine.connect() as connection:
        _check_usable(connection, folder)
        if not _has_all_tables(connection):
            raise StoreError(
                f"The database of {folder} has to be upgraded, but the folder is read-only. Start "
                "the app once with write access to the folder, or open a copy of it."
            )


def _is_ready(connection: Connection, folder: Path) -> bool:
    """Return whether nothing has to be prepared. Raises StoreError for an unusable database."""
    _check_usable(connection, folder)
    return _has_all_tables(connection) and (
        _read_meta(connection, "workspace") == read_id(folder) is not None
    )


def _has_all_tables(connection: Connection) -> bool:
    tables = set(inspect(connection).get_table_names())
    return tables >= Base.metadata.tables.keys() and _version(connection) == SCHEMA_VERSION


def _check_usable(connection: Connection, folder: Path) -> None:
    database = connection.engine.url.render_as_string(hide_password=True)
    version = _version(connection)
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"The database {database} has schema version {version}, and this version of Stockpot "
            f"reads versions up to {SCHEMA_VERSION}. Install a newer version of Stockpot, or set "
            "STOCKPOT_WORKSPACE to another workspace folder."
        )
    owner, workspace = _read_meta(connection, "workspace"), read_id(folder)
    is_inside = path_of(connection.engine) == folder / SQLITE_FILE
    if owner not in (None, workspace) and not (workspace is None and is_inside):
        raise StoreError(
            f"The database {database} does not belong to the workspace folder {folder}. Open the "
            f'folder whose workspace.json holds {{"id": "{owner}"}}, or use another database for '
            f"{folder}. If {folder} replaces that folder, write this line to its workspace.json."
        )


def _version(connection: Connection) -> int:
    """Return the schema version. A database without tables has the newest version."""
    known = _read_meta(connection, "schema_version")
    if known is not None:
        return int(known)
    tables = set(inspect(connection).get_table_names())
    return 1 if tables & Base.metadata.tables.keys() else SCHEMA_VERSION


def _read_meta(connection: Connection, key: str) -> str | None:
    """Return the value of `key` in the table `meta`, or None if it is not set."""
    if not inspect(connection).has_table(MetaRow.__tablename__):
        return None
    return connection.scalar(select(MetaRow.value).where(MetaRow.key == key))


def _write_meta(connection: Connection, key: str, value: str) -> None:
    """Set or replace the value of `key` in the table `meta`. Call it in `exclusively`."""
    table = Base.metadata.tables[MetaRow.__tablename__]
    connection.execute(table.delete().where(table.c.key == key))
    connection.execute(table.insert().values(key=key, value=value))


@contextmanager
def exclusively(engine: Engine) -> Iterator[Connection]:
    """Open a connection with a transaction that excludes those of all other processes."""
    if engine.dialect.name == "sqlite":
        # The driver begins a transaction only at the first change of a row, too late for DDL.
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.exec_driver_sql("ROLLBACK")
                raise
            connection.exec_driver_sql("COMMIT")
        return
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
        yield connection


class DamagedDatabaseError(StoreError):
    """The file of a database is damaged."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"The database {path} is damaged ({problem}). Stop all processes that use it and run "
            f"`python -m soupcore.maintenance repair --workspace {path.parent}`. It moves the "
            "damaged file aside and recovers every readable row."
        )


def open_database(url: str, *, read_only: bool = False) -> Engine:
    """Open a database by its URL. SQLite is set up for use by several processes at once.

    Args:
        url: URL in SQLAlchemy's format.
        read_only: Whether the database's folder is read-only.
    """
    if read_only:
        return _open_read_only(url)
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        if (path := path_of(engine)) is not None:
            create_private(path)  # SQLite would make it readable for everyone
        _use_write_ahead_log(engine)
        event.listen(engine, "handle_error", _raise_store_error)
    return engine


def _open_read_only(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name != "sqlite":
        return engine.execution_options(postgresql_readonly=True)
    path = path_of(engine)
    log = Path(f"{path}-wal")
    # SQLite creates lock files beside the database unless the database is declared immutable, and
    # it ignores the write-ahead log of an immutable database.
    options = "mode=ro" if log.exists() and log.stat().st_size else "mode=ro&immutable=1"
    engine = create_engine(f"sqlite:///file:{quote(str(path))}?{options}&uri=true")
    event.listen(engine, "handle_error", _raise_store_error)
    return engine


def path_of(engine: Engine) -> Path | None:
    """Return the file of a SQLite database; None for other databases."""
    name = engine.url.database
    if engine.dialect.name != "sqlite" or not name:
        return None
    return Path(unquote(name.removeprefix("file:"))) if name.startswith("file:") else Path(name)


def _raise_store_error(context: ExceptionContext) -> None:
    """Raise a StoreError in place of SQLite's errors about the database file."""
    error = context.original_exception
    path = path_of(context.engine) if context.engine is not None else None
    if not isinstance(error, sqlite3.Error) or path is None:
        return
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary result code
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        raise DamagedDatabaseError(path, str(error)) from error
    # If the log beside the database cannot be written, SQLite reports a general I/O error.
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and has_no_space(path)):
        raise full_disk(path) from error
    if code == sqlite3.SQLITE_READONLY:
        raise ReadOnlyError(path) from error
    if code == sqlite3.SQLITE_BUSY:
        raise StoreError(
            f"The database {path} is locked by another process and was not free within "
            f"{_PATIENCE:g} s. Try again. If it stays locked, stop the process that uses it."
        ) from error
    if code == sqlite3.SQLITE_CANTOPEN:
        raise StoreError(
            f"The database {path} cannot be opened. Check that it exists, and the permissions of "
            "the file and its folder."
        ) from error


def _use_write_ahead_log(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        _patiently(connection, "PRAGMA journal_mode=WAL")  # readers never wait for the writer
        # Survives a killed process; a power cut may lose the last transactions.
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute(f"PRAGMA busy_timeout={_PATIENCE * 1000:.0f}")


def _patiently(connection: Any, statement: str) -> None:
    # While another process switches to WAL, SQLite fails at once, regardless of the busy timeout.
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
