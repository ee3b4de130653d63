"""Evaluation of straight lines between points, any number of them at once.

Each round evaluates points on all lines. The midpoints of all pairs are known before any line is
refined, so a matrix of barriers fills quickly. With adaptive α, a line whose barrier seems settled
is checked in its widest gaps first: on a part of the split if it is large, and on the whole split
if the barrier is still uncertain.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

from soupcore.connectivity.adaptive import (
    ADAPTIVE,
    Adaptive,
    estimates_of_whole,
    gaps,
    lobatto,
    part_of,
)
from soupcore.connectivity.path import Alphas, End, Line, LinearPath, grid, path_of, point
from soupcore.connectivity.summaries import LineSummary, lines_key
from soupcore.evaluation import Evaluation, Evaluations, Evaluator
from soupcore.mixtures import Coefficient, Mixture, interpolate
from soupcore.progress import Progress, no_progress, stretch, with_bar
from soupcore.sweeps import Ingredient
from soupcore.tasks import TaskInfo

_FIRST_SIZE = 32  # points
_WRITE_EVERY = 2.0  # seconds between two writes of summaries


@dataclass(frozen=True)
class Lines:
    """The stored results of several lines.

    Attributes:
        paths: The path of each line; None if a point of a fixed grid or, with adaptive α, an
            endpoint or the midpoint is missing.
        open: For each line whether requested points are still missing.
        missing: Number of evaluations to do next, each point counted once. With adaptive α, more
            may follow.
    """

    paths: list[LinearPath | None]
    open: list[bool]
    missing: int


def evaluate_lines(
    lines: Sequence[Line],
    evaluator: Evaluator,
    alphas: Alphas = ADAPTIVE,
    *,
    split: str | None = None,
    beyond: Sequence[Coefficient] = (),
    on_progress: Progress = no_progress,
) -> list[LinearPath]:
    """Evaluate straight lines between points.

    Args:
        lines: The two endpoints of each line, at α = 0 and α = 1: ingredients or any mixtures.
        evaluator: Computes evaluations that are not stored.
        alphas: `Adaptive`; or the number of evenly spaced values from 0 to 1 (11 in Model Soups, 25
            in Git Re-Basin); or the values themselves. 0 and 1 are always included.
        split: Name of the split; by default, the select split.
        beyond: Additional α values outside [0, 1].
        on_progress: Called with the number of examples done and the expected total. Raise in it to
            cancel.
    """
    split = split or evaluator.task.select
    known = _KnownLines(lines, alphas, beyond, evaluator.task, split)
    expected = (
        _expected_examples(lines, evaluator.task, split) if isinstance(alphas, Adaptive) else 0
    )
    writer = _SummaryWriter(known, lines, evaluator, alphas, split)
    done, size = 0, _FIRST_SIZE
    while wanted := known.wanted():
        at = wanted[0].split
        examples = len(evaluator.task.split(at))
        by_point: dict[Mixture, list[_Wanted]] = {}
        for each in wanted:
            by_point.setdefault(each.mixture, []).append(each)
        total = max(done + len(by_point) * examples, expected)
        left = list(by_point)
        while left:
            some, left = left[:size], left[size:]
            progress = stretch(on_progress, done, len(some) * examples, total)
            started = time.monotonic()
            try:
                found: Sequence[Evaluation | None] = evaluator.evaluate_all(
                    some, at, keep_outputs=False, on_progress=progress
                )
            except BaseException:
                _add(known, writer, by_point, some, evaluator.stored(some, at))
                writer.write()
                raise
            _add(known, writer, by_point, some, found)
            done += len(some) * examples
            size = _next_size(size, time.monotonic() - started)
    writer.write()
    if expected and done:
        on_progress(done, done)  # the expected total may not have been reached
    paths = [known.path(index) for index in range(len(lines))]
    return [path for path in paths if path is not None]


@with_bar("Linear path")
def linear_path(
    start: End,
    end: End,
    evaluator: Evaluator,
    alphas: Alphas = ADAPTIVE,
    *,
    split: str | None = None,
    beyond: Sequence[Coefficient] = (),
    on_progress: Progress = no_progress,
    progress: bool = True,
) -> LinearPath:
    """Evaluate the straight line between two points.

    Args:
        start: The point at α = 0: an ingredient or a mixture.
        end: The point at α = 1.
        evaluator: Computes evaluations that are not stored.
        alphas: As for `evaluate_lines`.
        split: Name of the split; by default, the select split.
        beyond: Additional α values outside [0, 1].
        on_progress: Called with the number of examples done and the expected total. Raise in it to
            cancel.
        progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.
    """
    (path,) = evaluate_lines(
        [(start, end)], evaluator, alphas, split=split, beyond=beyond, on_progress=on_progress
    )
    return replace(path, names=(_name(start, path.names[0]), _name(end, path.names[1])))


def stored_lines(
    lines: Sequence[Line],
    evaluations: Evaluations,
    alphas: Alphas = ADAPTIVE,
    *,
    split: str | None = None,
    beyond: Sequence[Coefficient] = (),
) -> Lines:
    """Return the lines from stored evaluations; for the arguments see `evaluate_lines`."""
    split = split or evaluations.task.select
    return _stored(_KnownLines(lines, alphas, beyond, evaluations.task, split), evaluations)


def keep_stored_lines(
    lines: Sequence[Line],
    evaluations: Evaluations,
    alphas: Alphas = ADAPTIVE,
    *,
    split: str | None = None,
) -> None:
    """Store summaries of lines from stored evaluations, such as those of earlier versions.

    No evaluation is computed. `known_pairs` reads the summaries.
    """
    split = split or evaluations.task.select
    known = _KnownLines(lines, alphas, (), evaluations.task, split)
    _stored(known, evaluations)
    writer = _SummaryWriter(known, lines, evaluations, alphas, split)
    writer.add(range(len(lines)))
    writer.write()


class _Wanted(NamedTuple):
    """A point to evaluate next, with its line and the split or part of a split to evaluate on."""

    line: int
    alpha: Fraction
    mixture: Mixture
    split: str


class _KnownLines:
    """The known evaluations of several lines, and the points to evaluate next.

    Args:
        lines: The two endpoints of each line.
        alphas: As for `evaluate_lines`.
        beyond: Additional α values outside [0, 1].
        task: The task.
        split: Name of the split.
    """

    def __init__(
        self,
        lines: Sequence[Line],
        alphas: Alphas,
        beyond: Sequence[Coefficient],
        task: TaskInfo[Any],
        split: str,
    ) -> None:
        self._ends = [(point(start), point(end)) for start, end in lines]
        self._rule = alphas if isinstance(alphas, Adaptive) else None
        self._grid = lobatto(2) if isinstance(alphas, Adaptive) else grid(alphas)
        self._beyond = [alpha for alpha in grid(beyond) if not 0 <= alpha <= 1]
        self._split = split
        self._part = part_of(task, split) if self._rule is not None else None
        self._mixtures: list[dict[Fraction, Mixture]] = [{} for _ in lines]
        self._evaluations: list[dict[Fraction, Evaluation]] = [{} for _ in lines]
        # Losses and scores at α in [0, 1], on the whole split and on the part.
        self._values: list[dict[Fraction, tuple[float, float]]] = [{} for _ in lines]
        self._on_subset: list[dict[Fraction, tuple[float, float]]] = [{} for _ in lines]
        self._settled: set[int] = set()
        self._given_up: set[int] = set()
        self._unchecked: set[int] = set()  # not settled, but only the gaps remain to be checked

    def __len__(self) -> int:
        return len(self._ends)

    def wanted(self) -> list[_Wanted]:
        """Return the points to evaluate next. Gaps come after all other points."""
        aside = self._settled | self._unchecked
        lines = [index for index in range(len(self._ends)) if index not in aside]
        if self._rule is None:
            alphas = [self._grid for _ in lines]
        else:
            alphas = self._rule.wanted([self._values[index] for index in lines])
        wanted: list[_Wanted] = []
        for index, inner in zip(lines, alphas, strict=True):
            known = self._evaluations[index]
            new = [alpha for alpha in [*inner, *self._beyond] if alpha not in known]
            wanted += [self._point(index, alpha) for alpha in new]
            if not new:
                self._unchecked.add(index)
        return wanted or self._in_gaps(sorted(self._unchecked - self._settled))

    def add(self, wanted: _Wanted, evaluation: Evaluation) -> None:
        """Add the evaluation of a point."""
        index, alpha, *_ = wanted
        values = evaluation.loss, evaluation.score
        if wanted.split != self._split:
            self._on_subset[index][alpha] = values
            return
        self._evaluations[index][alpha] = evaluation
        self._unchecked.discard(index)
        if 0 <= alpha <= 1:
            self._values[index][alpha] = values

    def is_settled(self, index: int) -> bool:
        """Return whether no more points of a line are requested."""
        if index in self._given_up:
            return False
        if index in self._settled:
            return True
        known = self._evaluations[index]
        return self._rule is None and {*self._grid, *self._beyond} <= known.keys()

    def settle(self, index: int) -> None:
        """Request no more points of a line."""
        self._settled.add(index)

    def give_up(self, index: int) -> None:
        """Request no more points of a line that is not settled."""
        self._given_up.add(index)
        self.settle(index)

    def path(self, index: int) -> LinearPath | None:
        """Return the path of a line; None if required points are missing."""
        known = self._evaluations[index]
        if not {*self._grid, *(self._beyond if self._rule is None else ())} <= known.keys():
            return None
        alphas = sorted(known)
        return path_of(alphas, [known[alpha] for alpha in alphas])

    def _in_gaps(self, lines: Sequence[int]) -> list[_Wanted]:
        """Return the points to check in the gaps of lines, and settle lines that need none."""
        wanted: list[_Wanted] = []
        seen = []
        for index in lines:
            line = self._values[index]
            missing = gaps(line) if self._rule is not None else []
            if not missing:
                self.settle(index)
            elif self._part is None:
                wanted += [self._point(index, alpha) for alpha in missing]
            # Points known on the whole split come last, as they need no forward pass.
            elif new := self._unseen(index, missing) or self._unseen(index, line):
                wanted += [self._point(index, alpha)._replace(split=self._part) for alpha in new]
            else:
                seen.append(index)
        if wanted or self._rule is None:
            return wanted
        values = [self._values[index] for index in seen]
        on_subset = [self._on_subset[index] for index in seen]
        doubtful = self._rule.doubtful(values, estimates_of_whole(values, on_subset))
        for index, line, doubt in zip(seen, values, doubtful, strict=True):
            if doubt:
                wanted += [self._point(index, alpha) for alpha in gaps(line)]
            else:
                self.settle(index)
        return wanted

    def _unseen(self, index: int, alphas: Iterable[Fraction]) -> list[Fraction]:
        return [alpha for alpha in alphas if alpha not in self._on_subset[index]]

    def _point(self, index: int, alpha: Fraction) -> _Wanted:
        at = self._mixtures[index]
        if alpha not in at:  # cached, because computing the keys of mixtures takes time
            at[alpha] = interpolate(*self._ends[index], alpha)
        return _Wanted(index, alpha, at[alpha], self._split)


class _SummaryWriter:
    """Stores summaries of lines while they are evaluated.

    Args:
        known: The evaluations of the lines.
        lines: The two endpoints of each line.
        evaluations: Determines the store and the task.
        alphas: As for `evaluate_lines`.
        split: Name of the split.
    """

    def __init__(
        self,
        known: _KnownLines,
        lines: Sequence[Line],
        evaluations: Evaluations,
        alphas: Alphas,
        split: str,
    ) -> None:
        self._known = known
        self._ends = [
            (evaluations.key(point(start)), evaluations.key(point(end))) for start, end in lines
        ]
        self._store = evaluations.store
        self._key = lines_key(evaluations, alphas, split)
        self._new: set[int] = set()
        # Of the summary written last for each line: number of α values, and whether it is settled.
        self._written: dict[int, tuple[int, bool]] = {}
        self._last_write = time.monotonic()

    def add(self, lines: Iterable[int]) -> None:
        """Record that lines have new evaluations, and write summaries at regular intervals.

        Args:
            lines: Indices of the lines.
        """
        self._new.update(lines)
        if time.monotonic() - self._last_write > _WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Write the summaries that have changed since the last write."""
        rows = {}
        # A line can become settled without a new evaluation.
        waiting = {index for index, (_, is_settled) in self._written.items() if not is_settled}
        settled_since = {index for index in waiting if self._known.is_settled(index)}
        for index in sorted(self._new | settled_since):
            path, settled = self._known.path(index), self._known.is_settled(index)
            if path is None or self._written.get(index) == (len(path.alphas), settled):
                continue
            self._written[index] = (len(path.alphas), settled)
            rows[self._ends[index]] = (settled, LineSummary.of(path).to_bytes())
        if not self._store.is_read_only:
            self._store.add_lines(self._key, rows)
        self._new.clear()
        self._last_write = time.monotonic()


def _add(
    known: _KnownLines,
    writer: _SummaryWriter,
    by_point: Mapping[Mixture, Sequence[_Wanted]],
    points: Sequence[Mixture],
    evaluations: Sequence[Evaluation | None],
) -> None:
    """Add the evaluations of points to their lines, and store summaries of these lines."""
    for mixture, evaluation in zip(points, evaluations, strict=True):
        if evaluation is not None:
            for each in by_point[mixture]:
                known.add(each, evaluation)
    writer.add(each.line for mixture in points for each in by_point[mixture])


def _next_size(size: int, seconds: float) -> int:
    """Return how many points to evaluate until summaries are stored again, after a few seconds."""
    if seconds < _WRITE_EVERY / 2:
        return 2 * size
    return max(1, size // 2) if seconds > 2 * _WRITE_EVERY else size


def _stored(known: _KnownLines, evaluations: Evaluations) -> Lines:
    """Return the stored results of lines."""
    missing: set[tuple[Mixture, str]] = set()
    stuck: set[int] = set()
    while wanted := known.wanted():
        at = wanted[0].split
        found = evaluations.stored([each.mixture for each in wanted], at)
        for each, evaluation in zip(wanted, found, strict=True):
            if evaluation is None:
                missing.add((each.mixture, at))
                stuck.add(each.line)
                known.give_up(each.line)
            else:
                known.add(each, evaluation)
    paths = [known.path(index) for index in range(len(known))]
    return Lines(paths, [index in stuck for index in range(len(known))], len(missing))


def _name(end: End, otherwise: str) -> str:
    return end.name if isinstance(end, Ingredient) else otherwise


def _expected_examples(lines: Sequence[Line], task: TaskInfo[Any], split: str) -> int:
    """Return the number of examples that adaptive α needs for lines without a barrier."""
    part = part_of(task, split)
    first = len({point(end) for line in lines for end in line}) + 3 * len(lines)
    gaps = 2 * len(lines)
    if part is None:
        return (first + gaps) * len(task.split(split))
    return first * len(task.split(split)) + (gaps + first) * len(task.split(part))
