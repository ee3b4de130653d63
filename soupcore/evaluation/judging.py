"""What the task says of the network's outputs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.tasks import Task

# The task is asked about this many examples at a time: asking about each batch of a small network
# takes a tenth of the pass, and asking about all at once takes memory that need not be free.
_AT_A_TIME = 1024


@dataclass(frozen=True)
class Judged:
    """What was found of some examples, one a row, on the CPU.

    Attributes:
        losses: Float32, shape [n].
        scores: Float32, shape [n].
        predictions: Shape [n, ...].
        outputs: Shape [n, ...]; None where they were not to be kept.
    """

    losses: Tensor
    scores: Tensor
    predictions: Tensor
    outputs: Tensor | None

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def loss(self) -> float:
        """The mean loss, summed in float64."""
        return float(self.losses.double().mean())

    @property
    def arrays(self) -> dict[str, Tensor]:
        """What there is, by name."""
        found = {"losses": self.losses, "scores": self.scores, "predictions": self.predictions}
        return found if self.outputs is None else found | {"outputs": self.outputs}

    def in_order(self, order: Tensor) -> "Judged":
        """Return the same of all examples, seen in this order, in the order of the split."""
        back = order.argsort()
        outputs = None if self.outputs is None else self.outputs[back]
        return Judged(self.losses[back], self.scores[back], self.predictions[back], outputs)


def judge(task: Task, outputs: Tensor, targets: Tensor, *, keep_outputs: bool = False) -> Judged:
    """Ask a task about outputs and targets on one device.

    Args:
        task: Who is asked.
        outputs: What the network put out, shape [n, ...].
        targets: What it should have, shape [n, ...].
        keep_outputs: Whether to keep the outputs beside the answers.

    Raises:
        TaskError: It does not answer with one loss and one score an example.
    """
    losses, scores = task.loss(outputs, targets), task.score(outputs, targets)
    for what, found in (("loss", losses), ("score", scores)):
        if found.shape != (len(outputs),):
            raise TaskError(
                f"The {what} of the task {task.name!r} has shape {list(found.shape)} for "
                f"{len(outputs)} examples; return one number an example (reduction='none')."
            )
    # A copy: where a prediction is the output itself, the two would share memory.
    predictions = task.predict(outputs).clone(memory_format=torch.contiguous_format)
    kept = outputs.cpu() if keep_outputs else None
    return Judged(losses.float().cpu(), scores.float().cpu(), predictions.cpu(), kept)


class Judge:
    """Collects the outputs of a pass and what the task says of them.

    Args:
        task: Who is asked.
        keep_outputs: Whether to keep the outputs.
    """

    def __init__(self, task: Task, *, keep_outputs: bool) -> None:
        self._task = task
        self._keep_outputs = keep_outputs
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._judged: list[Judged] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Take the outputs of a batch; where this fails, they are not taken."""
        waiting = [*self._waiting, (outputs, targets)]
        if sum(len(targets) for _, targets in waiting) < _AT_A_TIME:
            self._waiting = waiting
        else:
            self._ask(waiting)

    @property
    def scores(self) -> Tensor:
        """The scores so far, shape [m]."""
        self._ask(self._waiting)
        return torch.cat([judged.scores for judged in self._judged])

    @property
    def result(self) -> Judged:
        """What was found so far."""
        self._ask(self._waiting)
        found = self._judged
        return Judged(
            torch.cat([judged.losses for judged in found]),
            torch.cat([judged.scores for judged in found]),
            torch.cat([judged.predictions for judged in found]),
            torch.cat([j.outputs for j in found if j.outputs is not None])
            if self._keep_outputs
            else None,
        )

    def _ask(self, waiting: Sequence[tuple[Tensor, Tensor]]) -> None:
        if waiting:
            outputs, targets = (torch.cat(tensors) for tensors in zip(*waiting, strict=True))
            judged = judge(self._task, outputs, targets, keep_outputs=self._keep_outputs)
            self._judged.append(judged)
            self._waiting = []
