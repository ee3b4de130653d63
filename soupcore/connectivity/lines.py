"""Evaluating straight lines between points, any number of them at once.

Lines are evaluated in rounds, each round all lines: so the middles of all pairs are known before
any line is looked at closer, and a matrix of barriers fills quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from soupcore.connectivity.adaptive import Adaptive, lobatto
from soupcore.connectivity.path import End, LinearPath, grid, path_of, point
from soupcore.evaluation import Evaluation, Evaluator, Progress, no_progress
from soupcore.mixtures import Coefficient, Mixture, interpolate

Line = tuple[End, End]
Alphas = Adaptive | int | Sequence[Coefficient]

ADAPTIVE = Adaptive()
_USUAL = 6  # points between the ends that adaptive α take on most lines; only progress needs it


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


class _Known:
    """The evaluations of several lines, and which ones to ask for next."""

    def __init__(self, lines: Sequence[Line], alphas: Alphas, beyond: Sequence[Coefficient]):
        self._ends = [(point(start), point(end)) for start, end in lines]
        self._rule = alphas if isinstance(alphas, Adaptive) else None
        self._grid = lobatto(2) if isinstance(alphas, Adaptive) else grid(alphas)
        self._beyond = [alpha for alpha in grid(beyond) if not 0 <= alpha <= 1]
        self.evaluations: list[dict[Fraction, Evaluation]] = [{} for _ in lines]
        self._settled: set[int] = set()

    def wanted(self) -> list[tuple[int, Fraction, Mixture]]:
        """Return line, α and point of what to evaluate next."""
        open_lines = [index for index in range(len(self._ends)) if index not in self._settled]
        wanted: list[tuple[int, Fraction, Mixture]] = []
        for index, alphas in zip(open_lines, self._inner(open_lines), strict=True):
            known = self.evaluations[index]
            new = [alpha for alpha in [*alphas, *self._beyond] if alpha not in known]
            wanted += [(index, alpha, interpolate(*self._ends[index], alpha)) for alpha in new]
            if not new:
                self.leave(index)
        return wanted

    def leave(self, index: int) -> None:
        """Ask for no more points of a line."""
        self._settled.add(index)

    def path(self, index: int) -> LinearPath | None:
        """Return the path of a line, None where it cannot be drawn yet."""
        known = self.evaluations[index]
        if not {*self._grid, *(self._beyond if self._rule is None else ())} <= known.keys():
            return None
        alphas = sorted(known)
        return path_of(alphas, [known[alpha] for alpha in alphas])

    def _inner(self, lines: Sequence[int]) -> list[list[Fraction]]:
        """Return the α in [0, 1] to evaluate next on some of the lines."""
        if self._rule is None:
            return [self._grid for _ in lines]
        return self._rule.wanted(
            [
                {a: (e.loss, e.score) for a, e in self.evaluations[index].items() if 0 <= a <= 1}
                for index in lines
            ]
        )


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
    known = _Known(lines, alphas, beyond)
    split = split or evaluator.task.select
    usual = _USUAL * len(lines) if isinstance(alphas, Adaptive) else 0
    done = 0
    while wanted := known.wanted():
        points = list(dict.fromkeys(point for _, _, point in wanted))
        progress = _round_of(on_progress, done, len(points), max(len(points), usual - done))
        found = evaluator.evaluate_all(points, split, keep_outputs=False, on_progress=progress)
        by_point = dict(zip(points, found, strict=True))
        for index, alpha, mixture in wanted:
            known.evaluations[index][alpha] = by_point[mixture]
        done += len(points)
        examples = done * found[0].n
    if usual and done:
        on_progress(examples, examples)  # fewer points than usual were enough
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
    known = _Known(lines, alphas, beyond)
    split = split or evaluator.task.select
    missing: set[Mixture] = set()
    stuck: set[int] = set()
    while wanted := known.wanted():
        found = evaluator.stored([mixture for _, _, mixture in wanted], split)
        for (index, alpha, mixture), evaluation in zip(wanted, found, strict=True):
            if evaluation is None:
                missing.add(mixture)
                stuck.add(index)
                known.leave(index)
            else:
                known.evaluations[index][alpha] = evaluation
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


def _round_of(on_progress: Progress, before: int, points: int, left: int) -> Progress:
    """Return the progress of a round of points, as told to the progress of the whole.

    Args:
        on_progress: The progress of the whole.
        before: Points of the rounds before.
        points: Points of this one.
        left: Points of this one and of those that are expected after it.
    """

    def report(done: int, total: int) -> None:
        examples = total // points
        on_progress(before * examples + done, (before + left) * examples)

    return report
