"""The engine: the weights of a point into the model, the split through it, the result kept."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from soupcore.checkpoints import Checkpoint
from soupcore.errors import TaskError
from soupcore.evaluation.devices import choose_device, deterministic
from soupcore.evaluation.evaluation import Evaluation
from soupcore.evaluation.fitting import under_names_of
from soupcore.evaluation.statistics import score_interval
from soupcore.mixtures import Mixture
from soupcore.store import EvaluationRow, Store
from soupcore.tasks import Task

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Take a report of progress and do nothing with it."""


def part(on_progress: Progress, index: int, count: int) -> Progress:
    """Return the progress of one of `count` equal parts, as told to the progress of the whole."""
    return lambda done, total: on_progress(index * total + done, count * total)


class Evaluator:
    """Evaluates points on a task, each once: what the store knows is not computed again.

    Building one is cheap; the network and the data go to the device with the first evaluation.

    Args:
        task: How to judge weights.
        store: Where results are kept; the workspace's unless given.
        device: `auto`, or a device as torch names it.
        batch_size: Examples a forward pass.
        memory_budget: Bytes of ingredients to keep in memory between evaluations; beyond it they
            are read from their files again.
    """

    def __init__(
        self,
        task: Task,
        store: Store | None = None,
        *,
        device: str = "auto",
        batch_size: int = 256,
        memory_budget: int = 2 << 30,
    ) -> None:
        self.task = task
        self.store = store or Store()
        self.device = choose_device(device)
        self.batch_size = batch_size
        self._memory_budget = memory_budget
        self._model: nn.Module | None = None
        self._in_model: Mixture | None = None
        self._resident: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._data: dict[str, tuple[Tensor, Tensor]] = {}

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
        points = list(dict.fromkeys(mixtures))
        known = dict(zip(points, self.stored(points, split), strict=True))
        found = {}
        for index, point in enumerate(points):
            progress = part(on_progress, index, len(points))
            wanted = keep_outputs or len(point.coefficients) == 1
            evaluation = known[point]
            if evaluation is None or (wanted and not evaluation.has_outputs):
                evaluation = self._compute(point, split, wanted, progress)
            else:
                progress(evaluation.n, evaluation.n)
            found[point] = evaluation
        return [found[mixture] for mixture in mixtures]

    def stored(self, mixtures: Sequence[Mixture], split: str) -> list[Evaluation | None]:
        """Return what is already known of points on a split, None where nothing is."""
        rows = self.store.evaluations(
            [mixture.key for mixture in mixtures], self.task.key, self.task.split(split).digest
        )
        return [
            self._from_row(rows[mixture.key], split) if mixture.key in rows else None
            for mixture in mixtures
        ]

    def missing(self, mixtures: Iterable[Mixture], split: str) -> list[Mixture]:
        """Return the points that would have to be computed, each once."""
        points = list(dict.fromkeys(mixtures))
        known = self.stored(points, split)
        return [point for point, found in zip(points, known, strict=True) if found is None]

    def _compute(
        self, mixture: Mixture, split: str, keep_outputs: bool, on_progress: Progress
    ) -> Evaluation:
        started = time.perf_counter()
        outputs, losses, scores = self._forward(mixture, split, on_progress)
        arrays = {
            "losses": losses,
            "scores": scores,
            # A copy: where a prediction is the output itself, the two would share memory.
            "predictions": self.task.predict(outputs).clone(memory_format=torch.contiguous_format),
        }
        row = self.store.add_evaluation(
            mixture.key,
            self.task.key,
            self.task.split(split).digest,
            loss=float(losses.double().mean()),
            score=float(scores.double().mean()),
            score_interval=score_interval(scores),
            seconds=time.perf_counter() - started,
            arrays=arrays | ({"outputs": outputs} if keep_outputs else {}),
        )
        return self._from_row(row, split)

    def _from_row(self, row: EvaluationRow, split: str) -> Evaluation:
        return Evaluation(
            mixture_key=row.mixture_key,
            split=split,
            n=row.n,
            loss=_number(row.loss),
            score=_number(row.score),
            score_interval=(_number(row.score_low), _number(row.score_high)),
            seconds=row.seconds,
            has_outputs=row.has_outputs,
            arrays=self.store.folder / row.arrays,
            task_key=row.task_key,
            split_digest=row.split_digest,
        )

    @torch.inference_mode()
    def _forward(
        self, mixture: Mixture, split: str, on_progress: Progress
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs, targets = self._split_on_device(split)
        model = self._model_with(mixture)
        outputs, losses, scores = [], [], []
        with deterministic():
            for start in range(0, len(inputs), self.batch_size):
                batch = slice(start, start + self.batch_size)
                output = model(inputs[batch])  # [b, ...]
                loss = self.task.loss(output, targets[batch])  # [b]
                score = self.task.score(output, targets[batch])  # [b]
                self._check_one_each(loss, score, len(output))
                losses.append(loss.float().cpu())
                scores.append(score.float().cpu())
                outputs.append(output.cpu())
                on_progress(min(batch.stop, len(inputs)), len(inputs))
                if self._in_model is not mixture:
                    # Whoever was told of the progress had another point evaluated meanwhile.
                    self._model_with(mixture)
        return torch.cat(outputs), torch.cat(losses), torch.cat(scores)

    def _check_one_each(self, loss: Tensor, score: Tensor, n: int) -> None:
        for what, found in (("loss", loss), ("score", score)):
            if found.shape != (n,):
                raise TaskError(
                    f"The {what} of the task {self.task.name!r} has shape {list(found.shape)} for "
                    f"{n} examples; return one number an example (reduction='none')."
                )

    def _model_with(self, mixture: Mixture) -> nn.Module:
        if self._model is None:
            self._model = self.task.build_model().to(self.device).eval()
        state = self._model.state_dict()
        renamed = under_names_of(state, mixture, self.task.name)
        self._make_resident(renamed)
        self._in_model = None
        for name, tensor in state.items():
            # The tensors of a state dict share the model's memory: writing them sets its weights.
            tensor.copy_(renamed.tensor(name, self._read))
        self._in_model = mixture
        return self._model

    def _read(self, checkpoint: Checkpoint, name: str, start: int, stop: int) -> Tensor:
        resident = self._resident.get(checkpoint.digest)
        if resident is None:
            return checkpoint.read_elements(name, start, stop)
        return resident[name][start:stop]

    def _make_resident(self, mixture: Mixture) -> None:
        """Load as many of the sources as fit the budget, in place of what is not needed now."""
        for digest, checkpoint in mixture.sources.items():
            checkpoint.check_unchanged()
            if digest in self._resident:
                self._resident.move_to_end(digest)
                continue
            while self._resident_bytes() + checkpoint.nbytes > self._memory_budget:
                oldest = next(iter(self._resident), None)
                if oldest is None or oldest in mixture.sources:
                    break
                del self._resident[oldest]
            else:
                self._resident[digest] = {
                    name: checkpoint.read(name).reshape(-1) for name in checkpoint.tensors
                }

    def _resident_bytes(self) -> int:
        return sum(t.nbytes for tensors in self._resident.values() for t in tensors.values())

    def _split_on_device(self, split: str) -> tuple[Tensor, Tensor]:
        if split not in self._data:
            data = self.task.split(split)
            self._data[split] = data.inputs.to(self.device), data.targets.to(self.device)
        return self._data[split]


def _number(value: float | None) -> float:
    return math.nan if value is None else value
