"""Losses, scores and predictions of the network's outputs, as the task defines them."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from soupcore.errors import Cancelled, StockpotError, TaskError
from soupcore.evaluation.data import Data, is_out_of_memory
from soupcore.tasks import Task
from soupcore.tasks.examples import Batch, Rows, described, take
from soupcore.tasks.failures import place_of


@contextmanager
def reworded(what: str, task: Task, split: str, way_out: str, **tensors: Any) -> Iterator[None]:
    """Raise a `TaskError` in place of what a task's code raises inside.

    Errors of ours, a cancellation and the end of memory pass as they are.

    Args:
        what: Whose code runs inside, as "the network".
        task: The task.
        split: Name of the split.
        way_out: What to do, as a sentence.
        tensors: What the code is given, by what it is called there.
    """
    try:
        yield
    except (StockpotError, Cancelled):
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        given = " and ".join(f"{name} {described(tensor)}" for name, tensor in tensors.items())
        raise TaskError(
            f"{what[0].upper()}{what[1:]} of the task {task.name!r} raised "
            f"{type(error).__name__} on the split {split!r} (given {given}): "
            f"{str(error).strip()}. {place_of(error)} {way_out}"
        ) from error


# The task is asked about this many examples at a time: asking about each batch of a small network
# takes a tenth of the pass, and asking about all at once takes memory that need not be free.
_AT_A_TIME = 1024

# How far a number of one example may differ by the examples it is computed with: of itself, and of
# the largest. Sums in another order differ by less, and batch statistics by more.
_TOLERANCE, _ROUNDING = 1e-4, 1e-6


@dataclass(frozen=True)
class ExampleRecords:
    """Losses, scores and predictions of some examples, one a row, on the CPU.

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

    @property
    def without_outputs(self) -> "ExampleRecords":
        """The same without outputs."""
        return replace(self, outputs=None)

    def in_order(self, order: Tensor) -> "ExampleRecords":
        """Return the same of all examples, seen in this order, in the order of the split."""
        back = order.argsort()
        outputs = None if self.outputs is None else self.outputs[back]
        return ExampleRecords(self.losses[back], self.scores[back], self.predictions[back], outputs)


class Scorer:
    """Asks a task about the outputs on one split, and first whether it can be asked at all.

    Args:
        task: Who is asked.
        split: Name of the split.
        targets: All targets of the split, shape [n, ...].
    """

    def __init__(self, task: Task, split: str, targets: Tensor) -> None:
        self._task = task
        self._split = split
        self._targets = targets
        self._is_checked = False
        self._shape: torch.Size | None = None
        self._pieces = {"loss": Pieces(), "score": Pieces()}

    def records(self, forward: Callable[..., Any], data: Data, rows: Rows) -> tuple[Tensor, Tensor]:
        """Take some examples through the network, and return what is recorded of them.

        Args:
            forward: The network.
            data: The data of the split.
            rows: Which examples.

        Returns:
            The task's records, shape [m, ...], and the targets to score them by.

        Raises:
            TaskError: The network or `record` fails, or there is not one record an example.
        """
        way_out = (
            "To see where, call `task.build_model()` on a few of "
            f"`task.split({self._split!r}).inputs`, after the split's `prepare` if it has one."
        )
        whole = data.inputs.structured
        with reworded("the network", self._task, self._split, way_out, inputs=whole):
            outputs, inputs, targets = data.through(forward, rows)
        answers = take(data.answers, rows)
        return self._recorded(outputs, inputs, targets, len(answers)), answers

    def score(
        self, outputs: Tensor, targets: Tensor, *, keep_outputs: bool = False
    ) -> ExampleRecords:
        """Ask the task about records and targets on one device.

        Args:
            outputs: The task's records of the outputs (see `Task.record`), shape [n, ...].
            targets: The true answers, shape [n, ...].
            keep_outputs: Whether to keep the records beside the scores.

        Raises:
            TaskError: The outputs or targets are not of the kind that the task takes, its code
                fails, or it does not answer with one loss and one score an example, each of that
                example alone.
        """
        self._check(outputs)
        losses = self._ask("loss", self._task.loss, outputs, targets)
        scores = self._ask("score", self._task.score, outputs, targets)
        with reworded("`predict`", self._task, self._split, "Correct it.", outputs=outputs):
            # A copy: where a prediction is the output itself, the two would share memory.
            found = self._task.predict(outputs).clone(memory_format=torch.contiguous_format)
        if found.shape[:1] != outputs.shape[:1]:
            raise TaskError(
                f"`predict` of the task {self._task.name!r} returns {described(found)} for "
                f"{len(outputs)} examples; return one prediction for each."
            )
        kept = outputs.cpu() if keep_outputs else None
        return ExampleRecords(losses, scores, found.cpu(), kept)

    def _recorded(self, outputs: Any, inputs: Batch, targets: Batch, examples: int) -> Tensor:
        """Return what the task records of the outputs for so many examples, shape [n, ...].

        Raises:
            TaskError: It is not one tensor, or has other rows.
        """
        given = {"inputs": inputs, "targets": targets}
        try:
            with reworded("`record`", self._task, self._split, "Correct it.", **given):
                found: Any = self._task.record(outputs, inputs, targets)
        except TaskError as error:
            raise TaskError(
                f"The task {self._task.name!r} cannot score the split {self._split!r}: {error}"
            ) from error
        source = "The network" if type(self._task).record is Task.record else "`record`"
        whose = f"{source} of the task {self._task.name!r}"
        if not isinstance(found, Tensor) or found.shape[:1] != (examples,):
            raise TaskError(
                f"{whose} returns {described(found)} for {examples} examples of the split "
                f"{self._split!r}. Return one row for each example."
            )
        if self._shape is None:
            self._shape = found.shape[1:]
        if found.shape[1:] != self._shape:
            raise TaskError(
                f"{whose} returns {list(self._shape)} for one example of the split "
                f"{self._split!r} and {list(found.shape[1:])} for another. Pad them to one shape, "
                "or have the task's `record` return what its loss and score need of each example."
            )
        return found

    def _check(self, outputs: Tensor) -> None:
        if self._is_checked:
            return
        given = {"outputs": outputs, "targets": self._targets}
        try:
            with reworded("`check`", self._task, self._split, "Correct it.", **given):
                self._task.check(outputs, self._targets)
        except TaskError as error:
            raise TaskError(
                f"The task {self._task.name!r} cannot score the split {self._split!r}: {error}"
            ) from error
        self._is_checked = True

    def _ask(
        self, what: str, ask: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor
    ) -> Tensor:
        """Return the loss or the score of each example, float32, on the CPU."""
        found = self._answer(what, ask, outputs, targets)
        pieces = self._pieces[what]
        if not pieces.is_settled and len(outputs) > 1:
            parts = [
                self._answer(what, ask, *part)
                for part in zip(outputs.tensor_split(2), targets.tensor_split(2), strict=True)
            ]
            differs = pieces.compare(found, torch.cat(parts))
            if differs is not None:
                together, apart = float(found[differs]), float(torch.cat(parts)[differs])
                raise TaskError(
                    f"The {what} of an example of the split {self._split!r} depends on the "
                    f"examples it is scored with: it is {together:.6g} among {len(outputs)} and "
                    f"{apart:.6g} among {len(parts[0])}. `{what}` of the task {self._task.name!r} "
                    "must return a number of each example alone; F1, AUC, correlations and "
                    "anything else computed over a batch cannot be used."
                )
        undefined = found.isnan()
        if undefined.any() and outputs.numel():
            # The network failed, which is as bad as can be, and not a case without a score.
            failed = ~outputs.reshape(len(outputs), -1).isfinite().all(1).cpu()
            found = found.masked_fill(undefined & failed, math.inf if what == "loss" else -math.inf)
        return found

    def _answer(
        self, what: str, ask: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor
    ) -> Tensor:
        way_out = f"Have `{what}` take these, or the network and the split give others."
        given = {"outputs": outputs, "targets": targets}
        with reworded(f"`{what}`", self._task, self._split, way_out, **given):
            found: Any = ask(outputs, targets)
        if not isinstance(found, Tensor) or found.shape != (len(outputs),):
            answer = (
                f"has shape {list(found.shape)}"
                if isinstance(found, Tensor)
                else f"is a {type(found).__name__}"
            )
            raise TaskError(
                f"The {what} of the task {self._task.name!r} {answer} for {len(outputs)} examples "
                f"of the split {self._split!r}; return one number an example, a tensor of shape "
                f"[{len(outputs)}] (reduction='none', and the mean over other dimensions)."
            )
        # A copy: where it is a part of the outputs, the two would share memory.
        return found.to("cpu", torch.float32, copy=True)


class Pieces:
    """Whether a number of each example is the same whatever it is computed together with.

    Attributes:
        is_settled: Whether that is known. While all numbers are equal it is not: the F1 of a batch,
            repeated for each example, is 1 in each piece of a batch without a mistake.
    """

    def __init__(self) -> None:
        self.is_settled = False

    def compare(self, together: Tensor, apart: Tensor) -> int | None:
        """Return the first example whose number depends on the others; None where there is none.

        Args:
            together: Of some examples computed together, shape [m].
            apart: Of the same computed in pieces, shape [m].
        """
        finite = together[together.isfinite()].abs()
        rounding = _ROUNDING * float(finite.max()) if len(finite) else 0.0
        close = torch.isclose(together, apart, rtol=_TOLERANCE, atol=rounding, equal_nan=True)
        if not close.all():
            return int((~close).nonzero()[0])
        numbers = together[~together.isnan()]
        self.is_settled = bool((numbers != numbers[:1]).any())
        return None


class Collector:
    """Collects the outputs of a pass and what the task says of them.

    Args:
        scorer: Asks the task.
        keep_outputs: Whether to keep the outputs.
    """

    def __init__(self, scorer: Scorer, *, keep_outputs: bool) -> None:
        self._scorer = scorer
        self._keep_outputs = keep_outputs
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._collected: list[ExampleRecords] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Take the records of a batch; where this fails, they are not taken.

        Raises:
            TaskError: As for `Scorer.score`.
        """
        waiting = [*self._waiting, (outputs, targets)]
        if sum(len(targets) for _, targets in waiting) < _AT_A_TIME:
            self._waiting = waiting
        else:
            self._ask(waiting)

    @property
    def scores(self) -> Tensor:
        """The scores so far, shape [m]."""
        self._ask(self._waiting)
        return torch.cat([records.scores for records in self._collected])

    @property
    def result(self) -> ExampleRecords:
        """What was found so far."""
        self._ask(self._waiting)
        found = self._collected
        return ExampleRecords(
            torch.cat([records.losses for records in found]),
            torch.cat([records.scores for records in found]),
            torch.cat([records.predictions for records in found]),
            torch.cat([j.outputs for j in found if j.outputs is not None])
            if self._keep_outputs
            else None,
        )

    def _ask(self, waiting: Sequence[tuple[Tensor, Tensor]]) -> None:
        if waiting:
            outputs, targets = (torch.cat(tensors) for tensors in zip(*waiting, strict=True))
            records = self._scorer.score(outputs, targets, keep_outputs=self._keep_outputs)
            self._collected.append(records)
            self._waiting = []
