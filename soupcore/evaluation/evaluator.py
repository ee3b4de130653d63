"""The evaluator: computes the evaluations of points, each once, and stores them."""

import sys
import time
from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from torch import Tensor

from soupcore.evaluation.cluster import ClusterPass, local_pass
from soupcore.evaluation.command_pass import CommandPass
from soupcore.evaluation.early_rejection import EarlyRejection, UpperBound
from soupcore.evaluation.evaluation import Evaluation, Preview
from soupcore.evaluation.evaluations import Evaluations, WriteBuffer, records_in
from soupcore.evaluation.forward_pass import ForwardPass
from soupcore.evaluation.measuring import Measured, interval_of, measure, needs_outputs
from soupcore.evaluation.network import choose_device
from soupcore.evaluation.scoring import ExampleRecords
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, no_progress, part, stretch, with_bar
from soupcore.tasks import Task
from soupcore.tasks.command import CommandTask

if TYPE_CHECKING:
    from soupcore.store import Store

_BATCH_SIZE = 256  # examples per batch in recipes that use gradients


class Evaluator(Evaluations):
    """Evaluates points on a task, each once: stored evaluations are not computed again.

    Constructing one is cheap. The network and the data are loaded with the first evaluation.

    Attributes:
        task: The task.
        device: Device for computation.
        batch_size: Examples per batch in recipes that use gradients.

    Args:
        task: The task.
        store: Store of the results; by default, that of the workspace.
        device: `auto`, or a device name of torch.
        batch_size: Examples per forward pass; by default, the task's `batch_size`, or 128. The last
            bits of a loss may depend on it. It is halved if memory runs out.
        memory_budget: Size in bytes of the ingredients that stay in memory between evaluations.
            Others are read from their files each time. Caching unchanged layers takes up to the
            same amount in addition.
        ray: Address of a Ray cluster that evaluates the points; "local" for one on this machine.
            See `soupcore.evaluation.cluster`. Recipes that use gradients compute on this machine.
    """

    task: Task

    def __init__(
        self,
        task: Task,
        store: "Store | None" = None,
        *,
        device: str = "auto",
        batch_size: int | None = None,
        memory_budget: int = 2 << 30,
        ray: str | None = None,
    ) -> None:
        from soupcore.evaluation.claims import Claims  # loads SQLAlchemy

        super().__init__(task, store)
        self.device = choose_device(device)
        self.batch_size = batch_size or _BATCH_SIZE
        self._claims = Claims(self.store)
        self._forward_pass: ForwardPass | CommandPass | ClusterPass = (
            local_pass(task, self.device, batch_size, memory_budget)
            if ray is None
            else ClusterPass(task, ray, device, batch_size, memory_budget)
        )
        # By point, data and primary metric.
        self._previewed: dict[tuple[str, str, str | None], tuple[float, float]] = {}

    def __repr__(self) -> str:
        return f"Evaluator({self.task.name!r} on {self.device}, stored in {self.store.folder})"

    @property
    def notes(self) -> list[str]:
        """Messages about disabled shortcuts and about damaged files."""
        return [*self._forward_pass.notes, *self.store.notes]

    def estimated_statistics(self, mixture: Mixture) -> dict[str, Tensor]:
        """Return the BatchNorm statistics re-estimated at a point, by the point's tensor names.

        Empty if this evaluator averages them.
        """
        if self.estimate is None:
            return {}
        _check_unchanged([mixture])
        assert not isinstance(self._forward_pass, CommandPass)  # noqa: S101 - there is BatchNorm
        return self._forward_pass.statistics(mixture, self.estimate)

    @property
    def at_once(self) -> int:
        """Largest number of points that are evaluated at the same time."""
        if isinstance(self._forward_pass, ClusterPass):
            return sys.maxsize
        return self.task.at_once if isinstance(self.task, CommandTask) else 1

    @with_bar("Evaluation")
    def evaluate(
        self,
        mixture: Mixture,
        split: str,
        *,
        keep_outputs: bool = True,
        on_progress: Progress = no_progress,
        progress: bool = True,
    ) -> Evaluation:
        """Return the evaluation of a point on a split, computing it if it is not stored.

        Args:
            mixture: The point.
            split: Name of the split.
            keep_outputs: Whether to keep the outputs of each example, which ensembles need. Points
                along a path do not keep them. Those of a single checkpoint are always kept.
            on_progress: Called with the number of examples done and in total. Raise in it to
                cancel.
            progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.

        Raises:
            TaskError: There is no such split.
            CheckpointError: The weights do not fit the task's network.
        """
        (evaluation,) = self.evaluate_all(
            [mixture], split, keep_outputs=keep_outputs, on_progress=on_progress
        )
        return evaluation

    @with_bar("Evaluations")
    def evaluate_all(
        self,
        mixtures: Sequence[Mixture],
        split: str,
        *,
        keep_outputs: bool = True,
        on_progress: Progress = no_progress,
        progress: bool = True,
    ) -> list[Evaluation]:
        """Return the evaluations of several points, computing those that are not stored.

        Points that another process is computing are not computed here, but awaited at the end.

        Args:
            mixtures: The points; equal ones are evaluated once.
            split: Name of the split.
            keep_outputs: As for `evaluate`.
            on_progress: Called with the number of examples done and in total. Raise in it to
                cancel. It may call this evaluator to evaluate another point.
            progress: Whether to show a bar in a terminal or notebook if `on_progress` is not given.

        Returns:
            The evaluations, in the order of the points.

        Raises:
            TaskError, CheckpointError: As for `evaluate`.
        """
        points = {self.key(mixture): mixture for mixture in mixtures}
        with_outputs = {k for k, p in points.items() if keep_outputs or len(p.coefficients) == 1}

        def known(keys: Sequence[str], split: str) -> dict[str, Evaluation]:
            stored = self._stored.known(keys, split)
            return {k: e for k, e in stored.items() if e.has_outputs or k not in with_outputs}

        found = known(list(points), split)
        wholes: dict[str, Evaluation] = {}
        if (whole := self.task.whole_of(split)) != split:
            wholes = known([key for key in points if key not in found], whole)
            if needs_outputs(self.task):
                wholes = {key: each for key, each in wholes.items() if each.has_outputs}
        missing = {k: p for k, p in points.items() if k not in found and k not in wholes}
        _check_unchanged(missing.values())
        examples, done = len(self.task.split(split)), 0
        total = len(points) * examples
        place = self.task.key, self.task.split(split).digest
        claimed = self._claims.batches(
            list(missing),
            place,
            with_outputs,
            on_wait=lambda: on_progress(done, total),
            least=self.at_once,
        )
        with closing(claimed), self._stored.buffer(split) as buffer:
            for key in (key for key in points if key not in missing):
                if key in wholes:
                    on_whole = self._computed_again_if_damaged(wholes[key], points[key])
                    records = records_in(on_whole, self.task.rows_of(split))
                    self._add(buffer, key, records, split, 0.0, keep_outputs=on_whole.has_outputs)
                done += examples
                on_progress(done, total)
            for ours, elsewhere in claimed:
                if elsewhere:
                    found |= known(elsewhere, split)
                    done += len(elsewhere) * examples
                    on_progress(done, total)
                computed = self._computed(
                    {key: points[key] for key in ours},
                    split,
                    with_outputs,
                    stretch(on_progress, done, len(ours) * examples, total),
                )
                with closing(computed):
                    for key, records, seconds in computed:
                        keep = key in with_outputs
                        self._add(buffer, key, records, split, seconds, keep_outputs=keep)
                done += len(ours) * examples
                buffer.write()  # this releases their claims
        found |= buffer.written
        safe = {k: self._computed_again_if_damaged(found[k], p) for k, p in points.items()}
        for key in with_outputs:
            if safe[key].lacks_interval:
                on_progress(done, total)
                safe[key] = self._with_interval(safe[key])
        return [safe[self.key(mixture)] for mixture in mixtures]

    def _computed(
        self,
        points: Mapping[str, Mixture],
        split: str,
        with_outputs: Collection[str],
        on_progress: Progress,
    ) -> Generator[tuple[str, ExampleRecords, float]]:
        """Yield the key, the records and the seconds of each point, computed now.

        Args:
            points: The points, by key.
            split: Name of the split.
            with_outputs: Keys of the points whose outputs are kept.
            on_progress: Called with the number of examples done and in total.
        """
        if not points:
            return
        examples = len(self.task.split(split))
        total = len(points) * examples
        if isinstance(self._forward_pass, ClusterPass):
            wanted = [(key, point, key in with_outputs) for key, point in points.items()]
            yield from self._forward_pass.run_all(
                wanted, split, self.estimate, lambda ended: on_progress(ended * examples, total)
            )
            return
        if isinstance(self._forward_pass, CommandPass) and self.at_once > 1:
            yield from self._forward_pass.run_all(
                points, split, lambda ended: on_progress(ended * examples, total)
            )
            return
        for index, (key, point) in enumerate(points.items()):
            started = time.perf_counter()
            records = self._forward_pass.run(
                point,
                split,
                keep_outputs=key in with_outputs,
                estimate=self.estimate,
                on_progress=stretch(on_progress, index * examples, examples, total),
            )
            yield key, records, time.perf_counter() - started

    def evaluate_or_reject(
        self,
        mixture: Mixture,
        incumbent: Evaluation,
        *,
        strictly: bool = False,
        difficulty: Tensor | None = None,
        on_progress: Progress = no_progress,
    ) -> Evaluation | UpperBound:
        """Evaluate a point on the split of an incumbent, unless it is rejected early.

        The point is rejected once the remaining examples cannot raise its score to that of the
        incumbent (see `soupcore.evaluation.early_rejection`). Without a `score_range` of the task,
        or with a `precision` below float32, it is always evaluated on all examples.

        Args:
            mixture: The point.
            incumbent: The evaluation with the score to reach.
            strictly: Whether the point has to be better than the incumbent.
            difficulty: A number for each example, shape [n]. Examples with larger ones come first.
                By default, the incumbent's losses.
            on_progress: Called with the number of examples done and in total. Raise in it to
                cancel.

        Returns:
            The evaluation, which may have a lower score; or, if the point was rejected early, an
            upper bound of its score.

        Raises:
            TaskError, CheckpointError: As for `evaluate`.
        """
        split, key = incumbent.split, self.key(mixture)
        (known,) = self.stored([mixture], split)
        if known is not None:
            on_progress(known.n, known.n)
            return self._with_interval(self._computed_again_if_damaged(known, mixture))
        # For a metric that is not a mean, partial scores give no bound.
        # Below float32, the scores of a candidate may depend on the order of its examples.
        is_bounded = self.task.metric.is_mean and self.task.precision == "float32"
        score_range = self.task.score_range if is_bounded else None
        if score_range is None:
            return self.evaluate(mixture, split, on_progress=on_progress)
        rejection = EarlyRejection(
            incumbent.scores,
            strictly=strictly,
            lowest=score_range[0],
            highest=score_range[1],
            difficulty=incumbent.losses if difficulty is None else difficulty,
            weights=incumbent.weights,
        )
        before = self._stored.part(key, split)
        if before is not None and rejection.is_rejected(before[1], before[0]):
            on_progress(incumbent.n, incumbent.n)
            return rejection.bound(key, split, *before)
        _check_unchanged([mixture])
        started = time.perf_counter()
        records = self._forward_pass.run(
            mixture, split, estimate=self.estimate, rejection=rejection, on_progress=on_progress
        )
        if len(records) == incumbent.n:
            seconds = time.perf_counter() - started
            with self._stored.buffer(split) as buffer:
                whole = records.in_order(rejection.order)
                self._add(buffer, key, whole, split, seconds, keep_outputs=True)
            return self._with_interval(buffer.written[key])
        rows = rejection.order[: len(records)]
        self._stored.add_part(key, split, rows, records.scores)
        return rejection.bound(key, split, rows, records.scores)

    def average_outputs(
        self,
        members: Sequence[Mixture],
        split: str,
        *,
        on_progress: Progress = no_progress,
    ) -> ExampleRecords:
        """Return the records of an ensemble whose network outputs are averaged batch by batch.

        For tasks whose outputs are too large to keep (see `Task.averages`). Nothing is stored.

        Args:
            members: The points, at least one.
            split: Name of the split.
            on_progress: Called with the number of examples done and in total, over all members.
                Raise in it to cancel.

        Raises:
            TaskError, CheckpointError: As for `evaluate`.
        """
        _check_unchanged(members)
        assert not isinstance(self._forward_pass, CommandPass)  # noqa: S101 - has no outputs
        return self._forward_pass.run_ensemble(
            members, split, estimate=self.estimate, on_progress=on_progress
        )

    def preview(
        self, mixture: Mixture, split: str, *, on_progress: Progress = no_progress
    ) -> Preview:
        """Evaluate a point in bfloat16, and measure the error of bfloat16.

        The error is measured on the first ingredient of the mixture, which is also evaluated in
        float32 if this evaluation is not stored. Previews are not stored.

        Args:
            mixture: The point.
            split: Name of the split.
            on_progress: Called with the number of examples done and in total. Raise in it to
                cancel.

        Raises:
            TaskError, CheckpointError: As for `evaluate`.
        """
        reference = Mixture([(next(iter(mixture.sources.values())), 1)])
        in_float32 = self.evaluate(reference, split, on_progress=part(on_progress, 0, 3))
        key = self.key(reference), self.task.split(split).digest, self.task.primary
        if key not in self._previewed:
            progress = part(on_progress, 1, 3)
            self._previewed[key] = self._bfloat16_means(reference, split, progress)
        loss, score = self._bfloat16_means(mixture, split, part(on_progress, 2, 3))
        reference_loss, reference_score = self._previewed[key]
        return Preview(
            self.key(mixture),
            split,
            in_float32.n,
            next(iter(mixture.sources)),
            loss,
            score,
            loss_effect=reference_loss - in_float32.loss,
            score_effect=reference_score - in_float32.score,
        )

    def _bfloat16_means(
        self, mixture: Mixture, split: str, on_progress: Progress
    ) -> tuple[float, float]:
        """Return the mean loss and score of a point in bfloat16."""
        _check_unchanged([mixture])
        records = self._forward_pass.run(
            mixture,
            split,
            keep_outputs=False,
            estimate=self.estimate,
            in_bfloat16=True,
            on_progress=on_progress,
        )
        measured = self._measured(self.task, records, split, with_interval=False)
        return measured.loss, measured.score

    def _add(
        self,
        buffer: WriteBuffer,
        key: str,
        records: ExampleRecords,
        split: str,
        seconds: float,
        *,
        keep_outputs: bool,
    ) -> None:
        """Compute the scores of a point from its example records, and store both."""
        by_default = self.task.with_primary(None)
        measured = self._measured(by_default, records, split, with_interval=keep_outputs)
        buffer.add(key, records if keep_outputs else records.without_outputs, measured, seconds)

    def _measured(
        self, task: Task, records: ExampleRecords, split: str, *, with_interval: bool
    ) -> Measured:
        targets, groups = self._forward_pass.targets(split), self.task.groups_of(split)
        weights = self.task.split(split).weights
        return measure(task, records, targets, groups, weights, with_interval=with_interval)

    def _with_interval(self, evaluation: Evaluation) -> Evaluation:
        """Compute the interval by a chosen primary metric if it is missing, and store it."""
        if not evaluation.lacks_interval:
            return evaluation
        return self._stored.add_interval(evaluation, *interval_of(self.task, evaluation))

    def _computed_again_if_damaged(self, evaluation: Evaluation, mixture: Mixture) -> Evaluation:
        """Return an evaluation that is computed again if its file of arrays is damaged."""
        remove_from_store = evaluation.on_damage

        @cache  # computes it once, although each array of the damaged file calls this
        def again() -> Evaluation:
            if remove_from_store is not None:
                remove_from_store()
            return self.evaluate(mixture, evaluation.split, keep_outputs=evaluation.has_outputs)

        return replace(evaluation, on_damage=again)


def _check_unchanged(points: Iterable[Mixture]) -> None:
    sources = {digest: c for point in points for digest, c in point.sources.items()}
    for checkpoint in sources.values():
        checkpoint.check_unchanged()
