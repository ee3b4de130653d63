"""What was computed and built: every evaluation once, every soup, every inner product.

Rows live in a database (SQLite in the workspace unless told otherwise), arrays beside it as
safetensors files (see `soupcore.arrays`). Rows are written in one transaction once their arrays are
on disk, so a process that is killed loses only what it had not handed over yet, and a power cut at
most the last transactions, never half of one. Evaluations that are handed over together share a
file, because a file and a transaction for each take as long as a small network takes to see all
examples.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sqlalchemy import Executable, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from soupcore.arrays import DamagedArraysError, looks_whole, read_arrays, write_arrays
from soupcore.database import (
    SQLITE_FILE,
    Base,
    EvaluationRow,
    InnerProductRow,
    LineRow,
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

SUMMARIES = "evaluations"  # in the metadata of a file of arrays: its rows, but for their place

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewEvaluation:
    """What is handed over to be remembered of one evaluation.

    Attributes:
        mixture_key, task_key, split_digest: What was evaluated.
        loss, score: Means over the examples; NaN or infinite where they are not finite.
        score_interval: Confidence interval of the score.
        scores: `{metric: score}` where the task names metrics.
        seconds: What it took to compute.
        arrays: What was found for each example, one a row; `losses` among them.
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
        """Size of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


class Store:
    """The memory of Stockpot. Any number of processes may read and write it at once.

    Attributes:
        folder: Where arrays and soups are kept.
        url: The database.
        is_read_only: Whether the folder cannot be written; then nothing new is remembered, and
            what would be raises ReadOnlyError.
        notes: What was found damaged since this store was opened, in words.
        holder: Who holds the points that this process evaluates.

    Args:
        folder: Where arrays and soups are kept; the workspace unless given.
        url: Database URL as SQLAlchemy takes it, so that a team can share a PostgreSQL; SQLite
            in the folder unless given. The folder has to be shared then too.
        read_only: Change nothing, even where that is possible.
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
        self.prepare()

    def prepare(self) -> None:
        """Create the tables that are missing, of modules imported later too, or upgrade them."""
        if self.is_read_only:
            check_readable(self.engine, self.folder)
        else:
            prepare(self.engine, self.folder)

    def session(self) -> Session:
        """Open a session whose rows stay readable after it is closed."""
        return Session(self.engine, expire_on_commit=False)

    def remove_leftovers(self) -> None:
        """Remove what processes left in the workspace that died while they wrote a file.

        What a living process writes stays.
        """
        for workspace in {self.folder, workspace_folder().resolve()}:
            for folder, _, _ in os.walk(workspace):
                remove_leftovers(Path(folder))

    def close(self) -> None:
        """Give up what is held, and close the database connections."""
        self.holder.leave()
        self.engine.dispose()

    def evaluations(
        self, mixture_keys: Sequence[str], task_key: str, split_digest: str
    ) -> dict[str, EvaluationRow]:
        """Return what is known of these points: `{mixture key: row}`, absent where unknown.

        A point whose arrays are missing or truncated is not known any more.
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
        """Remember evaluations, in place of earlier ones of the same points, all or none.

        A point that this process has claimed is free again with that.

        Returns:
            Their rows, in the same order.
        """
        self._check_writable()
        rows = []
        for _, alike in groupby(found, key=_layout):
            together = list(alike)
            new_rows = [_row(evaluation) for evaluation in together]
            # With these, `soupcore.maintenance` makes the rows again if the database is lost.
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

    def _check_writable(self) -> None:
        if self.is_read_only:
            raise ReadOnlyError(self.folder)

    def forget_arrays(self, file: str) -> None:
        """Forget all evaluations whose arrays are in a file, because it is missing or damaged.

        Args:
            file: Relative to the store's folder. It stays, for `soupcore.maintenance` to remove.
        """
        note = (
            f"{file} is missing or damaged. The evaluations in it are computed again when needed."
        )
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
        """Return what was seen of a point that was given up, if it was.

        Returns:
            `rows`, the examples seen, and their `scores`, each of shape [m].
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
        """Remember what was seen of a point that was given up; see `part`."""
        self._check_writable()
        file = write_arrays(self.folder, arrays, {})
        self._put(
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

    def result(self, key: str) -> ResultRow | None:
        """Return what a computation found; None where nothing is known of it."""
        with self.session() as session:
            return session.get(ResultRow, key)

    def add_result(
        self, key: str, kind: str, body: Mapping[str, Any], *, settled: bool = True
    ) -> None:
        """Remember what a computation found, in place of what was known before.

        Args:
            key: Identity of all that it depends on.
            kind: Which computation.
            body: What it found, as JSON.
            settled: Whether it is complete.
        """
        self._put(
            ResultRow(key=key, kind=kind, body=dict(body), settled=settled, created=time.time())
        )

    def lines(self, measured: str) -> list[tuple[str, str, bool, bytes]]:
        """Return what is known of lines: start, end, whether it is settled, and the values.

        Args:
            measured: Identity of the task, the split and the α (see `add_lines`).
        """
        columns = (LineRow.start, LineRow.end, LineRow.settled, LineRow.values)
        with self.session() as session:
            rows = session.execute(select(*columns).where(LineRow.measured == measured))
            return [(start, end, settled, values) for start, end, settled, values in rows]

    def add_lines(self, measured: str, lines: Mapping[tuple[str, str], tuple[bool, bytes]]) -> None:
        """Remember what is known of lines, in place of what was known before, all or none.

        Args:
            measured: Identity of the task, the split and the α.
            lines: `{(start, end): (whether it is settled, values)}` by the keys of the points.
        """
        self._check_writable()
        if not lines:
            return
        insert = INSERTS.get(self.engine.dialect.name)
        rows = [
            {"measured": measured, "start": a, "end": b, "settled": settled, "values": values}
            for (a, b), (settled, values) in sorted(lines.items())
        ]
        if insert is None:
            self._put(*(LineRow(**row) for row in rows))
            return
        statement = insert(LineRow)
        excluded = statement.excluded
        upsert = statement.on_conflict_do_update(
            index_elements=["measured", "start", "end"],
            set_={"settled": excluded["settled"], "values": excluded["values"]},
        )
        with self.engine.begin() as connection:
            connection.execute(upsert, rows)

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
        except IntegrityError:  # another process did the same between our delete and our insert
            self._replace_soup_files(soup_id, form, rows)

    def soup_files(self, soup_id: str, form: str) -> list[SoupFileRow]:
        """Return the files of a soup in a form; empty unless all of them are there, in full.

        Their SHA-256 is computed again if a file changed since that was last done. Files that
        turn out to be others than were written are forgotten.
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
            self._put(*changed)
        return rows

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

    def _put(self, *rows: Base) -> None:
        try:
            self._merge(rows)
        except IntegrityError:  # another process put the same key between our look and our insert
            self._merge(rows)

    def _merge(self, rows: Sequence[Base]) -> None:
        with self.session() as session, session.begin():
            for row in rows:
                session.merge(row)

    def put_evaluations(self, rows: Sequence[EvaluationRow]) -> None:
        """Put rows in place of those of the same points; their arrays are on disk."""
        if self._upsert is None:
            for row in rows:
                self._put(row)
            return
        values = [{name: getattr(row, name) for name in _COLUMNS} for row in rows]
        # In one order in all processes, or two of them might wait for each other.
        values.sort(key=itemgetter("mixture_key"))
        with self.engine.begin() as connection:
            connection.execute(self._upsert, values)
            if self.holder.depth:
                connection.execute(self._release, [{k: v[k] for k in _POINT} for v in values])

    @cached_property
    def _upsert(self) -> Executable | None:
        """The statement that puts evaluations in place of earlier ones; None without such a one."""
        insert = INSERTS.get(self.engine.dialect.name)
        if insert is None:
            return None
        statement = insert(EvaluationRow)
        others = {name: statement.excluded[name] for name in _COLUMNS if name not in _POINT}
        upsert: Executable = statement.on_conflict_do_update(index_elements=_POINT, set_=others)
        return upsert

    @cached_property
    def _release(self) -> Executable:
        point = [getattr(ClaimRow, name) == bindparam(name) for name in _POINT]
        return delete(ClaimRow).where(ClaimRow.holder == self.holder.name, *point)


_COLUMNS = [column.name for column in EvaluationRow.__table__.columns]
_POINT = [column.name for column in EvaluationRow.__table__.primary_key]

# The databases that put a row in place of another in one statement.
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
    """Return what evaluations have in common that can share a file."""
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
    """Return what changes when a file does; None if there is no such file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
