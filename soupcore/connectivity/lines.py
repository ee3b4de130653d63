"""Evaluating straight lines between points, any number of them at once.

Lines are evaluated in rounds, each round all lines: so the middles of all pairs are known before
any line is looked at closer, and a matrix of barriers fills quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from soupcore.connectivity.adaptive import Adaptive
from soupcore.connectivity.glances import part_of
from soupcore.connectivity.known_lines import Alphas, KnownLines, Line
from soupcore.connectivity.path import End, LinearPath, point
from soupcore.evaluation import Evaluator, Progress, no_progress
from soupcore.evaluation.progress import stretch
from soupcore.mixtures import Coefficient, Mixture
from soupcore.tasks import Task

ADAPTIVE = Adaptive()


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
    known = KnownLines(lines, alphas, beyond, evaluator.task, split)
    usual = _usual(lines, evaluator.task, split) if isinstance(alphas, Adaptive) else 0
    done = 0
    while wanted := known.wanted():
        at = wanted[0].split
        points = list(dict.fromkeys(each.mixture for each in wanted))
        count = len(points) * len(evaluator.task.split(at))
        progress = stretch(on_progress, done, count, max(done + count, usual))
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
    known = KnownLines(lines, alphas, beyond, evaluator.task, split)
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


def _usual(lines: Sequence[Line], task: Task, split: str) -> int:
    """Return how many examples adaptive α take on lines without a barrier; progress needs it."""
    part = part_of(task, split)
    first = len({point(end) for line in lines for end in line}) + 3 * len(lines)
    gaps = 2 * len(lines)
    if part is None:
        return (first + gaps) * len(task.split(split))
    return first * len(task.split(split)) + (gaps + first) * len(task.split(part))
