"""Evaluations of points, each computed once and remembered."""

import copy
import time
from collections.abc import Iterable, Sequence
from functools import cached_property

from torch import Tensor

from soupcore.errors import TaskError
from soupcore.evaluation.batchnorm import EXAMPLES, Estimate, StatisticsChoice, norms_of
from soupcore.evaluation.devices import choose_device
from soupcore.evaluation.evaluation import Evaluation
from soupcore.evaluation.passes import Passes
from soupcore.evaluation.preview import Preview
from soupcore.evaluation.progress import Progress, no_progress, part, stretch
from soupcore.evaluation.race import Bound, Race
from soupcore.evaluation.records import Records, judged_in
from soupcore.evaluation.several import Several
from soupcore.merges import as_mixed
from soupcore.mixtures import Mixture
from soupcore.store import Store
from soupcore.tasks import Task

_BATCH_SIZE = 256


class Evaluator:
    """Evaluates points on a task, each once: what the store knows is not computed again.

    Building one is cheap; the network and the data go to the device with the first evaluation.

    Attributes:
        task: How it judges weights.
        store: Where results are kept.
        device: Where it computes.
        batch_size: Examples a batch where a recipe takes batches of its own.
        estimate: What BatchNorm's statistics are estimated on at each point; None where they are
            averaged as all weights are. See `with_statistics`.

    Args:
        task: How to judge weights.
        store: Where results are kept; the workspace's unless given.
        device: `auto`, or a device as torch names it.
        batch_size: Examples a forward pass. Unless given, the quickest is found by measuring, and
            the last bits of a loss may differ from run to run as it does.
        memory_budget: Bytes of ingredients to keep in memory between evaluations; beyond it they
            are read from their files again.
    """

    def __init__(
        self,
        task: Task,
        store: Store | None = None,
        *,
        device: str = "auto",
        batch_size: int | None = None,
        memory_budget: int = 2 << 30,
    ) -> None:
        self.task = task
        self.store = store or Store()
        self.device = choose_device(device)
        self.batch_size = batch_size or _BATCH_SIZE
        self._records = Records(self.store, task)
        self._passes = Passes(task, self.device, batch_size, memory_budget)
        # What several points at once give is the same but for the last bits.
        may_stack = self.device.type == "cuda" and batch_size is None
        self._several = Several(self._passes, may_stack=may_stack)
        self.estimate: Estimate | None = None
        self._previewed: dict[tuple[str, str], tuple[float, float]] = {}

    @cached_property
    def has_batchnorm(self) -> bool:
        """Whether the network normalises by statistics of the training data."""
        return bool(norms_of(self.task.build_model()))

    @property
    def can_re_estimate(self) -> bool:
        """Whether there are such statistics, and training data to estimate them on."""
        return bool(self.task.splits_with_role("train")) and self.has_batchnorm

    @property
    def notes(self) -> list[str]:
        """What was not done in the quickest way, and why, in words."""
        return list(self._passes.notes)

    def with_statistics(
        self, statistics: StatisticsChoice, *, examples: int = EXAMPLES
    ) -> "Evaluator":
        """Return an evaluator of the same points with other BatchNorm statistics.

        It shares network, data and store with this one, and keeps what it finds apart.

        Args:
            statistics: `averaged` with the weights, or `re-estimated` at each point on the task's
                training data (see `soupcore.evaluation.batchnorm`).
            examples: How many training examples to estimate on.

        Raises:
            TaskError: The network has no BatchNorm, or the task no split with the role `train`.
        """
        estimate = None
        if statistics == "re-estimated":
            if not self.has_batchnorm:
                raise TaskError(
                    f"The network of the task {self.task.name!r} has no BatchNorm, so there are no "
                    "statistics to estimate."
                )
            names = self.task.splits_with_role("train")
            if not names:
                raise TaskError(
                    f"The task {self.task.name!r} has no split with the role 'train' to estimate "
                    "BatchNorm's statistics on. Add one, or have the statistics averaged."
                )
            split = self.task.split(names[0])
            estimate = Estimate(names[0], split.digest, min(examples, len(split)))
        return self.with_estimate(estimate)

    def with_estimate(self, estimate: Estimate | None) -> "Evaluator":
        """Return an evaluator whose statistics are estimated as a soup says; builds no network."""
        other = copy.copy(self)
        other.estimate = estimate
        return other

    def estimated_statistics(self, mixture: Mixture) -> dict[str, Tensor]:
        """Return the BatchNorm statistics re-estimated at a point, by the names they have there.

        It is empty where this evaluator averages them.
        """
        if self.estimate is None:
            return {}
        _check_unchanged([mixture])
        return self._passes.statistics(mixture, self.estimate)

    def evaluate(
        self,
        mixture: Mixture,
        split: str,
        *,
        keep_outputs: bool = True,
        on_progress: Progress = no_progress,
    ) -> Evaluation:
        """Return what the task says of a point on a split, computing it where it is not known.

        Args:
            mixture: The point.
            split: Name of the split.
            keep_outputs: Keep the outputs of each example, as ensembles need them. Points along a
                path do without: there are too many. Of one checkpoint alone they are always kept.
            on_progress: Called with examples done and in all; raise in it to stop.

        Raises:
            TaskError: There is no such split.
            CheckpointError: The weights do not fit the task's network.
        """
        (evaluation,) = self.evaluate_all(
            [mixture], split, keep_outputs=keep_outputs, on_progress=on_progress
        )
        return evaluation

    def evaluate_all(
        self,
        mixtures: Sequence[Mixture],
        split: str,
        *,
        keep_outputs: bool = True,
        on_progress: Progress = no_progress,
    ) -> list[Evaluation]:
        """Evaluate several points, after one look at the store for all of them.

        Args:
            mixtures: The points; equal ones are evaluated once.
            split: Name of the split.
            keep_outputs: As for `evaluate`.
            on_progress: Called with examples done and in all; raise in it to stop. It may have
                this evaluator evaluate another point.

        Returns:
            The evaluations, in the order of the points.

        Raises:
            TaskError, CheckpointError: As for `evaluate`.
        """
        points = {self._key(mixture): mixture for mixture in mixtures}
        with_outputs = {k for k, p in points.items() if keep_outputs or len(p.coefficients) == 1}

        def known(keys: Sequence[str], split: str) -> dict[str, Evaluation]:
            found = self._records.known(keys, split)
            return {k: e for k, e in found.items() if e.has_outputs or k not in with_outputs}

        found = known(list(points), split)
        wholes: dict[str, Evaluation] = {}
        if (whole := self.task.whole_of(split)) != split:
            wholes = known([key for key in points if key not in found], whole)
        missing = {k: p for k, p in points.items() if k not in found and k not in wholes}
        _check_unchanged(missing.values())
        with self._records.together(split) as together:
            examples, done = len(self.task.split(split)), 0
            total = len(points) * examples
            for key in (key for key in points if key not in missing):
                if key in wholes:
                    together.add(key, judged_in(wholes[key], self.task.rows_of(split)), seconds=0.0)
                done += examples
                on_progress(done, total)
            passes = self._several.run(
                [(point, key in with_outputs) for key, point in missing.items()],
                split,
                estimate=self.estimate,
                on_progress=stretch(on_progress, done, total - done, total),
            )
            for key, (judged, seconds) in zip(missing, passes, strict=True):
                together.add(key, judged, seconds)
        found |= together.written
        return [found[self._key(mixture)] for mixture in mixtures]

    def contest(
        self,
        mixture: Mixture,
        incumbent: Evaluation,
        *,
        strictly: bool = False,
        difficulty: Tensor | None = None,
        on_progress: Progress = no_progress,
    ) -> Evaluation | Bound:
        """Evaluate a point on the split of another evaluation, unless it scores worse than that.

        The point is given up as soon as the examples it has not seen cannot change that (see
        `soupcore.evaluation.race`). Where the task declares no `score_range` it never is.

        Args:
            mixture: The point.
            incumbent: What it has to be as good as.
            strictly: Whether it has to be better.
            difficulty: A number for each example, shape [n]; those with larger ones are seen
                first. The incumbent's losses unless given.
            on_progress: Called with examples done and in all; raise in it to stop.

        Returns:
            The evaluation, which may still score worse; or, where it is known to score worse
            without the rest of the split, what it scores at most.

        Raises:
            TaskError, CheckpointError: As for `evaluate`.
        """
        split, declared, key = incumbent.split, self.task.score_range, self._key(mixture)
        (known,) = self.stored([mixture], split)
        if known is not None:
            on_progress(known.n, known.n)
            return known
        if declared is None:
            return self.evaluate(mixture, split, on_progress=on_progress)
        race = Race(
            incumbent.scores,
            strictly=strictly,
            lowest=declared[0],
            highest=declared[1],
            difficulty=incumbent.losses if difficulty is None else difficulty,
        )
        before = self._records.part(key, split)
        if before is not None and race.is_lost(before[1]):
            on_progress(incumbent.n, incumbent.n)
            return race.bound(key, split, *before)
        _check_unchanged([mixture])
        started = time.perf_counter()
        judged = self._passes.run(
            mixture, split, estimate=self.estimate, race=race, on_progress=on_progress
        )
        if len(judged) == incumbent.n:
            seconds = time.perf_counter() - started
            return self._records.add(key, split, judged.in_order(race.order), seconds)
        rows = race.order[: len(judged)]
        self._records.add_part(key, split, rows, judged.scores)
        return race.bound(key, split, rows, judged.scores)

    def preview(
        self, mixture: Mixture, split: str, *, on_progress: Progress = no_progress
    ) -> Preview:
        """Return what a pass in bfloat16 says of a point, and how far such a pass is off.

        How far is measured on the first ingredient in the mixture, whose evaluation in float32 is
        computed first where it is not known. Previews are not remembered.

        Args:
            mixture: The point.
            split: Name of the split.
            on_progress: Called with examples done and in all; raise in it to stop.

        Raises:
            TaskError, CheckpointError: As for `evaluate`.
        """
        reference = Mixture([(next(iter(mixture.sources.values())), 1)])
        known = self.evaluate(reference, split, on_progress=part(on_progress, 0, 3))
        key = self._key(reference), self.task.split(split).digest
        if key not in self._previewed:
            progress = part(on_progress, 1, 3)
            self._previewed[key] = self._look(reference, split, progress)
        loss, score = self._look(mixture, split, part(on_progress, 2, 3))
        there = self._previewed[key]
        return Preview(
            self._key(mixture),
            split,
            known.n,
            next(iter(mixture.sources)),
            loss,
            score,
            loss_effect=there[0] - known.loss,
            score_effect=there[1] - known.score,
        )

    def _look(self, mixture: Mixture, split: str, on_progress: Progress) -> tuple[float, float]:
        _check_unchanged([mixture])
        judged = self._passes.run(
            mixture,
            split,
            keep_outputs=False,
            estimate=self.estimate,
            in_bfloat16=True,
            on_progress=on_progress,
        )
        return float(judged.losses.double().mean()), float(judged.scores.double().mean())

    def stored(self, mixtures: Sequence[Mixture], split: str) -> list[Evaluation | None]:
        """Return what is already known of points on a split, None where nothing is."""
        keys = [self._key(mixture) for mixture in mixtures]
        known = self._records.known(keys, split)
        return [known.get(key) for key in keys]

    def missing(self, mixtures: Iterable[Mixture], split: str) -> list[Mixture]:
        """Return the points that would have to be computed, each once."""
        points = list(dict.fromkeys(mixtures))
        known = self.stored(points, split)
        return [point for point, found in zip(points, known, strict=True) if found is None]

    def _key(self, mixture: Mixture) -> str:
        key = as_mixed(mixture).key
        return key if self.estimate is None else key + self.estimate.key


def _check_unchanged(points: Iterable[Mixture]) -> None:
    sources = {digest: c for point in points for digest, c in point.sources.items()}
    for checkpoint in sources.values():
        checkpoint.check_unchanged()
