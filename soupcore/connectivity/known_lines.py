"""The known evaluations of several lines, and the points to evaluate next.

With adaptive α, a line whose barrier seems settled is checked in its widest gaps first: on a part
of the split if it is large, and on the whole split if the barrier is still uncertain.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from soupcore.connectivity.adaptive import Adaptive, gaps, lobatto
from soupcore.connectivity.path import End, LinearPath, grid, path_of, point
from soupcore.connectivity.subset_estimates import estimates, part_of
from soupcore.evaluation import Evaluation
from soupcore.mixtures import Coefficient, Mixture, interpolate
from soupcore.tasks import TaskInfo

Line = tuple[End, End]
Alphas = Adaptive | int | Sequence[Coefficient]


class Wanted(NamedTuple):
    """A point to evaluate next, with its line and the split or part of a split to evaluate on."""

    line: int
    alpha: Fraction
    mixture: Mixture
    split: str


class KnownLines:
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
        self._quiet: set[int] = set()  # not settled, but only the gaps remain to be checked

    def __len__(self) -> int:
        return len(self._ends)

    def wanted(self) -> list[Wanted]:
        """Return the points to evaluate next. Gaps come after all other points."""
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
        """Add the evaluation of a point."""
        index, alpha, *_ = wanted
        values = evaluation.loss, evaluation.score
        if wanted.split != self._split:
            self._on_subset[index][alpha] = values
            return
        self._evaluations[index][alpha] = evaluation
        self._quiet.discard(index)
        if 0 <= alpha <= 1:
            self._values[index][alpha] = values

    def is_settled(self, index: int) -> bool:
        """Whether no more points of a line are wanted."""
        if index in self._given_up:
            return False
        if index in self._settled:
            return True
        known = self._evaluations[index]
        return self._rule is None and {*self._grid, *self._beyond} <= known.keys()

    def leave(self, index: int) -> None:
        """Request no more points of a line."""
        self._settled.add(index)

    def give_up(self, index: int) -> None:
        """Request no more points of a line that is not settled."""
        self._given_up.add(index)
        self.leave(index)

    def path(self, index: int) -> LinearPath | None:
        """Return the path of a line; None if required points are missing."""
        known = self._evaluations[index]
        if not {*self._grid, *(self._beyond if self._rule is None else ())} <= known.keys():
            return None
        alphas = sorted(known)
        return path_of(alphas, [known[alpha] for alpha in alphas])

    def _in_gaps(self, lines: Sequence[int]) -> list[Wanted]:
        """Return the points to check in the gaps of lines, and settle lines that need none."""
        wanted: list[Wanted] = []
        seen = []
        for index in lines:
            line = self._values[index]
            missing = gaps(line) if self._rule is not None else []
            if not missing:
                self.leave(index)
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
        doubtful = self._rule.doubtful(values, estimates(values, on_subset))
        for index, line, doubt in zip(seen, values, doubtful, strict=True):
            if doubt:
                wanted += [self._point(index, alpha) for alpha in gaps(line)]
            else:
                self.leave(index)
        return wanted

    def _unseen(self, index: int, alphas: Iterable[Fraction]) -> list[Fraction]:
        return [alpha for alpha in alphas if alpha not in self._on_subset[index]]

    def _point(self, index: int, alpha: Fraction) -> Wanted:
        at = self._mixtures[index]
        if alpha not in at:  # cached, because computing the keys of mixtures takes time
            at[alpha] = interpolate(*self._ends[index], alpha)
        return Wanted(index, alpha, at[alpha], self._split)
