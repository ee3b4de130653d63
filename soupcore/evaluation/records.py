"""What the store remembers of a task's evaluations."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from soupcore.database import EvaluationRow
from soupcore.evaluation.evaluation import Evaluation, compact
from soupcore.evaluation.judging import Judged
from soupcore.evaluation.statistics import score_interval
from soupcore.store import NewEvaluation, Store
from soupcore.tasks import Task

# Evaluations are written together once they took this long together: a write takes a millisecond.
# What is not written yet is lost where the process is killed.
_WRITE_EVERY = 0.05  # seconds
_WRITE_AT = 64 << 20  # bytes


class Records:
    """The evaluations of a task in a store, by the keys of their points.

    Args:
        store: Where they are.
        task: Whose.
    """

    def __init__(self, store: Store, task: Task) -> None:
        self.store = store
        self._task = task

    def known(self, keys: Sequence[str], split: str) -> dict[str, Evaluation]:
        """Return what is known of points on a split; those unknown are absent."""
        rows = self.store.evaluations(keys, *self._place(split))
        return {key: self._evaluation(row, split) for key, row in rows.items()}

    def add(self, key: str, split: str, judged: Judged, seconds: float) -> Evaluation:
        """Remember what was found of a point."""
        with self.together(split) as together:
            together.add(key, judged, seconds)
        return together.written[key]

    @contextmanager
    def together(self, split: str) -> Iterator["Together"]:
        """Remember what is added inside, several at a time, and all of it in the end."""
        together = Together(self, split)
        try:
            yield together
        finally:
            together.write()

    def part(self, key: str, split: str) -> tuple[Tensor, Tensor] | None:
        """Return the examples seen of a point that was given up, and their scores, if any."""
        arrays = self.store.part(key, *self._place(split))
        return (arrays["rows"], arrays["scores"]) if arrays else None

    def add_part(self, key: str, split: str, rows: Tensor, scores: Tensor) -> None:
        """Remember the examples seen of a point that was given up, and their scores."""
        self.store.add_part(key, *self._place(split), {"rows": rows, "scores": scores})

    def new(self, key: str, split: str, judged: Judged, seconds: float) -> NewEvaluation:
        """Return what is to be remembered of what was found of a point."""
        return NewEvaluation(
            key,
            *self._place(split),
            loss=float(judged.losses.double().mean()),
            score=float(judged.scores.double().mean()),
            score_interval=score_interval(judged.scores),
            seconds=seconds,
            arrays=compact(judged.arrays),
        )

    def write(self, found: Sequence[NewEvaluation], split: str) -> Iterable[Evaluation]:
        """Write evaluations to the store and return them."""
        return [self._evaluation(row, split) for row in self.store.add_evaluations(found)]

    def _place(self, split: str) -> tuple[str, str]:
        return self._task.key, self._task.split(split).digest

    def _evaluation(self, row: EvaluationRow, split: str) -> Evaluation:
        file, _, place = row.arrays.partition("#")
        return Evaluation(
            mixture_key=row.mixture_key,
            split=split,
            n=row.n,
            loss=_number(row.loss),
            score=_number(row.score),
            score_interval=(_number(row.score_low), _number(row.score_high)),
            seconds=row.seconds,
            has_outputs=row.has_outputs,
            arrays=self.store.folder / file,
            task_key=row.task_key,
            split_digest=row.split_digest,
            place=int(place) if place else None,
        )


class Together:
    """Evaluations on one split that are written several at a time.

    Attributes:
        written: `{key: evaluation}` of those that are.
    """

    def __init__(self, records: Records, split: str) -> None:
        self.written: dict[str, Evaluation] = {}
        self._records = records
        self._split = split
        self._waiting: list[NewEvaluation] = []
        self._seconds, self._nbytes = 0.0, 0  # of these: thousands may wait that took no time

    def add(self, key: str, judged: Judged, seconds: float) -> None:
        """Remember what was found of a point; write where enough has come together."""
        new = self._records.new(key, self._split, judged, seconds)
        self._waiting.append(new)
        self._seconds += seconds
        self._nbytes += new.nbytes
        if self._seconds >= _WRITE_EVERY or self._nbytes >= _WRITE_AT:
            self.write()

    def write(self) -> None:
        """Write what waits."""
        if self._waiting:
            for evaluation in self._records.write(self._waiting, self._split):
                self.written[evaluation.mixture_key] = evaluation
            self._waiting.clear()
            self._seconds, self._nbytes = 0.0, 0


def judged_in(evaluation: Evaluation, rows: Tensor) -> Judged:
    """Return what an evaluation found of some of its examples, its outputs too if it kept them."""
    return Judged(
        evaluation.losses[rows],
        evaluation.scores[rows],
        evaluation.predictions[rows],
        evaluation.outputs[rows] if evaluation.has_outputs else None,
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value
