"""What was computed and built: every evaluation once, every soup, every inner product.

Rows live in a database (SQLite in the workspace unless told otherwise), arrays beside it as
safetensors files. Rows are written after their arrays are in place, in one transaction, so a
process that is killed loses only what it had not handed over yet. Evaluations that are handed over
together share a file, because a file and a transaction for each take as long as a small network
takes to see all examples.
"""

import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save
from sqlalchemy import Executable, MetaData, delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

from soupcore.database import (
    Base,
    EvaluationRow,
    InnerProductRow,
    PartRow,
    SoupFileRow,
    SoupRow,
    open_database,
)
from soupcore.new_files import new_file, remove_leftovers
from soupcore.workspace import workspace_folder

_KEYS_A_QUERY = 500


@dataclass(frozen=True)
class NewEvaluation:
    """What is handed over to be remembered of one evaluation.

    Attributes:
        mixture_key, task_key, split_digest: What was evaluated.
        loss, score: Means over the examples; NaN or infinite where they are not finite.
        score_interval: Confidence interval of the score.
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

    @property
    def nbytes(self) -> int:
        """Size of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


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
        self.engine = open_database(self.url)
        self.create_tables(Base.metadata)

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

    def add_evaluations(self, found: Sequence[NewEvaluation]) -> list[EvaluationRow]:
        """Remember evaluations, in place of earlier ones of the same points, all or none.

        Returns:
            Their rows, in the same order.
        """
        rows = []
        for _, alike in groupby(found, key=_layout):
            together = list(alike)
            file = self._write_together(together)
            for index, evaluation in enumerate(together):
                place = file if len(together) == 1 else f"{file}#{index}"
                rows.append(_row(evaluation, place))
        self._put_all(rows)
        return rows

    def _write_together(self, found: Sequence[NewEvaluation]) -> str:
        names = " ".join(f"{e.mixture_key} {e.task_key} {e.split_digest}" for e in found)
        # Rows and their file are two writes; the name keeps them of one kind where two processes
        # evaluate the same points, one with outputs and one without.
        kind = "full" if "outputs" in found[0].arrays else "brief"
        arrays = [evaluation.arrays for evaluation in found]
        if len(arrays) == 1:
            return self._write_arrays(names, kind, arrays[0])
        together = {name: torch.stack([each[name] for each in arrays]) for name in arrays[0]}
        return self._write_arrays(names, kind, together)

    def _write_arrays(self, names: str, kind: str, arrays: Mapping[str, torch.Tensor]) -> str:
        name = hashlib.sha256(names.encode()).hexdigest()
        relative = Path("arrays") / name[:2] / f"{name[2:34]}-{kind}.safetensors"
        target = self.folder / relative
        target.parent.mkdir(exist_ok=True)
        with new_file(target, durable=False) as file:
            file.write(save(dict(arrays)))
        return str(relative)

    def part(
        self, mixture_key: str, task_key: str, split_digest: str
    ) -> dict[str, torch.Tensor] | None:
        """Return what was seen of a point that was given up, if it was.

        Returns:
            `rows`, the examples seen, and their `scores`, each of shape [m].
        """
        with self.session() as session:
            row = session.get(PartRow, (mixture_key, task_key, split_digest))
        return load_file(self.folder / row.arrays) if row else None

    def add_part(
        self,
        mixture_key: str,
        task_key: str,
        split_digest: str,
        arrays: Mapping[str, torch.Tensor],
    ) -> None:
        """Remember what was seen of a point that was given up; see `part`."""
        file = self._write_arrays(f"{mixture_key} {task_key} {split_digest}", "part", arrays)
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

    def _put(self, *rows: Base) -> None:
        try:
            self._merge(rows)
        except IntegrityError:  # another process put the same key between our look and our insert
            self._merge(rows)

    def _merge(self, rows: Sequence[Base]) -> None:
        with self.session() as session, session.begin():
            for row in rows:
                session.merge(row)

    def _put_all(self, rows: Sequence[EvaluationRow]) -> None:
        if self._upsert is None:
            for row in rows:
                self._put(row)
            return
        values = [{name: getattr(row, name) for name in _COLUMNS} for row in rows]
        with self.engine.begin() as connection:
            connection.execute(self._upsert, values)

    @cached_property
    def _upsert(self) -> Executable | None:
        """The statement that puts evaluations in place of earlier ones; None without such a one."""
        insert = _INSERTS.get(self.engine.dialect.name)
        if insert is None:
            return None
        statement = insert(EvaluationRow)
        keys = [column.name for column in EvaluationRow.__table__.primary_key]
        others = {name: statement.excluded[name] for name in _COLUMNS if name not in keys}
        upsert: Executable = statement.on_conflict_do_update(index_elements=keys, set_=others)
        return upsert


_COLUMNS = [column.name for column in EvaluationRow.__table__.columns]

# The databases that put a row in place of another in one statement.
_INSERTS: dict[str, Callable[..., Any]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


def _layout(found: NewEvaluation) -> object:
    """Return what evaluations have in common that can share a file."""
    shapes = [(name, array.dtype, array.shape) for name, array in found.arrays.items()]
    return found.task_key, found.split_digest, shapes


def _row(found: NewEvaluation, place: str) -> EvaluationRow:
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
        seconds=found.seconds,
        has_outputs="outputs" in found.arrays,
        arrays=place,
        created=time.time(),
    )


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
