"""The tables of the store, and opening the database that they are in."""

import sqlite3
import time
from typing import Any

from sqlalchemy import JSON, BigInteger, LargeBinary, create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """All tables of the store."""


class EvaluationRow(Base):
    """One evaluation: the summary here, what was found for each example in `arrays`."""

    __tablename__ = "evaluations"

    mixture_key: Mapped[str] = mapped_column(primary_key=True)
    task_key: Mapped[str] = mapped_column(primary_key=True)
    split_digest: Mapped[str] = mapped_column(primary_key=True)
    n: Mapped[int]
    # None where it is not a number: SQLite has no NaN.
    loss: Mapped[float | None]
    score: Mapped[float | None]
    score_low: Mapped[float | None]
    score_high: Mapped[float | None]
    seconds: Mapped[float]
    has_outputs: Mapped[bool]
    # Relative to the store's folder; `#i` after it where the file holds several evaluations.
    arrays: Mapped[str]
    created: Mapped[float]


class PartRow(Base):
    """What was seen of a point that was given up: it lost against another before the end."""

    __tablename__ = "parts"

    mixture_key: Mapped[str] = mapped_column(primary_key=True)
    task_key: Mapped[str] = mapped_column(primary_key=True)
    split_digest: Mapped[str] = mapped_column(primary_key=True)
    arrays: Mapped[str]  # relative to the store's folder: `rows` and their `scores`
    created: Mapped[float]


class SoupRow(Base):
    """One soup: how it was made."""

    __tablename__ = "soups"

    id: Mapped[str] = mapped_column(primary_key=True)
    sweep: Mapped[str] = mapped_column(index=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[float]


class SoupFileRow(Base):
    """One file of a soup's weights; a soup may be written in several forms, of several files."""

    __tablename__ = "soup_files"

    soup: Mapped[str] = mapped_column(primary_key=True)
    form: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]
    nbytes: Mapped[int] = mapped_column(BigInteger)


class InnerProductRow(Base):
    """The inner products of two vectors in weight space, tensor by tensor.

    A vector is the difference of a checkpoint from the reference, known by the checkpoint's digest;
    the reference's own digest stands for its weights themselves.
    """

    __tablename__ = "inner_products"

    reference: Mapped[str] = mapped_column(primary_key=True)
    one: Mapped[str] = mapped_column(primary_key=True)  # the lower digest of the two
    other: Mapped[str] = mapped_column(primary_key=True)
    values: Mapped[bytes] = mapped_column(LargeBinary)  # float64, little-endian


def open_database(url: str) -> Engine:
    """Open a database by its URL; one of SQLite for several processes at once."""
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        _use_write_ahead_log(engine)
    return engine


def _use_write_ahead_log(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        _patiently(connection, "PRAGMA journal_mode=WAL")  # readers never wait for the writer
        connection.execute("PRAGMA synchronous=NORMAL")  # safe against kills, not power cuts
        connection.execute("PRAGMA busy_timeout=30000")


def _patiently(connection: Any, statement: str) -> None:
    # Where another process switches to the log just now, SQLite fails at once, timeout or not.
    deadline = time.monotonic() + 30
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
