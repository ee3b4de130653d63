"""Evaluations in the store: a row each, and a file of arrays for all that are added together.

A file and a transaction for each evaluation would take as long as the evaluation of a small network
itself.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from sqlalchemy import Executable, bindparam, delete, select

from soupcore.store.arrays import DamagedArraysError, looks_whole, read_arrays, write_arrays
from soupcore.store.leases import ClaimRow
from soupcore.store.rows import RowStore, batches
from soupcore.store.tables import EvaluationRow, MetricIntervalRow, PartRow

SUMMARIES = "evaluations"  # key in the metadata of a file of arrays: its rows without `arrays`

_COLUMNS = [column.name for column in EvaluationRow.__table__.columns]
_POINT = [column.name for column in EvaluationRow.__table__.primary_key]


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


class EvaluationStore(RowStore):
    """The part of a `Store` for evaluations, and for parts of those that were rejected early."""

    def evaluations(
        self, mixture_keys: Sequence[str], task_key: str, split_digest: str
    ) -> dict[str, EvaluationRow]:
        """Return the stored evaluations of these points: `{mixture key: row}`.

        Points that have not been evaluated are omitted. Evaluations whose arrays are missing or
        truncated are deleted and omitted too.
        """
        found: dict[str, EvaluationRow] = {}
        with self.session() as session:
            for keys in batches(mixture_keys):
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

    def put_evaluations(self, rows: Sequence[EvaluationRow]) -> None:
        """Insert rows, replacing those of the same points. Their arrays must be on disk."""
        if not rows:
            return
        with self.engine.begin() as connection:
            self._insert(connection, rows)
            if self.holder.depth:
                points = [{name: getattr(row, name) for name in _POINT} for row in rows]
                connection.execute(self._release, points)

    def metric_intervals(
        self, mixture_keys: Sequence[str], task_key: str, split_digest: str, metric: str
    ) -> dict[str, MetricIntervalRow]:
        """Return the stored intervals by a metric other than the task's first: `{point: row}`."""
        found = {}
        with self.session() as session:
            for keys in batches(mixture_keys):
                rows = session.scalars(
                    select(MetricIntervalRow).where(
                        MetricIntervalRow.mixture_key.in_(keys),
                        MetricIntervalRow.task_key == task_key,
                        MetricIntervalRow.split_digest == split_digest,
                        MetricIntervalRow.metric == metric,
                    )
                )
                found.update({row.mixture_key: row for row in rows})
        return found

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

    def array_files(self) -> set[str]:
        """Return the files of arrays that rows refer to, relative to the store's folder."""
        with self.session() as session:
            places = [*session.scalars(select(EvaluationRow.arrays).distinct())]
            places += session.scalars(select(PartRow.arrays).distinct())
        return {place.partition("#")[0] for place in places}

    def forget_arrays(self, file: str) -> None:
        """Delete the rows of all evaluations whose arrays are in a missing or damaged file.

        Args:
            file: Path relative to the store's folder. `soupcore.maintenance` removes the file.
        """
        self._note(f"{file} is missing or damaged. Its evaluations will be recomputed when needed.")
        if self.is_read_only:
            return
        with self.session() as session, session.begin():
            inside = EvaluationRow.arrays.startswith(f"{file}#", autoescape=True)
            session.execute(delete(EvaluationRow).where((EvaluationRow.arrays == file) | inside))
            session.execute(delete(PartRow).where(PartRow.arrays == file))

    @cached_property
    def _release(self) -> Executable:
        point = [getattr(ClaimRow, name) == bindparam(name) for name in _POINT]
        return delete(ClaimRow).where(ClaimRow.holder == self.holder.name, *point)


def file_of(row: EvaluationRow) -> str:
    """Return the file with an evaluation's arrays, relative to the store's folder."""
    return row.arrays.partition("#")[0]


def _summary(row: EvaluationRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _COLUMNS if name != "arrays"}


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
