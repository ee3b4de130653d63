"""Forward passes of a split through the network, at any point in weight space."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from soupcore.display import in_words
from soupcore.errors import TaskError
from soupcore.evaluation.batchnorm import Estimate, estimate_statistics, statistics_of
from soupcore.evaluation.data import Data, is_out_of_memory
from soupcore.evaluation.early_rejection import EarlyRejection
from soupcore.evaluation.measuring import needs_outputs
from soupcore.evaluation.network import Network, computing_on
from soupcore.evaluation.scoring import Collector, ExampleRecords, Scorer
from soupcore.evaluation.shortcuts import Route, Shortcuts
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, no_progress, part, stretch
from soupcore.tasks import Task
from soupcore.tasks.examples import Rows, take
from soupcore.tasks.networks import autocast_dtype, cast_dtype, tensor_of

# Fixed, and not tuned to the machine, so that results repeat to the bit. On a CPU, larger batches
# gain little and have more cache misses.
_BATCH_SIZE = 128

_LONG_READ = 1 << 30  # bytes of weights to read for a point, above which progress is reported

_SUMS = 256 << 20  # bytes of summed outputs of an ensemble

# Number of points whose estimated statistics are cached for their other splits.
_ESTIMATED_POINTS = 100


class ForwardPass:
    """Runs the splits of a task through its network, at any point in weight space.

    Constructing one is cheap. The network and the data are loaded to the device on first use, and
    stay there.

    Args:
        task: The task.
        device: Device for computation.
        batch_size: Examples per forward pass; by default, the task's `batch_size`, or 128.
        memory_budget: Size in bytes of the ingredients to keep in memory.

    Attributes:
        task: The task.
        device: Device for computation.
        notes: Messages about disabled shortcuts.
    """

    def __init__(
        self, task: Task, device: torch.device, batch_size: int | None, memory_budget: int
    ) -> None:
        self.notes: list[str] = []
        self.task = task
        self.device = device
        # Halved if memory runs out.
        self._batch_size = batch_size or task.batch_size or _BATCH_SIZE
        self._memory_budget = memory_budget
        self._at: tuple[Mixture, Estimate | None] | None = None  # the point of the current weights
        self._estimated: OrderedDict[tuple[Mixture, Estimate], list[Tensor]] = OrderedDict()
        self._data: dict[str, Data] = {}
        self._scorers: dict[str, Scorer] = {}

    @cached_property
    def network(self) -> Network:
        """The task's network."""
        return Network(self.task, self.device, self._memory_budget)

    @cached_property
    def shortcuts(self) -> Shortcuts:
        """The shortcuts for its forward pass."""
        # Their memory is in addition to that for the ingredients.
        return Shortcuts(
            self.network,
            self._memory_budget,
            self.notes,
            is_exact=self.task.precision == "float32",
        )

    def data(self, name: str, on_progress: Progress = no_progress) -> Data:
        """Return the data of a split, decoding it on first use."""
        if name not in self._data:
            split = self.task.split(name)
            split.load(on_progress)
            self._data[name] = Data.of(split, self.device, cast_dtype(self.task.precision))
        return self._data[name]

    def targets(self, name: str) -> Tensor:
        """Return the targets of a split for `Task.loss` and `Task.score`, shape [n, ...]."""
        return self.data(name).target_tensor

    def scorer(self, name: str) -> Scorer:
        """Return the scorer of a split."""
        if name not in self._scorers:
            self._scorers[name] = Scorer(self.task, name, self.data(name).target_tensor)
        return self._scorers[name]

    @torch.inference_mode()
    def run(
        self,
        mixture: Mixture,
        split: str,
        *,
        keep_outputs: bool = True,
        estimate: Estimate | None = None,
        rejection: EarlyRejection | None = None,
        in_bfloat16: bool = False,
        on_progress: Progress = no_progress,
    ) -> ExampleRecords:
        """Run the examples of a split through the network with the weights of a point.

        Args:
            mixture: The point.
            split: Name of the split.
            keep_outputs: Whether to keep the outputs of each example. They are always kept if the
                task's metrics are computed from them.
            estimate: Data on which to estimate BatchNorm statistics; None to average them.
            rejection: Determines the order of evaluation and when to stop; None to evaluate all
                examples.
            in_bfloat16: Whether to compute in bfloat16 by torch's autocast.
            on_progress: Called with the number of examples done and in total. Raise in it to
                cancel. It may compute other points.

        Returns:
            The records of the examples that were evaluated, in the order of evaluation.

        Raises:
            TaskError: There is no such split, or one example alone does not fit in memory.
            CheckpointError: The weights do not fit the network, or do not fit in memory.
        """
        if not self.task.split(split).is_loaded:  # the first half of the work
            self.data(split, lambda done, total: on_progress(done, 2 * total))
            whole, on_progress = on_progress, lambda done, total: whole(total + done, 2 * total)
        data = self.data(split)
        scorer = self.scorer(split)
        collector = Collector(
            scorer, len(data), keep_outputs=keep_outputs or needs_outputs(self.task)
        )
        order = data.inputs.by_length if rejection is None else rejection.order
        with computing_on(self.device):
            seen = 0
            mixing: Progress = no_progress
            if self.network.unread(mixture) > _LONG_READ:
                mixing, on_progress = part(on_progress, 0, 2), part(on_progress, 1, 2)
            route = self._go_to(mixture, estimate, split, mixing)
            while seen < len(data):
                size = min(self._batch_size, len(data) - seen)
                rows: Rows = slice(seen, seen + size)
                if rejection is not None:
                    size = rejection.size(seen, self._batch_size)
                if order is not None:
                    rows = order[seen : seen + size]
                if not self._batch(route, rows, size, scorer, collector, in_bfloat16):
                    continue
                seen += size
                if rejection is not None and rejection.is_rejected(collector.scores):
                    on_progress(len(data), len(data))
                    break
                on_progress(seen, len(data))
                if self._at != (mixture, estimate) and seen < len(data):
                    # The progress callback has computed another point.
                    route = self._go_to(mixture, estimate, split)
            records = collector.result
            return records if order is None or rejection is not None else records.in_order(order)

    @torch.inference_mode()
    def run_ensemble(
        self,
        members: Sequence[Mixture],
        split: str,
        *,
        estimate: Estimate | None = None,
        on_progress: Progress = no_progress,
    ) -> ExampleRecords:
        """Average the outputs of several points before the task records them.

        Outputs are summed in float64, for as many batches at a time as fit 256 MB, or one. For each
        of these groups of batches, the weights of each point are loaded once.

        Args:
            members: The points, at least one.
            split: Name of the split.
            estimate: Data on which to estimate BatchNorm statistics; None to average them.
            on_progress: Called with the number of examples done and in total, over all members.
                Raise in it to cancel. It may compute other points.

        Returns:
            The records of the averaged outputs, in the order of the split.

        Raises:
            TaskError: The network's outputs are not one tensor, or one example alone does not fit
                in memory.
            CheckpointError: The weights do not fit the network, or do not fit in memory.
        """
        data, scorer = self.data(split), self.scorer(split)
        collector = Collector(scorer, len(data), keep_outputs=needs_outputs(self.task))
        order = data.inputs.by_length
        in_order = torch.arange(len(data)) if order is None else order
        done, total = 0, len(members) * len(data)
        with computing_on(self.device):
            while done < total:
                rest = in_order[done // len(members) :]
                progress = stretch(on_progress, done, total - done, total)
                try:
                    for rows, summed in self._summed(members, split, estimate, rest, progress):
                        inputs, targets = data.batch(rows)
                        mean = (summed / len(members)).float()
                        weights = data.weights_of_tokens(rows)
                        recorded = scorer.recorded(mean, inputs, targets, len(rows), weights)
                        collector.add(recorded, take(data.target_tensor, rows))
                        done += len(members) * len(rows)
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    self._halve(error, self._batch_size, data)
            records = collector.result
            return records if order is None else records.in_order(order)

    def _summed(
        self,
        members: Sequence[Mixture],
        split: str,
        estimate: Estimate | None,
        rest: Tensor,
        on_progress: Progress,
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the rows of the next batches, and the sums of the members' outputs for each."""
        data, dtype = self.data(split), torch.float64
        if self.device.type == "mps":  # it has no float64
            dtype = torch.float32
        sums: list[tuple[Tensor, Tensor]] = []
        done = 0

        def outputs(member: Mixture, rows: Tensor) -> Tensor:
            nonlocal done
            if self._at != (member, estimate):  # or the progress callback has computed another
                self._put(member, estimate)
            with self._autocast():
                found = tensor_of(data.through(self.network.model, rows)[0])
            done += len(rows)
            on_progress(done, len(members) * len(rest))
            return found

        nbytes = 0
        for rows in torch.split(rest, self._batch_size):
            sums.append((rows, outputs(members[0], rows).to(dtype)))
            nbytes += sums[-1][1].nbytes
            if nbytes + sums[-1][1].nbytes > _SUMS:
                break
        for member in members[1:]:
            for rows, summed in sums:
                summed += outputs(member, rows)
        return sums

    @torch.inference_mode()
    def statistics(self, mixture: Mixture, estimate: Estimate) -> dict[str, Tensor]:
        """Return the BatchNorm statistics at a point, on the CPU, by the point's tensor names."""
        with computing_on(self.device):
            self._put(mixture, estimate)
        names = self.network.name_map.names_in(mixture)
        statistics = statistics_of(self.network.model)
        return {names[name]: tensor.cpu().clone() for name, tensor in statistics.items()}

    def _go_to(
        self,
        mixture: Mixture,
        estimate: Estimate | None,
        split: str,
        on_progress: Progress = no_progress,
    ) -> Route:
        self._put(mixture, estimate, on_progress)
        return self.shortcuts.route(split, self.data(split), self.scorer(split))

    def _put(
        self, mixture: Mixture, estimate: Estimate | None, on_progress: Progress = no_progress
    ) -> None:
        """Load the weights of a point into the network, and estimate its BatchNorm statistics."""
        self._at = None
        self.network.put(mixture, on_progress)
        if estimate is not None:
            self._put_statistics(mixture, estimate)
        self._at = (mixture, estimate)

    def _put_statistics(self, mixture: Mixture, estimate: Estimate) -> None:
        places = list(statistics_of(self.network.model).values())
        known = self._estimated.get((mixture, estimate))
        if known is None:
            data = self.data(estimate.split)
            with self._autocast():
                estimate_statistics(self.network.model, data, estimate.examples)
            known = [place.clone() for place in places]
            self._estimated[mixture, estimate] = known
            if len(self._estimated) > _ESTIMATED_POINTS:
                self._estimated.popitem(last=False)
        for place, tensor in zip(places, known, strict=True):
            place.copy_(tensor)

    def _autocast(self, dtype: torch.dtype | None = None) -> torch.autocast:
        """Return a context that computes in a dtype, or in the precision of the task."""
        dtype = dtype or autocast_dtype(self.task.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    def _batch(
        self,
        route: Route,
        rows: Rows,
        size: int,
        scorer: Scorer,
        collector: Collector,
        in_bfloat16: bool,
    ) -> bool:
        """Compute some rows. Returns False if memory ran out and a smaller batch is needed."""
        forward, data = route
        try:
            with self._autocast(torch.bfloat16 if in_bfloat16 else None):
                records, targets = scorer.records(forward, data, rows)
            is_half = records.dtype in (torch.bfloat16, torch.float16)
            collector.add(records.float() if is_half else records, targets)
            return True
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._halve(error, size, data)
        return False

    def _halve(self, error: BaseException, size: int, data: Data) -> None:
        """Halve the batch size, as memory ran out for a batch of this size."""
        if size == 1:
            one = in_words(data.inputs.nbytes // len(data))
            raise TaskError(
                f"The device {str(self.device)!r} has too little memory for a forward pass of "
                f"even one example ({one}) of the task {self.task.name!r}. Choose another "
                "device, or free memory on it."
            ) from error
        self._batch_size = size // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
