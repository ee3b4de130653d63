"""Evaluating straight lines between points, any number of them at once.

Lines are evaluated in rounds, each round all lines: so the middles of all pairs are known before
any line is looked at closer, and a matrix of barriers fills quickly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from soupcore.connectivity.adaptive import Adaptive, gaps, lobatto
from soupcore.connectivity.glances import estimates, part_of
from soupcore.connectivity.path import End, LinearPath, grid, path_of, point
from soupcore.evaluation import Evaluation, Evaluator, Progress, no_progress
from soupcore.mixtures import Coefficient, Mixture, interpolate
from soupcore.tasks import Task

Line = tuple[End, End]
Alphas = Adaptive | int | Sequence[Coefficient]

ADAPTIVE = Adaptive()
_USUAL = 4  # points between the ends that adaptive α take on most lines; only progress needs it


@dataclass(frozen=True)
class Lines:
    """Several lines, as far as they are known.

    Attributes:
        paths: Of each line its path; None where a point of a fixed grid is missing, with adaptive
            α an end or the middle.
        open: Of each line whether points that were asked for are still missing.
        missing: How many evaluations it takes to go on, each point counted once. Adaptive α may ask
            for more when these are known.
    """

    paths: list[LinearPath | None]
    open: list[bool]
    missing: int


class _Wanted(NamedTuple):
    """A point to evaluate next, of which line, and on which split: a part of it for a glance."""

    line: int
    alpha: Fraction
    mixture: Mixture
    split: str


class _Known:
    """The evaluations of several lines, and which ones to ask for next."""

    def __init__(
        self,
        lines: Sequence[Line],
        alphas: Alphas,
        beyond: Sequence[Coefficient],
        task: Task,
        split: str,
    ) -> None:
        self._ends = [(point(start), point(end)) for start, end in lines]
        self._rule = alphas if isinstance(alphas, Adaptive) else None
        self._grid = lobatto(2) if isinstance(alphas, Adaptive) else grid(alphas)
        self._beyond = [alpha for alpha in grid(beyond) if not 0 <= alpha <= 1]
        self._split = split
        self._part = part_of(task, split) if self._rule is not None else None
        self._evaluations: list[dict[Fraction, Evaluation]] = [{} for _ in lines]
        self._glances: list[dict[Fraction, Evaluation]] = [{} for _ in lines]
        self._settled: set[int] = set()
        self._quiet: set[int] = set()  # open, but all that is wanted is a look at their gaps

    def wanted(self) -> list[_Wanted]:
        """Return what to evaluate next, no glances before all else is known."""
        aside = self._settled | self._quiet
        lines = [index for index in range(len(self._ends)) if index not in aside]
        if self._rule is None:
            alphas = [self._grid for _ in lines]
        else:
            alphas = self._rule.wanted([self._values(index) for index in lines])
        wanted: list[_Wanted] = []
        for index, inner in zip(lines, alphas, strict=True):
            known = self._evaluations[index]
            new = [alpha for alpha in [*inner, *self._beyond] if alpha not in known]
            wanted += [self._point(index, alpha) for alpha in new]
            if not new:
                self._quiet.add(index)
        return wanted or self._in_gaps(sorted(self._quiet - self._settled))

    def add(self, wanted: _Wanted, evaluation: Evaluation) -> None:
        """Take what was asked for."""
        if wanted.split == self._split:
            self._evaluations[wanted.line][wanted.alpha] = evaluation
            self._quiet.discard(wanted.line)
        else:
            self._glances[wanted.line][wanted.alpha] = evaluation

    def leave(self, index: int) -> None:
        """Ask for no more points of a line."""
        self._settled.add(index)

    def path(self, index: int) -> LinearPath | None:
        """Return the path of a line, None where it cannot be drawn yet."""
        known = self._evaluations[index]
        if not {*self._grid, *(self._beyond if self._rule is None else ())} <= known.keys():
            return None
        alphas = sorted(known)
        return path_of(alphas, [known[alpha] for alpha in alphas])

    def _in_gaps(self, lines: Sequence[int]) -> list[_Wanted]:
        """Return where to look at lines that want nothing else; settle those that need no look."""
        wanted: list[_Wanted] = []
        seen = []
        for index in lines:
            line = self._values(index)
            missing = gaps(line) if self._rule is not None else []
            if not missing:
                self.leave(index)
            elif self._part is None:
                wanted += [self._point(index, alpha) for alpha in missing]
            elif new := [a for a in (*line, *missing) if a not in self._glances[index]]:
                wanted += [self._point(index, alpha)._replace(split=self._part) for alpha in new]
            else:
                seen.append(index)
        if wanted or self._rule is None:
            return wanted
        values = [self._values(index) for index in seen]
        glances = [_values(self._glances[index]) for index in seen]
        doubtful = self._rule.doubtful(values, estimates(values, glances))
        for index, line, doubt in zip(seen, values, doubtful, strict=True):
            if doubt:
                wanted += [self._point(index, alpha) for alpha in gaps(line)]
            else:
                self.leave(index)
        return wanted

    def _point(self, index: int, alpha: Fraction) -> _Wanted:
        return _Wanted(index, alpha, interpolate(*self._ends[index], alpha), self._split)

    def _values(self, index: int) -> dict[Fraction, tuple[float, float]]:
        return _values(self._evaluations[index])


def _values(evaluations: Mapping[Fraction, Evaluation]) -> dict[Fraction, tuple[float, float]]:
    """Return loss and score at the α in [0, 1]."""
    return {a: (e.loss, e.score) for a, e in evaluations.items() if 0 <= a <= 1}


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
        lines: The two ends of each, at α = 0 and α = 1: ingredients or any mixtures.
        evaluator: Computes what the store does not have.
        alphas: As many as each barrier takes to be known to within a tolerance; or how many, evenly
            from 0 to 1 (11 in the soups' papers, 25 in Git Re-Basin), or which. 0 and 1 are always
            among them.
        split: Which split; the one with the role `select` unless given.
        beyond: α outside [0, 1] to evaluate too.
        on_progress: Called with examples done and in all, as far as can be known; raise in it to
            stop.
    """
    split = split or evaluator.task.select
    known = _Known(lines, alphas, beyond, evaluator.task, split)
    examples = len(evaluator.task.split(split))
    usual = _USUAL * len(lines) * examples if isinstance(alphas, Adaptive) else 0
    done = 0
    while wanted := known.wanted():
        at = wanted[0].split
        points = list(dict.fromkeys(each.mixture for each in wanted))
        count = len(points) * len(evaluator.task.split(at))
        progress = _round_of(on_progress, done, max(done + count, usual))
        found = evaluator.evaluate_all(points, at, keep_outputs=False, on_progress=progress)
        by_point = dict(zip(points, found, strict=True))
        for each in wanted:
            known.add(each, by_point[each.mixture])
        done += count
    if usual and done:
        on_progress(done, done)  # fewer points than usual were enough
    paths = [known.path(index) for index in range(len(lines))]
    return [path for path in paths if path is not None]


def stored_lines(
    lines: Sequence[Line],
    evaluator: Evaluator,
    alphas: Alphas = ADAPTIVE,
    *,
    split: str | None = None,
    beyond: Sequence[Coefficient] = (),
) -> Lines:
    """Return what the store knows of the lines, as `evaluate_lines` takes them."""
    split = split or evaluator.task.select
    known = _Known(lines, alphas, beyond, evaluator.task, split)
    missing: set[tuple[Mixture, str]] = set()
    stuck: set[int] = set()
    while wanted := known.wanted():
        at = wanted[0].split
        found = evaluator.stored([each.mixture for each in wanted], at)
        for each, evaluation in zip(wanted, found, strict=True):
            if evaluation is None:
                missing.add((each.mixture, at))
                stuck.add(each.line)
                known.leave(each.line)
            else:
                known.add(each, evaluation)
    paths = [known.path(index) for index in range(len(lines))]
    return Lines(paths, [index in stuck for index in range(len(lines))], len(missing))


def linear_path(
    start: End,
    end: End,
    evaluator: Evaluator,
    alphas: Alphas = ADAPTIVE,
    *,
    split: str | None = None,
    beyond: Sequence[Coefficient] = (),
    on_progress: Progress = no_progress,
) -> LinearPath:
    """Evaluate the straight line between two points; for the rest see `evaluate_lines`."""
    (path,) = evaluate_lines(
        [(start, end)], evaluator, alphas, split=split, beyond=beyond, on_progress=on_progress
    )
    return path


def stored_path(
    start: End,
    end: End,
    evaluator: Evaluator,
    alphas: Alphas = ADAPTIVE,
    *,
    split: str | None = None,
    beyond: Sequence[Coefficient] = (),
) -> LinearPath | None:
    """Return the path if the store has all of its points, else None. Computes nothing."""
    known = stored_lines([(start, end)], evaluator, alphas, split=split, beyond=beyond)
    return None if known.open[0] else known.paths[0]


def _round_of(on_progress: Progress, before: int, total: int) -> Progress:
    """Return the progress of a round of points, as told to the progress of the whole.

    Args:
        on_progress: The progress of the whole.
        before: Examples of the rounds before.
        total: Examples in all, as far as can be known.
    """
    return lambda done, _: on_progress(before + done, total)
