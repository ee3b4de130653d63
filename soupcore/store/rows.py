"""Rows of the store: the connection to the database, and results that need no files."""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Connection, func, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from soupcore.errors import ReadOnlyError
from soupcore.new_files import remove_leftovers
from soupcore.store.database import SQLITE_FILE, check_readable, open_database, prepare
from soupcore.store.leases import Holder
from soupcore.store.tables import Base, InnerProductRow, LineRow, MetaRow, ResultRow
from soupcore.workspace import is_writable, private_folder, workspace_folder

_KEYS_A_QUERY = 500
_MOST_KNOWN = 8  # groups of rows in memory: 20,000 inner products by 200 tensors take 32 MB
_Read = TypeVar("_Read")

# The column by which rows are grouped in memory; see `RowStore._known`.
_GROUPS: dict[type[Base], str] = {LineRow: "measured", InnerProductRow: "reference"}

# The supported databases; both insert or replace rows in one statement.
INSERTS: dict[str, Callable[..., Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}

logger = logging.getLogger(__name__)


class RowStore:
    """The part of a `Store` that needs no files: rows of any table, results, lines and products.

    See `Store` for its attributes and arguments.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        url: str | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self.folder = Path(folder or workspace_folder()).resolve()
        self.url = url or f"sqlite:///{self.folder / SQLITE_FILE}"
        self.notes: list[str] = []
        self.is_read_only = read_only or any(
            path.exists() and not is_writable(path)
            for path in (self.folder, self.folder / SQLITE_FILE)
        )
        if not self.is_read_only:
            for folder in (self.folder, self.folder / "arrays", self.folder / "soups"):
                private_folder(folder)
        self.engine = open_database(self.url, read_only=self.is_read_only)
        self.holder = Holder(self.engine)
        self._rows: dict[tuple[str, Hashable], tuple[str, object]] = {}
        self._reading = threading.Lock()
        self.prepare()

    def prepare(self) -> None:
        """Create missing tables, also those of modules imported since, and upgrade old ones."""
        if self.is_read_only:
            check_readable(self.engine, self.folder)
        else:
            prepare(self.engine, self.folder)

    def session(self) -> Session:
        """Open a session whose rows stay readable after it is closed."""
        return Session(self.engine, expire_on_commit=False)

    def remove_leftovers(self) -> None:
        """Remove the unfinished files of processes that have ended."""
        for workspace in {self.folder, workspace_folder().resolve()}:
            for folder, _, _ in os.walk(workspace):
                remove_leftovers(Path(folder))

    def close(self) -> None:
        """Release the lease and close the database connections."""
        self.holder.leave()
        self.engine.dispose()

    def result(self, key: str) -> ResultRow | None:
        """Return the result of a computation, or None if there is none."""
        with self.session() as session:
            return session.get(ResultRow, key)

    def add_result(
        self, key: str, kind: str, body: Mapping[str, Any], *, settled: bool = True
    ) -> None:
        """Store the result of a computation, replacing an earlier one.

        Args:
            key: Digest of everything that the result depends on.
            kind: Name of the computation.
            body: The result, as JSON.
            settled: Whether the result is complete.
        """
        self.put(
            ResultRow(key=key, kind=kind, body=dict(body), settled=settled, created=time.time())
        )

    def lines(self, measured: str) -> Sequence[tuple[str, str, bool, bytes]]:
        """Return the stored lines as (start, end, whether it is settled, values).

        Args:
            measured: Digest of task, split and α values (see `add_lines`).
        """
        columns = (LineRow.start, LineRow.end, LineRow.settled, LineRow.values)
        query = select(*columns).where(LineRow.measured == measured)

        def read() -> list[tuple[str, str, bool, bytes]]:
            with self.session() as session:
                rows = session.execute(query)
                return [(start, end, settled, values) for start, end, settled, values in rows]

        return self._known(LineRow, measured, (), read)

    def add_lines(self, measured: str, lines: Mapping[tuple[str, str], tuple[bool, bytes]]) -> None:
        """Store lines in one transaction, replacing earlier values of the same lines.

        Args:
            measured: Digest of task, split and α values.
            lines: `{(start, end): (whether it is settled, values)}`, where start and end are the
                keys of the points.
        """
        self.put(
            *(
                LineRow(measured=measured, start=start, end=end, settled=settled, values=values)
                for (start, end), (settled, values) in lines.items()
            ),
        )

    def inner_products(
        self, reference: str, digests: Sequence[str]
    ) -> Mapping[tuple[str, str], npt.NDArray[np.float64]]:
        """Return the stored inner products: `{(lower digest, higher digest): by tensor}`."""
        wanted = set(digests)
        return self._known(
            InnerProductRow,
            reference,
            tuple(digests),
            lambda: {
                (one, other): values
                for one, other, values in self._products(reference, digests)
                if other in wanted
            },
        )

    def count_inner_products(self, reference: str, digests: Sequence[str]) -> int:
        """Return the number of stored inner products between these vectors; reads no values."""
        count = select(func.count()).where(
            InnerProductRow.reference == reference, InnerProductRow.other.in_(digests)
        )
        with self.session() as session:
            counts = (count.where(InnerProductRow.one.in_(some)) for some in batches(digests))
            return sum(session.scalar(each) or 0 for each in counts)

    def squares(self, reference: str, digests: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
        """Return the stored inner products of vectors with themselves: `{digest: by tensor}`."""
        is_square = InnerProductRow.other == InnerProductRow.one
        return {one: values for one, _, values in self._products(reference, digests, is_square)}

    def _products(
        self, reference: str, digests: Sequence[str], *which: ColumnElement[bool]
    ) -> Iterator[tuple[str, str, npt.NDArray[np.float64]]]:
        """Yield the stored inner products whose first digest is one of these."""
        # Columns, since 200 checkpoints have 20,000 products and objects of rows would be slow.
        columns = (InnerProductRow.one, InnerProductRow.other, InnerProductRow.values)
        with self.session() as session:
            for some in batches(digests):
                rows = session.execute(
                    select(*columns).where(
                        InnerProductRow.reference == reference,
                        InnerProductRow.one.in_(some),
                        *which,
                    )
                )
                for one, other, values in rows:
                    yield one, other, np.frombuffer(values, dtype="<f8")

    def add_inner_products(
        self, reference: str, values: Mapping[tuple[str, str], npt.NDArray[np.float64]]
    ) -> None:
        """Store inner products in one transaction, keyed as `inner_products` returns them."""
        self.put(
            *(
                InnerProductRow(
                    reference=reference, one=one, other=other, values=array.astype("<f8").tobytes()
                )
                for (one, other), array in values.items()
            ),
        )

    def put(self, *rows: Base) -> None:
        """Insert rows of one table in one transaction, replacing those with the same keys.

        Raises:
            ReadOnlyError: The store is read-only.
        """
        self._check_writable()
        if not rows:
            return
        with self.engine.begin() as connection:
            self._insert(connection, rows)

    def _known(
        self, table: type[Base], group: str, which: Hashable, read: Callable[[], _Read]
    ) -> _Read:
        """Return rows of a group from memory, or read them if some of the group were written.

        Pages need the rows of all pairs in each run, and reading those of 200 ingredients takes
        0.1 s. Rows that an earlier version of Stockpot wrote have no version, and are always read.

        Args:
            table: The table.
            group: The value of its column in `_GROUPS`.
            which: Distinguishes these rows from others of the group.
            read: Reads the rows from the database.
        """
        key = _version_key(table, group)
        with self.session() as session:
            version = session.scalar(select(MetaRow.value).where(MetaRow.key == key))
        if version is None:
            return read()
        with self._reading:
            known, rows = self._rows.pop((key, which), (None, None))
            if known != version:
                rows = read()
            self._rows[key, which] = version, rows
            while len(self._rows) > _MOST_KNOWN:
                del self._rows[next(iter(self._rows))]  # the least recently used
        return cast(_Read, rows)

    def _insert(self, connection: Connection, rows: Sequence[Base]) -> None:
        # One statement for all rows: merging 20,000 objects would lock the database for a minute.
        table = inspect(type(rows[0])).local_table
        keys = [column.name for column in table.primary_key]
        names = [column.name for column in table.columns if column.name in rows[0].__dict__]
        values = [{name: getattr(row, name) for name in names} for row in rows]
        # All processes use the same order, since different ones could deadlock.
        values.sort(key=itemgetter(*keys))
        statement = INSERTS[self.engine.dialect.name](table)
        others = {name: statement.excluded[name] for name in names if name not in keys}
        connection.execute(
            statement.on_conflict_do_update(index_elements=keys, set_=others), values
        )
        model = type(rows[0])
        if (column := _GROUPS.get(model)) is not None:
            versions = [
                MetaRow(key=_version_key(model, group), value=uuid.uuid4().hex)
                for group in sorted({getattr(row, column) for row in rows})
            ]
            self._insert(connection, versions)

    def _check_writable(self) -> None:
        if self.is_read_only:
            raise ReadOnlyError(self.folder)

    def _note(self, note: str) -> None:
        logger.warning(note)
        self.notes.append(note)


def batches(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the keys in batches of as many as one query takes."""
    for start in range(0, len(keys), _KEYS_A_QUERY):
        yield keys[start : start + _KEYS_A_QUERY]


def _version_key(table: type[Base], group: str) -> str:
    return f"version of {table.__tablename__} {group}"
