"""Leases in the database: which processes hold which jobs and points.

A process that computes has a row with the expiry time of its lease. Times are by the database's
clock, so that the clocks of several machines need not agree. A thread renews the lease. When a
process has ended or its lease has expired, any other process may remove its row, which frees its
jobs and points. File locks are unsuitable: forks inherit them, and other machines do not see them.
"""

import logging
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Float, Select, delete, insert, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.sql.functions import FunctionElement

from soupcore.errors import StoreError
from soupcore.processes import Process
from soupcore.store.tables import Base

LEASE = 15.0  # seconds
_RENEWALS = 5  # per lease

logger = logging.getLogger(__name__)


class DatabaseTime(FunctionElement[float]):
    """Seconds since 1970 by the clock of the database."""

    type = Float()
    inherit_cache = True


@compiles(DatabaseTime, "sqlite")
def _sqlite_time(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(DatabaseTime, "postgresql")
def _postgresql_time(*_: Any, **__: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


class HolderRow(Base):
    """A process that may hold jobs and points."""

    __tablename__ = "holders"

    name: Mapped[str] = mapped_column(primary_key=True)
    lease_until: Mapped[float]  # by `DatabaseTime`
    machine: Mapped[str]
    pid: Mapped[int]
    started: Mapped[str]
    is_worker: Mapped[bool]  # may be killed, since it only runs jobs

    @property
    def process(self) -> Process:
        """The process."""
        return Process(self.machine, self.pid, self.started)


class ClaimRow(Base):
    """A point that a process is evaluating."""

    __tablename__ = "claims"

    mixture_key: Mapped[str] = mapped_column(primary_key=True)
    task_key: Mapped[str] = mapped_column(primary_key=True)
    split_digest: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[str] = mapped_column(index=True)


class Holder:
    """This process as a holder of jobs or points. Its lease is renewed while `held` is open.

    Args:
        engine: The database.
        name: Its name; random by default.
        is_worker: Whether other processes may kill this one once its lease has expired.
        lease: Duration of a lease after each renewal, in seconds.
    """

    def __init__(
        self,
        engine: Engine,
        name: str | None = None,
        *,
        is_worker: bool = False,
        lease: float = LEASE,
    ) -> None:
        self.name = name or uuid.uuid4().hex
        self._engine = engine
        self._is_worker = is_worker
        self._lease = lease
        self._process = Process.current()
        self._mutex = threading.Lock()
        self._depth = 0
        self._renewed = -float("inf")  # by the monotonic clock
        self._thread: threading.Thread | None = None
        self._left = threading.Event()

    @property
    def depth(self) -> int:
        """Number of nested `held` contexts that are open."""
        return self._depth

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold a lease while the context is open."""
        with self._mutex:
            if time.monotonic() - self._renewed > self._lease / _RENEWALS:
                self._renew()
            self._depth += 1
            if self._thread is None:
                self._left = threading.Event()
                self._thread = threading.Thread(
                    target=self._keep, args=(self._left,), name="lease", daemon=True
                )
                self._thread.start()
        try:
            yield
        finally:
            with self._mutex:
                self._depth -= 1

    def leave(self) -> None:
        """Release the lease and everything held by it."""
        with self._mutex:
            self._left.set()
            self._thread = None
            if self._renewed > 0:
                with self._engine.begin() as connection:
                    _remove(connection, self.name)
                self._renewed = -float("inf")

    def _keep(self, left: threading.Event) -> None:
        while not left.wait(self._lease / _RENEWALS):
            with self._mutex:
                if left.is_set():
                    return
                if not self._depth:
                    self._thread = None
                    return
                try:
                    self._renew()
                except (SQLAlchemyError, StoreError):
                    # The database may come back before the lease runs out.
                    logger.warning("The lease could not be renewed.", exc_info=True)

    def _renew(self) -> None:
        until = DatabaseTime() + self._lease
        mine = HolderRow.name == self.name
        with self._engine.begin() as connection:
            renewed = connection.execute(update(HolderRow).where(mine).values(lease_until=until))
            if not renewed.rowcount:  # the first lease, or another process removed an expired one
                row = {
                    "name": self.name,
                    "machine": self._process.machine,
                    "pid": self._process.pid,
                    "started": self._process.started,
                    "is_worker": self._is_worker,
                }
                connection.execute(insert(HolderRow).values(lease_until=until, **row))
        self._renewed = time.monotonic()


def alive() -> Select[str]:
    """Return a query for the names of the holders with a valid lease."""
    return select(HolderRow.name).where(HolderRow.lease_until > DatabaseTime())


def remove_dead(
    engine: Engine, *, by_lease: bool = True, own: Collection[str] = frozenset()
) -> None:
    """Remove the processes that have ended or whose lease has expired, and their claims.

    Workers of this machine whose lease has expired are also killed: they hang or are suspended,
    and their results would not be accepted.

    Args:
        engine: The database.
        by_lease: Whether to remove processes with expired leases. Pass False if this machine was
            just suspended, as all its leases have expired then.
        own: Names of the caller's child processes. The caller notices their end itself, with the
            exit code, so they are removed only when their lease expires.
    """
    with Session(engine) as session:
        rows = session.execute(select(HolderRow, HolderRow.lease_until < DatabaseTime())).all()
    for row, has_expired in rows:
        has_ended = row.name not in own and row.process.has_ended
        if has_ended or (has_expired and by_lease):
            with engine.begin() as connection:
                removed = _remove(connection, row.name, row.lease_until)
            if removed and row.is_worker:
                row.process.kill()


def remove(engine: Engine, name: str) -> bool:
    """Remove a process that has ended, and its claims. Returns False if it was removed before."""
    with engine.begin() as connection:
        return _remove(connection, name)


def _remove(connection: Connection, name: str, lease_until: float | None = None) -> bool:
    """Remove a holder, unless it has renewed its lease since `lease_until` was read."""
    seen = HolderRow.name == name
    if lease_until is not None:
        seen &= HolderRow.lease_until == lease_until
    removed = connection.execute(delete(HolderRow).where(seen)).rowcount > 0
    if removed:
        connection.execute(delete(ClaimRow).where(ClaimRow.holder == name))
    return removed
