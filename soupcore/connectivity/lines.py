"""Evaluates straight lines between points, any number of them at once.

Each round evaluates points on all lines. The midpoints of all pairs are known before any line is
refined, so a matrix of barriers fills quickly.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from soupcore.connectivity.adaptive import ADAPTIVE, Adaptive
from soupcore.connectivity.known_lines import Alphas, KnownLines, Line, Wanted
from soupcore.connectivity.path import End, LinearPath, point
from soupcore.connectivity.subset_estimates import part_of
from soupcore.connectivity.summaries import Keeper
from soupcore.evaluation import Evaluation, Evaluations, Evaluator
from soupcore.mixtures import Coefficient, Mixture
from soupcore.progress import Progress, no_progress, stretch, with_bar
from soupcore.sweeps import Ingredient
from soupcore.tasks import TaskInfo

_FIRST_SIZE = 32  # points
_KEEP_EVERY = 2.0  # seconds


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
    known = KnownLines(lines, alphas, beyond, evaluator.task, split)
    usual = _usual(lines, evaluator.task, split) if isinstance(alphas, Adaptive) else 0
    keeper = Keeper(known, lines, evaluator, alphas, split)
    done, size = 0, _FIRST_SIZE
    while wanted := known.wanted():
        at = wanted[0].split
        examples = len(evaluator.task.split(at))
        by_point: dict[Mixture, list[Wanted]] = {}
        for each in wanted:
            by_point.setdefault(each.mixture, []).append(each)
        total = max(done + len(by_point) * examples, usual)
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
                _add(known, keeper, by_point, some, evaluator.stored(some, at))
                keeper.write()
                raise
            _add(known, keeper, by_point, some, found)
            done += len(some) * examples
            size = _next_size(size, time.monotonic() - started)
    keeper.write()
    if usual and done:
        on_progress(done, done)  # the expected total may not have been reached
    paths = [known.path(index) for index in range(len(lines))]
    return [path for path in paths if path is not None]


def _add(
    known: KnownLines,
    keeper: Keeper,
    by_point: Mapping[Mixture, Sequence[Wanted]],
    points: Sequence[Mixture],
    evaluations: Sequence[Evaluation | None],
) -> None:
    """Add the evaluations of points to their lines, and store summaries of these lines."""
    for point_, evaluation in zip(points, evaluations, strict=True):
        if evaluation is not None:
            for each in by_point[point_]:
                known.add(each, evaluation)
    keeper.keep(each.line for point_ in points for each in by_point[point_])


def _next_size(size: int, seconds: float) -> int:
    """Return how many points to evaluate until summaries are stored again, after a few seconds."""
    if seconds < _KEEP_EVERY / 2:
        return 2 * size
    return max(1, size // 2) if seconds > 2 * _KEEP_EVERY else size


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
    return _stored(KnownLines(lines, alphas, beyond, evaluations.task, split), evaluations)


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
    known = KnownLines(lines, alphas, (), evaluations.task, split)
    _stored(known, evaluations)
    keeper = Keeper(known, lines, evaluations, alphas, split)
    keeper.keep(range(len(lines)))
    keeper.write()


def _stored(known: KnownLines, evaluations: Evaluations) -> Lines:
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


def _name(end: End, otherwise: str) -> str:
    return end.name if isinstance(end, Ingredient) else otherwise


def _usual(lines: Sequence[Line], task: TaskInfo[Any], split: str) -> int:
    """Return the number of examples that adaptive α needs for lines without a barrier."""
    part = part_of(task, split)
    first = len({point(end) for line in lines for end in line}) + 3 * len(lines)
    gaps = 2 * len(lines)
    if part is None:
        return (first + gaps) * len(task.split(split))
    return first * len(task.split(split)) + (gaps + first) * len(task.split(part))
