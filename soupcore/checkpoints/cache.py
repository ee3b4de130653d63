"""Caches in the workspace of results of reading files, one SQLite file each."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from soupcore.errors import StoreError
from soupcore.workspace import workspace_file

#: Errors of a missing or damaged workspace. Without a cache, files are read each time.
NO_CACHE = (OSError, StoreError, sqlite3.Error)


@contextmanager
def open_cache(name: str, table: str) -> Iterator[sqlite3.Connection]:
    """Open a cache for one transaction, creating it if it is missing.

    Args:
        name: Name of the file in the workspace.
        table: Its table, as in `CREATE TABLE`.

    Raises:
        OSError, StoreError, sqlite3.Error: The workspace or the file cannot be used.
    """
    # No write-ahead log: switching to it at each connection does not wait for other processes.
    with closing(sqlite3.connect(workspace_file(name), timeout=30)) as connection, connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        yield connection
