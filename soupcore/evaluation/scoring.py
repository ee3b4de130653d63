"""Records of examples: losses, scores and predictions, computed by the task's functions."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from soupcore.display import in_words
from soupcore.errors import Cancelled, StockpotError, TaskError
from soupcore.evaluation.data import Data, is_out_of_memory
from soupcore.tasks import Task
from soupcore.tasks.examples import Batch, Rows, described, take
from soupcore.tasks.task import place_of

# The task's functions are called for this many examples at a time. Calls for each batch of a small
# network would take a tenth of the pass, and a call for all examples may need too much memory.
_AT_A_TIME = 1024

# Tolerances for values of an example that is scored together with other examples: relative to the
# value, and relative to the largest value. Changes in the order of sums are smaller, and effects of
# batch statistics are larger.
_TOLERANCE, _ROUNDING = 1e-4, 1e-6


@dataclass(frozen=True)
class ExampleRecords:
    """Losses, scores and predictions of some examples, one per row, on the CPU.

    Attributes:
        losses: Float32, shape [n].
        scores: Float32, shape [n].
        predictions: Shape [n, ...].
        outputs: Shape [n, ...]; None if they are not kept.
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
        """The arrays by name."""
        arrays = {"losses": self.losses, "scores": self.scores, "predictions": self.predictions}
        return arrays if self.outputs is None else arrays | {"outputs": self.outputs}

    @property
    def without_outputs(self) -> "ExampleRecords":
        """A copy without outputs."""
        return replace(self, outputs=None)

    def in_order(self, order: Tensor) -> "ExampleRecords":
        """Return the records in the order of the split, given the order of evaluation."""
        back = order.argsort()
        outputs = None if self.outputs is None else self.outputs[back]
        return ExampleRecords(self.losses[back], self.scores[back], self.predictions[back], outputs)


class Scorer:
    """Calls a task's functions on the outputs for one split, and checks their results.

    Args:
        task: The task.
        split: Name of the split.
        targets: All targets of the split, shape [n, ...].
    """

    def __init__(self, task: Task, split: str, targets: Tensor) -> None:
        self._task = task
        self._split = split
        self._targets = targets
        self._is_checked = False
        self._shape: torch.Size | None = None
        self._checks = {"loss": _IndependenceCheck(), "score": _IndependenceCheck()}

    def records(self, forward: Callable[..., Any], data: Data, rows: Rows) -> tuple[Tensor, Tensor]:
        """Run some examples through the network, and return their records.

        Args:
            forward: The network.
            data: The data of the split.
            rows: Indices of the examples.

        Returns:
            The task's records, shape [m, ...], and the targets for `Task.loss` and `Task.score`.

        Raises:
            TaskError: The network or `record` fails, or there is not one record per example.
        """
        advice = (
            "To see where, call `task.build_model()` on a few of "
            f"`task.split({self._split!r}).inputs`, after the split's `prepare` if it has one."
        )
        whole = data.inputs.structured
        with _task_errors("the network", self._task, self._split, advice, inputs=whole):
            outputs, inputs, targets = data.through(forward, rows)
        target_rows = take(data.target_tensor, rows)
        weights = data.weights_of_tokens(rows)
        return self.recorded(outputs, inputs, targets, len(target_rows), weights), target_rows

    def score(
        self, outputs: Tensor, targets: Tensor, *, keep_outputs: bool = False
    ) -> ExampleRecords:
        """Compute losses, scores and predictions.

        Args:
            outputs: The task's records of the outputs (see `Task.record`), shape [n, ...].
            targets: The targets on the same device, shape [n, ...].
            keep_outputs: Whether to keep the records of the outputs too.

        Raises:
            TaskError: The outputs or targets do not suit the task, one of its functions fails, or
                it does not return one loss and one score per example, each independent of other
                examples.
        """
        self._check(outputs)
        losses = self._per_example("loss", self._task.loss, outputs, targets)
        scores = self._per_example("score", self._task.score, outputs, targets)
        # A copy, since a prediction may be the output itself and share its memory.
        predictions = self._predict(outputs).clone(memory_format=torch.contiguous_format)
        if predictions.shape[:1] != outputs.shape[:1]:
            raise TaskError(
                f"`predict` of the task {self._task.name!r} returns {described(predictions)} for "
                f"{len(outputs)} examples; return one prediction for each."
            )
        kept = outputs.cpu() if keep_outputs else None
        return ExampleRecords(losses, scores, predictions.cpu(), kept)

    def check_size(self, outputs: Tensor, n: int, *, keep_outputs: bool) -> None:
        """Check that the stored records of a split fit the task's `record_budget`.

        Args:
            outputs: The task's records of a few examples, shape [m, ...].
            n: Number of examples of the split.
            keep_outputs: Whether outputs are stored.

        Raises:
            TaskError: They do not fit.
        """
        self._check(outputs)
        kept = {"records": outputs[:1]} if keep_outputs else {}
        kept["predictions"] = self._predict(outputs[:1])
        sizes = {name: tensor.nbytes for name, tensor in kept.items()}
        needed, budget = n * sum(sizes.values()), self._task.record_budget
        if needed <= budget:
            return
        each = " and ".join(
            f"{in_words(sizes[name])} of {name} ({described(tensor)})"
            for name, tensor in kept.items()
        )
        raise TaskError(
            f"An evaluation of the split {self._split!r} of the task {self._task.name!r} would "
            f"keep {in_words(needed)}: for each of {n} examples {each}. The task's "
            f"`record_budget` is {in_words(budget)}. Override `record` and `predict` to return "
            "only the few numbers of each example that its loss, score and metrics need, such as "
            "the summed loss and the number of tokens of a text; or set `record_budget` of the "
            "task to more bytes."
        )

    def _predict(self, outputs: Tensor) -> Tensor:
        with _task_errors("`predict`", self._task, self._split, "Correct it.", outputs=outputs):
            return self._task.predict(outputs)

    def recorded(
        self,
        outputs: Any,
        inputs: Batch,
        targets: Batch,
        examples: int,
        weights: Tensor | None = None,
    ) -> Tensor:
        """Return the task's records of the outputs, shape [n, ...].

        Args:
            outputs: The return value of the network for a batch.
            inputs: The inputs of the batch.
            targets: Its targets.
            examples: Number of examples.
            weights: The weights of its tokens, or None.

        Raises:
            TaskError: They are not one tensor with one row per example.
        """
        given = {"inputs": inputs, "targets": targets}
        weighted = {} if weights is None else {"weights": weights}
        try:
            with _task_errors("`record`", self._task, self._split, "Correct it.", **given):
                records: Any = self._task.record(outputs, inputs, targets, **weighted)
        except TaskError as error:
            raise TaskError(
                f"The task {self._task.name!r} cannot score the split {self._split!r}: {error}"
            ) from error
        source = "The network" if type(self._task).record is Task.record else "`record`"
        subject = f"{source} of the task {self._task.name!r}"
        if not isinstance(records, Tensor) or records.shape[:1] != (examples,):
            raise TaskError(
                f"{subject} returns {described(records)} for {examples} examples of the split "
                f"{self._split!r}. Return one row for each example."
            )
        if self._shape is None:
            self._shape = records.shape[1:]
        if records.shape[1:] != self._shape:
            raise TaskError(
                f"{subject} returns shape {list(self._shape)} for one example of the split "
                f"{self._split!r} and {list(records.shape[1:])} for another. Pad them to one "
                "shape, or have the task's `record` return a row of fixed shape with the numbers "
                "that its loss and score need."
            )
        return records

    def _check(self, outputs: Tensor) -> None:
        if self._is_checked:
            return
        given = {"outputs": outputs, "targets": self._targets}
        try:
            with _task_errors("`check`", self._task, self._split, "Correct it.", **given):
                self._task.check(outputs, self._targets)
        except TaskError as error:
            raise TaskError(
                f"The task {self._task.name!r} cannot score the split {self._split!r}: {error}"
            ) from error
        self._is_checked = True

    def _per_example(
        self,
        name: str,
        function: Callable[[Tensor, Tensor], Tensor],
        outputs: Tensor,
        targets: Tensor,
    ) -> Tensor:
        """Return the loss or the score of each example, float32, on the CPU."""
        values = self._computed(name, function, outputs, targets)
        check = self._checks[name]
        if not check.is_settled and len(outputs) > 1:
            parts = [
                self._computed(name, function, *part)
                for part in zip(outputs.tensor_split(2), targets.tensor_split(2), strict=True)
            ]
            differs = check.compare(values, torch.cat(parts))
            if differs is not None:
                together, apart = float(values[differs]), float(torch.cat(parts)[differs])
                raise TaskError(
                    f"The {name} of an example of the split {self._split!r} depends on the "
                    f"examples it is scored with: it is {together:.6g} among {len(outputs)} and "
                    f"{apart:.6g} among {len(parts[0])}. `{name}` of the task {self._task.name!r} "
                    "must return a number that depends on each example alone. F1, AUC, "
                    "correlations and other statistics of a batch belong in the task's `metrics`."
                )
        undefined = values.isnan()
        if undefined.any() and outputs.numel():
            # If the network failed, the value is the worst possible one, and not undefined.
            failed = ~outputs.reshape(len(outputs), -1).isfinite().all(1).cpu()
            worst = math.inf if name == "loss" else -math.inf
            values = values.masked_fill(undefined & failed, worst)
        return values

    def _computed(
        self,
        name: str,
        function: Callable[[Tensor, Tensor], Tensor],
        outputs: Tensor,
        targets: Tensor,
    ) -> Tensor:
        """Call a function of the task and check the shape of its result."""
        advice = f"Adapt `{name}` to these arguments, or change the network or the split."
        given = {"outputs": outputs, "targets": targets}
        with _task_errors(f"`{name}`", self._task, self._split, advice, **given):
            values: Any = function(outputs, targets)
        if not isinstance(values, Tensor) or values.shape != (len(outputs),):
            found = (
                f"has shape {list(values.shape)}"
                if isinstance(values, Tensor)
                else f"is a {type(values).__name__}"
            )
            raise TaskError(
                f"The {name} of the task {self._task.name!r} {found} for {len(outputs)} examples "
                f"of the split {self._split!r}; return one number per example, a tensor of shape "
                f"[{len(outputs)}] (reduction='none', and the mean over other dimensions)."
            )
        # A copy, since it may be a part of the outputs and share their memory.
        return values.to("cpu", torch.float32, copy=True)


class Collector:
    """Collects the outputs of a pass and scores them in larger batches.

    Args:
        scorer: The scorer.
        n: Number of examples of the split.
        keep_outputs: Whether to keep the outputs.
    """

    def __init__(self, scorer: Scorer, n: int, *, keep_outputs: bool) -> None:
        self._scorer = scorer
        self._n = n
        self._keep_outputs = keep_outputs
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._collected: list[ExampleRecords] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Add the records of a batch. If this raises an error, they are not added.

        Raises:
            TaskError: As for `Scorer.score`; or the records of all examples would be too large.
        """
        if not self._waiting and not self._collected:
            self._scorer.check_size(outputs, self._n, keep_outputs=self._keep_outputs)
        waiting = [*self._waiting, (outputs, targets)]
        if sum(len(targets) for _, targets in waiting) < _AT_A_TIME:
            self._waiting = waiting
        else:
            self._score(waiting)

    @property
    def scores(self) -> Tensor:
        """The scores so far, shape [m]."""
        self._score(self._waiting)
        return torch.cat([records.scores for records in self._collected])

    @property
    def result(self) -> ExampleRecords:
        """The records so far."""
        self._score(self._waiting)
        collected = self._collected
        return ExampleRecords(
            torch.cat([records.losses for records in collected]),
            torch.cat([records.scores for records in collected]),
            torch.cat([records.predictions for records in collected]),
            torch.cat([r.outputs for r in collected if r.outputs is not None])
            if self._keep_outputs
            else None,
        )

    def _score(self, waiting: Sequence[tuple[Tensor, Tensor]]) -> None:
        if waiting:
            outputs, targets = (torch.cat(tensors) for tensors in zip(*waiting, strict=True))
            records = self._scorer.score(outputs, targets, keep_outputs=self._keep_outputs)
            self._collected.append(records)
            self._waiting = []


@contextmanager
def _task_errors(
    subject: str, task: Task, split: str, advice: str, **tensors: Any
) -> Iterator[None]:
    """Raise a `TaskError` in place of errors that a task's code raises in the context.

    Stockpot's own errors, cancellations and out-of-memory errors pass unchanged.

    Args:
        subject: The code that runs in the context, such as "the network".
        task: The task.
        split: Name of the split.
        advice: The solution, as a sentence.
        tensors: Arguments of the code, by name.
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
            f"{subject[0].upper()}{subject[1:]} of the task {task.name!r} raised "
            f"{type(error).__name__} on the split {split!r} (given {given}): "
            f"{str(error).strip()}. {advice} {place_of(error)}".rstrip()
        ) from error


class _IndependenceCheck:
    """Checks whether values of examples are independent of the other examples in a batch.

    Attributes:
        is_settled: Whether this is confirmed. Equal values do not confirm it: the F1 of a batch,
            repeated for each example, is 1 in every part of a batch without mistakes.
    """

    def __init__(self) -> None:
        self.is_settled = False

    def compare(self, together: Tensor, apart: Tensor) -> int | None:
        """Return the first example whose value depends on the others, or None.

        Args:
            together: Values of some examples, computed together, shape [m].
            apart: Values of the same examples, computed in parts, shape [m].
        """
        finite = together[together.isfinite()].abs()
        rounding = _ROUNDING * float(finite.max()) if len(finite) else 0.0
        close = torch.isclose(together, apart, rtol=_TOLERANCE, atol=rounding, equal_nan=True)
        if not close.all():
            return int((~close).nonzero()[0])
        numbers = together[~together.isnan()]
        self.is_settled = bool((numbers != numbers[:1]).any())
        return None
