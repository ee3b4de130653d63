"""What is known of several lines, and which points to evaluate next.

With adaptive α a line that wants no other point is looked at in its gaps before it is settled: on a
part of the split where there is one, and on the whole where that leaves its barrier in doubt.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

from soupcore.connectivity.adaptive import Adaptive, gaps, lobatto
from soupcore.connectivity.glances import estimates, part_of
from soupcore.connectivity.path import End, LinearPath, grid, path_of, point
from soupcore.evaluation import Evaluation
from soupcore.mixtures import Coefficient, Mixture, interpolate
from soupcore.tasks import Task

Line = tuple[End, End]
Alphas = Adaptive | int | Sequence[Coefficient]


class Wanted(NamedTuple):
    """A point to evaluate next, of which line, and on which split: a part of it for a glance."""

    line: int
    alpha: Fraction
    mixture: Mixture
    split: str


class KnownLines:
    """The evaluations of several lines, and which ones to ask for next.

    Args:
        lines: The two ends of each.
        alphas: As `evaluate_lines` takes them.
        beyond: α outside [0, 1] to evaluate too.
        task: Whose splits these are.
        split: Which of them.
    """

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
        self._mixtures: list[dict[Fraction, Mixture]] = [{} for _ in lines]
        self._evaluations: list[dict[Fraction, Evaluation]] = [{} for _ in lines]
        # Losses and scores at α in [0, 1], on the whole and on the part.
        self._values: list[dict[Fraction, tuple[float, float]]] = [{} for _ in lines]
        self._glances: list[dict[Fraction, tuple[float, float]]] = [{} for _ in lines]
        self._settled: set[int] = set()
        self._quiet: set[int] = set()  # open, but all that is wanted is a look at their gaps

    def wanted(self) -> list[Wanted]:
        """Return what to evaluate next, no glances before all else is known."""
        aside = self._settled | self._quiet
        lines = [index for index in range(len(self._ends)) if index not in aside]
        if self._rule is None:
            alphas = [self._grid for _ in lines]
        else:
            alphas = self._rule.wanted([self._values[index] for index in lines])
        wanted: list[Wanted] = []
        for index, inner in zip(lines, alphas, strict=True):
            known = self._evaluations[index]
            new = [alpha for alpha in [*inner, *self._beyond] if alpha not in known]
            wanted += [self._point(index, alpha) for alpha in new]
            if not new:
                self._quiet.add(index)
        return wanted or self._in_gaps(sorted(self._quiet - self._settled))

    def add(self, wanted: Wanted, evaluation: Evaluation) -> None:
        """Take what was asked for."""
        index, alpha, *_ = wanted
        values = evaluation.loss, evaluation.score
        if wanted.split != self._split:
            self._glances[index][alpha] = values
            return
        self._evaluations[index][alpha] = evaluation
        self._quiet.discard(index)
        if 0 <= alpha <= 1:
            self._values[index][alpha] = values

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

    def _in_gaps(self, lines: Sequence[int]) -> list[Wanted]:
        """Return where to look at lines that want nothing else; settle those that need no look."""
        wanted: list[Wanted] = []
        seen = []
        for index in lines:
            line = self._values[index]
            missing = gaps(line) if self._rule is not None else []
            if not missing:
                self.leave(index)
            elif self._part is None:
                wanted += [self._point(index, alpha) for alpha in missing]
            # Those that are known on the whole come last: they take no pass.
            elif new := self._unseen(index, missing) or self._unseen(index, line):
                wanted += [self._point(index, alpha)._replace(split=self._part) for alpha in new]
            else:
                seen.append(index)
        if wanted or self._rule is None:
            return wanted
        values = [self._values[index] for index in seen]
        glances = [self._glances[index] for index in seen]
        doubtful = self._rule.doubtful(values, estimates(values, glances))
        for index, line, doubt in zip(seen, values, doubtful, strict=True):
            if doubt:
                wanted += [self._point(index, alpha) for alpha in gaps(line)]
            else:
                self.leave(index)
        return wanted

    def _unseen(self, index: int, alphas: Iterable[Fraction]) -> list[Fraction]:
        return [alpha for alpha in alphas if alpha not in self._glances[index]]

    def _point(self, index: int, alpha: Fraction) -> Wanted:
        at = self._mixtures[index]
        if alpha not in at:  # a glance asks for the points again, and their keys are known by now
            at[alpha] = interpolate(*self._ends[index], alpha)
        return Wanted(index, alpha, at[alpha], self._split)
