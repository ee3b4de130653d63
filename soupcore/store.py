"""The store of evaluations, results, soups and inner products.

Rows are in a database (by default SQLite in the workspace), arrays beside it as safetensors files
(see `soupcore.arrays`). Rows are written in one transaction after their arrays are on disk. A
killed process therefore loses only what it had not added yet, and a power cut at most the last
transactions, which are lost as a whole. Evaluations that are added together share a file, because
a file and a transaction for each would take as long as a small network takes for the whole split.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from sqlalchemy import ColumnElement, Connection, Executable, bindparam, delete, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from soupcore.arrays import DamagedArraysError, looks_whole, read_arrays, write_arrays
from soupcore.database import (
    SQLITE_FILE,
    AnnotationRow,
    Base,
    EvaluationRow,
    InnerProductRow,
    LineRow,
    MetaRow,
    MetricIntervalRow,
    PartRow,
    ResultRow,
    SoupFileRow,
    SoupRow,
    check_readable,
    open_database,
    prepare,
)
from soupcore.errors import ReadOnlyError
from soupcore.leases import ClaimRow, Holder
from soupcore.new_files import remove_leftovers
from soupcore.workspace import is_writable, private_folder, workspace_folder

_KEYS_A_QUERY = 500
_MOST_KNOWN = 8  # groups of rows in memory: 20,000 inner products by 200 tensors take 32 MB
_Read = TypeVar("_Read")

SUMMARIES = "evaluations"  # key in the metadata of a file of arrays: its rows without `arrays`

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewEvaluation:
    """An evaluation to be stored.

    Attributes:
        mixture_key, task_key, split_digest: The point, the task and the split.
        loss, score: Means over the examples; may be NaN or infinite.
        score_interval: Confidence interval of the score; NaN where there is none.
        scores: `{metric: score}` if the task has named metrics.
        seconds: Computing time.
        arrays: Arrays with one row per example, `losses` among them.
    """

    mixture_key: str
    task_key: str
    split_digest: str
    loss: float
    score: float
    score_interval: tuple[float, float]
    seconds: float
    arrays: Mapping[str, torch.Tensor]
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return sum(array.nbytes for array in self.arrays.values())


class Store:
    """Stores evaluations, results and soups. Any number of processes may use it at once.

    Attributes:
        folder: Folder of arrays and soups.
        url: URL of the database.
        is_read_only: Whether the folder is read-only; then methods that write raise ReadOnlyError.
        notes: Messages about files found to be damaged since the store was opened.
        holder: Holds the points that this process evaluates.

    Args:
        folder: Folder of arrays and soups; by default the workspace.
        url: Database URL in SQLAlchemy's format, for example of a PostgreSQL that a team shares
            (its members must share the folder too). By default SQLite in the folder.
        read_only: Change nothing, even if the folder is writable.
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
        """Remove the unfinished files of processes that died; those of living processes stay."""
        for workspace in {self.folder, workspace_folder().resolve()}:
            for folder, _, _ in os.walk(workspace):
                remove_leftovers(Path(folder))

    def close(self) -> None:
        """Release the lease and close the database connections."""
        self.holder.leave()
        self.engine.dispose()

    def evaluations(
        self, mixture_keys: Sequence[str], task_key: str, split_digest: str
    ) -> dict[str, EvaluationRow]:
        """Return the stored evaluations of these points: `{mixture key: row}`.

        Points that have not been evaluated are omitted. Evaluations whose arrays are missing or
        truncated are deleted and omitted too.
        """
        found: dict[str, EvaluationRow] = {}
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
        files = {file_of(row) for row in found.values()}
        if damaged := {file for file in files if not looks_whole(self.folder / file)}:
            for file in sorted(damaged):
                self.forget_arrays(file)
            found = {key: row for key, row in found.items() if file_of(row) not in damaged}
        return found

    def add_evaluations(self, found: Sequence[NewEvaluation]) -> list[EvaluationRow]:
        """Store evaluations in one transaction, replacing earlier ones of the same points.

        Claims of this process on these points are released.

        Returns:
            The new rows, in the same order.
        """
        self._check_writable()
        rows = []
        for _, alike in groupby(found, key=_layout):
            together = list(alike)
            new_rows = [_row(evaluation) for evaluation in together]
            # `soupcore.maintenance` recreates the rows from these if the database is lost.
            summaries = [_summary(row) for row in new_rows]
            arrays = [evaluation.arrays for evaluation in together]
            stacked = dict(arrays[0])
            if len(arrays) > 1:
                stacked = {name: torch.stack([each[name] for each in arrays]) for name in stacked}
            file = write_arrays(self.folder, stacked, {SUMMARIES: json.dumps(summaries)})
            for index, row in enumerate(new_rows):
                row.arrays = file if len(new_rows) == 1 else f"{file}#{index}"
            rows += new_rows
        self.put_evaluations(rows)
        return rows

    def metric_intervals(
        self, mixture_keys: Sequence[str], task_key: str, split_digest: str, metric: str
    ) -> dict[str, MetricIntervalRow]:
        """Return the stored intervals by a metric other than the task's first: `{point: row}`."""
        found = {}
        with self.session() as session:
            for start in range(0, len(mixture_keys), _KEYS_A_QUERY):
                rows = session.scalars(
                    select(MetricIntervalRow).where(
                        MetricIntervalRow.mixture_key.in_(
                            mixture_keys[start : start + _KEYS_A_QUERY]
                        ),
                        MetricIntervalRow.task_key == task_key,
                        MetricIntervalRow.split_digest == split_digest,
                        MetricIntervalRow.metric == metric,
                    )
                )
                found.update({row.mixture_key: row for row in rows})
        return found

    def add_metric_intervals(self, rows: Sequence[MetricIntervalRow]) -> None:
        """Store intervals in one transaction, replacing earlier ones."""
        self.put(*rows)

    def _check_writable(self) -> None:
        if self.is_read_only:
            raise ReadOnlyError(self.folder)

    def forget_arrays(self, file: str) -> None:
        """Delete the rows of all evaluations whose arrays are in a missing or damaged file.

        Args:
            file: Path relative to the store's folder. `soupcore.maintenance` removes the file.
        """
        note = f"{file} is missing or damaged. Its evaluations will be recomputed when needed."
        logger.warning(note)
        self.notes.append(note)
        if self.is_read_only:
            return
        with self.session() as session, session.begin():
            inside = EvaluationRow.arrays.startswith(f"{file}#", autoescape=True)
            session.execute(delete(EvaluationRow).where((EvaluationRow.arrays == file) | inside))
            session.execute(delete(PartRow).where(PartRow.arrays == file))

    def part(
        self, mixture_key: str, task_key: str, split_digest: str
    ) -> dict[str, torch.Tensor] | None:
        """Return the partial evaluation of a point that was rejected early, or None.

        Returns:
            `rows`, the indices of the evaluated examples, and their `scores`, each of shape [m].
        """
        with self.session() as session:
            row = session.get(PartRow, (mixture_key, task_key, split_digest))
        if row is None:
            return None
        try:
            return read_arrays(self.folder / row.arrays)
        except DamagedArraysError:
            self.forget_arrays(row.arrays)
            return None

    def add_part(
        self,
        mixture_key: str,
        task_key: str,
        split_digest: str,
        arrays: Mapping[str, torch.Tensor],
    ) -> None:
        """Store the partial evaluation of a point that was rejected early; see `part`."""
        self._check_writable()
        file = write_arrays(self.folder, arrays, {})
        self.put(
            PartRow(
                mixture_key=mixture_key,
                task_key=task_key,
                split_digest=split_digest,
                arrays=file,
                created=time.time(),
            )
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

    def squares(self, reference: str, digests: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
        """Return the stored inner products of vectors with themselves: `{digest: by tensor}`."""
        is_square = InnerProductRow.other == InnerProductRow.one
        return {one: values for one, _, values in self._products(reference, digests, is_square)}

    def _products(
        self, reference: str, digests: Sequence[str], *which: ColumnElement[bool]
    ) -> Iterator[tuple[str, str, npt.NDArray[np.float64]]]:
        """Yield the stored inner products whose first digest is one of these."""
        # Columns and not objects of rows: 200 checkpoints have 20,000 products.
        columns = (InnerProductRow.one, InnerProductRow.other, InnerProductRow.values)
        with self.session() as session:
            for start in range(0, len(digests), _KEYS_A_QUERY):
                rows = session.execute(
                    select(*columns).where(
                        InnerProductRow.reference == reference,
                        InnerProductRow.one.in_(digests[start : start + _KEYS_A_QUERY]),
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

    def add_soup(self, soup_id: str, sweep: str, body: Mapping[str, Any]) -> None:
        """Store a soup, replacing an earlier one with the same id; it is deleted no more."""
        self.put(SoupRow(id=soup_id, sweep=sweep, body=dict(body), created=time.time()))
        with self.session() as session, session.begin():
            annotation = session.get(AnnotationRow, soup_id)
            if annotation is not None:
                annotation.deleted = None

    def annotations(self, subjects: Sequence[str]) -> list[AnnotationRow]:
        """Return the annotations of soups and ingredients; see `soupcore.annotations`."""
        found: list[AnnotationRow] = []
        with self.session() as session:
            for start in range(0, len(subjects), _KEYS_A_QUERY):
                some = subjects[start : start + _KEYS_A_QUERY]
                found += session.scalars(
                    select(AnnotationRow).where(AnnotationRow.subject.in_(some))
                )
        return found

    def put_annotation(self, row: AnnotationRow) -> None:
        """Store the annotation of a soup or an ingredient, replacing an earlier one."""
        self.put(row)

    def soup_folder(self, soup_id: str, form: str) -> Path:
        """Return the folder for a soup's weights in one form; it may not exist yet."""
        return self.folder / "soups" / soup_id / form

    def add_soup_files(self, soup_id: str, form: str, sha256s: Mapping[str, str]) -> None:
        """Register the files that hold a soup's weights in one form, replacing earlier entries.

        Args:
            soup_id: The soup's id.
            form: The form; see `soup_folder`.
            sha256s: `{name: SHA-256}` of the files in `soup_folder(soup_id, form)`.
        """
        folder = self.soup_folder(soup_id, form)
        rows = [
            SoupFileRow(
                soup=soup_id,
                form=form,
                name=name,
                sha256=sha256,
                nbytes=(folder / name).stat().st_size,
                stamp=_stamp(folder / name),
            )
            for name, sha256 in sha256s.items()
        ]
        try:
            self._replace_soup_files(soup_id, form, rows)
        except IntegrityError:  # another process inserted them after our delete
            self._replace_soup_files(soup_id, form, rows)

    def soup_files(self, soup_id: str, form: str) -> list[SoupFileRow]:
        """Return the files of a soup in one form; empty unless all of them exist and are intact.

        If a file's size or times have changed, its SHA-256 is computed again. If it differs, the
        entries of all files of this form are deleted.
        """
        with self.session() as session:
            query = (
                select(SoupFileRow)
                .where(SoupFileRow.soup == soup_id, SoupFileRow.form == form)
                .order_by(SoupFileRow.name)
            )
            rows = list(session.scalars(query))
        folder = self.soup_folder(soup_id, form)
        stamps = {row.name: _stamp(folder / row.name) for row in rows}
        if not all(stamps.values()):
            return []
        changed = [row for row in rows if row.stamp != stamps[row.name]]
        for row in changed:
            path = folder / row.name
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != row.sha256:
                self._note(f"{path} is damaged. Prepare the weights of the soup again.")
                if not self.is_read_only:
                    self._replace_soup_files(soup_id, form, [])
                return []
            row.stamp = stamps[row.name]
        if changed and not self.is_read_only:
            self.put(*changed)
        return rows

    def soup(self, soup_id: str) -> SoupRow | None:
        """Return a soup by its id, or None if there is none."""
        with self.session() as session:
            return session.get(SoupRow, soup_id)

    def soups(self, sweep: str) -> list[SoupRow]:
        """Return the soups of a sweep, oldest first."""
        with self.session() as session:
            query = select(SoupRow).where(SoupRow.sweep == sweep).order_by(SoupRow.created)
            return list(session.scalars(query))

    def remove_soup(self, soup_id: str) -> None:
        """Delete a soup, its annotation and its written weights; its evaluations stay."""
        if self.soup(soup_id) is None:
            return
        with self.session() as session, session.begin():
            session.execute(delete(AnnotationRow).where(AnnotationRow.subject == soup_id))
            session.execute(delete(SoupFileRow).where(SoupFileRow.soup == soup_id))
            session.execute(delete(SoupRow).where(SoupRow.id == soup_id))
        shutil.rmtree(self.folder / "soups" / soup_id, ignore_errors=True)

    def _replace_soup_files(self, soup_id: str, form: str, rows: Sequence[SoupFileRow]) -> None:
        with self.session() as session, session.begin():
            session.execute(
                delete(SoupFileRow).where(SoupFileRow.soup == soup_id, SoupFileRow.form == form)
            )
            for row in rows:
                session.merge(row)

    def _note(self, note: str) -> None:
        logger.warning(note)
        self.notes.append(note)

    def put(self, *rows: Base) -> None:
        """Insert rows of one table in one transaction, replacing those with the same keys."""
        self._check_writable()
        if not rows:
            return
        with self.engine.begin() as connection:
            self._insert(connection, rows)

    def _known(
        self, table: type[Base], group: str, which: Hashable, read: Callable[[], _Read]
    ) -> _Read:
        """Return rows of a group, which stay in memory until some of the group are written.

        Pages need the rows of all pairs in each run, and reading those of 200 ingredients takes
        0.1 s. Rows that an earlier version of Stockpot wrote have no version, and are always read.

        Args:
            table: The table.
            group: The value of its column in `_GROUPS`.
            which: What distinguishes these rows from others of the group.
            read: Reads them.
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
                del self._rows[next(iter(self._rows))]  # that was not used for longest
        return cast(_Read, rows)

    def put_evaluations(self, rows: Sequence[EvaluationRow]) -> None:
        """Insert rows, replacing those of the same points. Their arrays must be on disk."""
        if not rows:
            return
        with self.engine.begin() as connection:
            self._insert(connection, rows)
            if self.holder.depth:
                points = [{name: getattr(row, name) for name in _POINT} for row in rows]
                connection.execute(self._release, points)

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

    @cached_property
    def _release(self) -> Executable:
        point = [getattr(ClaimRow, name) == bindparam(name) for name in _POINT]
        return delete(ClaimRow).where(ClaimRow.holder == self.holder.name, *point)


_COLUMNS = [column.name for column in EvaluationRow.__table__.columns]
_POINT = [column.name for column in EvaluationRow.__table__.primary_key]

# The column by which rows are grouped in memory; see `Store._known`.
_GROUPS: dict[type[Base], str] = {LineRow: "measured", InnerProductRow: "reference"}


def _version_key(table: type[Base], group: str) -> str:
    return f"version of {table.__tablename__} {group}"


# The supported databases; both insert or replace rows in one statement.
INSERTS: dict[str, Callable[..., Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


def _summary(row: EvaluationRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _COLUMNS if name != "arrays"}


def file_of(row: EvaluationRow) -> str:
    """Return the file with an evaluation's arrays, relative to the store's folder."""
    return row.arrays.partition("#")[0]


def _layout(found: NewEvaluation) -> object:
    """Return a key that is equal for evaluations that can share a file."""
    shapes = [(name, array.dtype, array.shape) for name, array in found.arrays.items()]
    return found.task_key, found.split_digest, shapes


def _row(found: NewEvaluation) -> EvaluationRow:
    low, high = found.score_interval
    return EvaluationRow(
        mixture_key=found.mixture_key,
        task_key=found.task_key,
        split_digest=found.split_digest,
        n=len(found.arrays["losses"]),
        loss=found.loss if math.isfinite(found.loss) else None,
        score=found.score if math.isfinite(found.score) else None,
        score_low=None if math.isnan(low) else low,
        score_high=None if math.isnan(high) else high,
        scores={
            name: score if math.isfinite(score) else None for name, score in found.scores.items()
        }
        or None,
        seconds=found.seconds,
        has_outputs="outputs" in found.arrays,
        arrays="",
        created=time.time(),
    )


def _stamp(path: Path) -> str | None:
    """Return a string that changes when the file does, or None if the file does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
