"""What was computed and built: every evaluation once, every soup, every inner product.

Rows live in a database (SQLite in the workspace unless told otherwise), arrays beside it as
safetensors files. A row is written after its arrays are in place, in a transaction of its own, so
a process that is killed loses only the evaluation it was in.
"""

import hashlib
import math
import os
import shutil
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save
from sqlalchemy import (
    JSON,
    BigInteger,
    LargeBinary,
    MetaData,
    create_engine,
    delete,
    event,
    select,
)
from sqlalchemy.engine import Engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.schema import CreateTable

from soupcore.new_files import new_file, remove_leftovers
from soupcore.workspace import workspace_folder

_KEYS_A_QUERY = 500


class _Base(DeclarativeBase):
    pass


class EvaluationRow(_Base):
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
    arrays: Mapped[str]  # relative to the store's folder
    created: Mapped[float]


class SoupRow(_Base):
    """One soup: how it was made."""

    __tablename__ = "soups"

    id: Mapped[str] = mapped_column(primary_key=True)
    sweep: Mapped[str] = mapped_column(index=True)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[float]


class SoupFileRow(_Base):
    """One file of a soup's weights; a soup may be written in several forms, of several files."""

    __tablename__ = "soup_files"

    soup: Mapped[str] = mapped_column(primary_key=True)
    form: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]
    nbytes: Mapped[int] = mapped_column(BigInteger)


class InnerProductRow(_Base):
    """The inner products of two vectors in weight space, tensor by tensor.

    A vector is the difference of a checkpoint from the reference, known by the checkpoint's digest;
    the reference's own digest stands for its weights themselves.
    """

    __tablename__ = "inner_products"

    reference: Mapped[str] = mapped_column(primary_key=True)
    one: Mapped[str] = mapped_column(primary_key=True)  # the lower digest of the two
    other: Mapped[str] = mapped_column(primary_key=True)
    values: Mapped[bytes] = mapped_column(LargeBinary)  # float64, little-endian


class Store:
    """The memory of Stockpot. Any number of processes may read and write it at once.

    Args:
        folder: Where arrays and soups are kept; the workspace unless given.
        url: Database URL as SQLAlchemy takes it, so that a team can share a PostgreSQL; SQLite
            in the folder unless given. The folder has to be shared then too.
    """

    def __init__(self, folder: str | Path | None = None, url: str | None = None) -> None:
        self.folder = Path(folder or workspace_folder()).resolve()
        self.url = url or f"sqlite:///{self.folder / 'stockpot.sqlite'}"
        (self.folder / "arrays").mkdir(parents=True, exist_ok=True)
        (self.folder / "soups").mkdir(exist_ok=True)
        self.engine = create_engine(self.url)
        if self.engine.dialect.name == "sqlite":
            _use_write_ahead_log(self.engine)
        self.create_tables(_Base.metadata)

    def create_tables(self, metadata: MetaData) -> None:
        """Create the tables that are not there yet; several processes may do so at once."""
        with self.engine.begin() as connection:
            for table in metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))

    def session(self) -> Session:
        """Open a session whose rows stay readable after it is closed."""
        return Session(self.engine, expire_on_commit=False)

    def remove_leftovers(self) -> None:
        """Remove what processes left in the folder that died while they wrote a file."""
        for part in ("arrays", "soups"):
            for folder, _, _ in os.walk(self.folder / part):
                remove_leftovers(Path(folder))

    def close(self) -> None:
        """Close the database connections."""
        self.engine.dispose()

    def evaluations(
        self, mixture_keys: Sequence[str], task_key: str, split_digest: str
    ) -> dict[str, EvaluationRow]:
        """Return what is known of these points: `{mixture key: row}`, absent where unknown."""
        found = {}
        with self.session() as session:
            for start in range(0, len(mixture_keys), _KEYS_A_QUERY):
                keys = mixture_keys[start : start + _KEYS_A_QUERY]
                rows = session.scalars(
                    select(EvaluationRow).where(
                        EvaluationRow.mixture_key.in_(keys),
                        EvaluationRow.task_key == task_key,
                        EvaluationRow.split_digest == split_digest,
                    )
                )
                found.update({row.mixture_key: row for row in rows})
        return found

    def add_evaluation(
        self,
        mixture_key: str,
        task_key: str,
        split_digest: str,
        *,
        loss: float,
        score: float,
        score_interval: tuple[float, float],
        seconds: float,
        arrays: Mapping[str, torch.Tensor],
    ) -> EvaluationRow:
        """Remember an evaluation, in place of an earlier one of the same point."""
        name = hashlib.sha256(f"{mixture_key} {task_key} {split_digest}".encode()).hexdigest()
        # A row and its file are two writes; the name keeps them of one kind where two processes
        # evaluate the same point, one with outputs and one without.
        kind = "full" if "outputs" in arrays else "brief"
        relative = Path("arrays") / name[:2] / f"{name[2:34]}-{kind}.safetensors"
        target = self.folder / relative
        target.parent.mkdir(exist_ok=True)
        with new_file(target, durable=False) as file:
            file.write(save(dict(arrays)))
        row = EvaluationRow(
            mixture_key=mixture_key,
            task_key=task_key,
            split_digest=split_digest,
            n=len(arrays["losses"]),
            loss=loss if math.isfinite(loss) else None,
            score=score if math.isfinite(score) else None,
            score_low=None if math.isnan(score_interval[0]) else score_interval[0],
            score_high=None if math.isnan(score_interval[1]) else score_interval[1],
            seconds=seconds,
            has_outputs="outputs" in arrays,
            arrays=str(relative),
            created=time.time(),
        )
        self._put(row)
        return row

    def inner_products(
        self, reference: str, digests: Sequence[str]
    ) -> dict[tuple[str, str], npt.NDArray[np.float64]]:
        """Return what is known between vectors: `{(lower digest, higher digest): by tensor}`."""
        wanted = set(digests)
        found = {}
        with self.session() as session:
            for start in range(0, len(digests), _KEYS_A_QUERY):
                rows = session.scalars(
                    select(InnerProductRow).where(
                        InnerProductRow.reference == reference,
                        InnerProductRow.one.in_(digests[start : start + _KEYS_A_QUERY]),
                    )
                )
                found.update(
                    {
                        (row.one, row.other): np.frombuffer(row.values, dtype="<f8")
                        for row in rows
                        if row.other in wanted
                    }
                )
        return found

    def add_inner_products(
        self, reference: str, values: Mapping[tuple[str, str], npt.NDArray[np.float64]]
    ) -> None:
        """Remember inner products, keyed as `inner_products` returns them, all or none."""
        self._put(
            *(
                InnerProductRow(
                    reference=reference, one=one, other=other, values=array.astype("<f8").tobytes()
                )
                for (one, other), array in values.items()
            )
        )

    def add_soup(self, soup_id: str, sweep: str, body: Mapping[str, Any]) -> None:
        """Remember a soup, in place of an earlier one made in the same way."""
        self._put(SoupRow(id=soup_id, sweep=sweep, body=dict(body), created=time.time()))

    def soup_folder(self, soup_id: str, form: str) -> Path:
        """Return where a soup's weights are, or will be, in one form."""
        return self.folder / "soups" / soup_id / form

    def add_soup_files(self, soup_id: str, form: str, sha256s: Mapping[str, str]) -> None:
        """Remember that a soup's weights were written in a form, in place of what was before.

        Args:
            soup_id: The soup.
            form: Which form, as `soup_folder` takes it.
            sha256s: `{name: SHA-256}` of the files in the folder of soup and form.
        """
        folder = self.soup_folder(soup_id, form)
        sizes = {name: (folder / name).stat().st_size for name in sha256s}
        try:
            self._replace_soup_files(soup_id, form, sha256s, sizes)
        except IntegrityError:  # another process did the same between our delete and our insert
            self._replace_soup_files(soup_id, form, sha256s, sizes)

    def soup_files(self, soup_id: str, form: str) -> list[SoupFileRow]:
        """Return the files of a soup in a form; empty unless all of them are there, in full."""
        with self.session() as session:
            query = (
                select(SoupFileRow)
                .where(SoupFileRow.soup == soup_id, SoupFileRow.form == form)
                .order_by(SoupFileRow.name)
            )
            rows = list(session.scalars(query))
        folder = self.soup_folder(soup_id, form)
        whole = all(_size(folder / row.name) == row.nbytes for row in rows)
        return rows if whole else []

    def soup(self, soup_id: str) -> SoupRow | None:
        """Return a soup by its id."""
        with self.session() as session:
            return session.get(SoupRow, soup_id)

    def soups(self, sweep: str) -> list[SoupRow]:
        """Return the soups of a sweep, oldest first."""
        with self.session() as session:
            query = select(SoupRow).where(SoupRow.sweep == sweep).order_by(SoupRow.created)
            return list(session.scalars(query))

    def remove_soup(self, soup_id: str) -> None:
        """Forget a soup and delete its written weights; its evaluations stay."""
        if self.soup(soup_id) is None:
            return
        with self.session() as session, session.begin():
            session.execute(delete(SoupFileRow).where(SoupFileRow.soup == soup_id))
            session.execute(delete(SoupRow).where(SoupRow.id == soup_id))
        shutil.rmtree(self.folder / "soups" / soup_id, ignore_errors=True)

    def _replace_soup_files(
        self, soup_id: str, form: str, sha256s: Mapping[str, str], sizes: Mapping[str, int]
    ) -> None:
        with self.session() as session, session.begin():
            session.execute(
                delete(SoupFileRow).where(SoupFileRow.soup == soup_id, SoupFileRow.form == form)
            )
            session.add_all(
                SoupFileRow(soup=soup_id, form=form, name=name, sha256=sha256, nbytes=sizes[name])
                for name, sha256 in sha256s.items()
            )

    def _put(self, *rows: _Base) -> None:
        try:
            self._merge(rows)
        except IntegrityError:  # another process put the same key between our look and our insert
            self._merge(rows)

    def _merge(self, rows: Sequence[_Base]) -> None:
        with self.session() as session, session.begin():
            for row in rows:
                session.merge(row)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


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
