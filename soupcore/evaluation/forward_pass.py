"""Forward passes of a split through the network, by the plain way or by a shortcut.

Shortcuts are compared with the plain forward pass, again and again (see `Shortcuts`).
"""

import math
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from soupcore.disk import in_words
from soupcore.errors import TaskError
from soupcore.evaluation.batchnorm import Estimate, estimate_statistics, statistics_of
from soupcore.evaluation.data import Data, is_out_of_memory
from soupcore.evaluation.early_rejection import EarlyRejection
from soupcore.evaluation.graph_shortcuts import Folding, Prefix, trace
from soupcore.evaluation.measuring import needs_outputs
from soupcore.evaluation.network import Network, computing_on
from soupcore.evaluation.scoring import Collector, ExampleRecords, Scorer
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, no_progress
from soupcore.tasks import Task
from soupcore.tasks.examples import Rows

Forward = Callable[..., Tensor]
Route = tuple[Forward, Data]

LOSS_TOLERANCE = 1e-6  # of the loss, or absolute where the loss is below 1
_EXAMPLES = 256  # that a shortcut is compared on; fewer where they do not fit in memory
_AGAIN = 32  # points after which it is compared again, on the next examples


class Shortcuts:
    """Chooses how to compute the network at a point.

    A shortcut is compared with the plain forward pass on at most 256 examples, when it is first
    used and at every 32nd point after that, each time on the next examples: their mean loss has to
    agree to 1e-6, and each score exactly. One that fails is not used again. That is a sample, no
    proof: points in between, and other examples, are not compared.

    Args:
        network: Its weights are those of the point.
        budget: Bytes that results may take which serve several points.
        notes: Takes what was switched off and why, for people.
    """

    def __init__(self, network: Network, budget: int, notes: list[str]) -> None:
        self._notes = notes
        self._model: Forward = network.model
        self._folding: Folding | None = None
        self._prefix: Prefix | None = None
        self._trusted: set[Forward] = {self._model}
        self._uses: Counter[Forward] = Counter()
        self._largest_scale = 0.0
        self._examples = _EXAMPLES
        # They compute in float64 here and there, which Apple's GPUs do not have.
        has_float64 = all(buffer.device.type != "mps" for buffer in network.buffers.values())
        graph = trace(network.model) if has_float64 else None
        if graph is not None:
            folding = Folding(graph)
            self._folding = folding if len(folding) else None
            self._prefix = Prefix(graph, budget)

    def route(self, split: str, data: Data, scorer: Scorer) -> Route:
        """Return what to call with batches of which data, for the weights the network has now.

        Args:
            split: Name of the split.
            data: Its data.
            scorer: Asks the task about it.
        """
        try:
            return self._shortest(split, data, scorer)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._prefix = None
            self._notes.append(
                "Every layer is computed at every point: results that serve several points do not "
                "fit in memory."
            )
        try:
            return self._shortest(split, data, scorer)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return self._model, data  # not even one example fits, which its batch will say

    def _shortest(self, split: str, data: Data, scorer: Scorer) -> Route:
        plain = self._model, data
        whole = self._whole(plain, scorer)
        if whole is None:
            return plain
        if self._prefix is not None and (found := self._prefix.route(split, data)):
            agrees = self._agrees(
                found, plain, scorer, "The first layers, the same at all points, are"
            )
            if agrees:
                return found
            if agrees is False:
                self._prefix = None
        return whole

    def _whole(self, plain: Route, scorer: Scorer) -> Route | None:
        """Return the whole network, folded if possible; None where only the plain one is safe."""
        if self._folding is None:
            return plain
        scale = self._folding.refresh()
        if not math.isfinite(scale):
            return None
        folded = self._folding.graph, plain[1]
        if scale > self._largest_scale:
            # What was rounded a little differently is multiplied by these factors, so a point
            # with larger ones than those seen so far is another case.
            self._trusted.discard(folded[0])
        agrees = self._agrees(folded, plain, scorer, "BatchNorm is")
        if agrees:
            self._largest_scale = max(scale, self._largest_scale)
            return folded
        if agrees is False:
            self._folding = self._prefix = None
        return None

    def _agrees(self, shortcut: Route, plain: Route, scorer: Scorer, name: str) -> bool | None:
        """Compare a shortcut with the plain way, now and then; None where the point is broken."""
        forward = shortcut[0]
        self._uses[forward] += 1
        times, since = divmod(self._uses[forward], _AGAIN)
        if forward in self._trusted and since:
            return True
        expected, found = self._compared(plain, shortcut, scorer, times * self._examples)
        if expected.losses.isinf().any():
            return None
        if agree(found, expected):
            self._trusted.add(forward)
            return True
        loss, other = _mean_loss(expected), _mean_loss(found)
        difference = abs(other - loss) / max(1.0, abs(loss))
        self._notes.append(
            f"{name} computed as it stands: the shortcut changed the loss by {difference:.1e}."
        )
        return False

    def _compared(
        self, plain: Route, shortcut: Route, scorer: Scorer, start: int
    ) -> tuple[ExampleRecords, ExampleRecords]:
        while True:
            # The last may be fewer.
            first = start % len(plain[1])
            rows = slice(first, first + self._examples)
            try:
                expected = self._records_of(plain, scorer, rows)
                return expected, self._records_of(shortcut, scorer, rows)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self._examples == 1:
                    raise
                self._examples //= 2

    def _records_of(self, route: Route, scorer: Scorer, rows: slice) -> ExampleRecords:
        forward, data = route
        records, answers = scorer.records(forward, data, rows)
        return scorer.score(records, answers)


def agree(found: ExampleRecords, expected: ExampleRecords) -> bool:
    """Return whether two ways of computing the same agree: the loss to 1e-6, each score exactly.

    Examples without a loss or a score have to be the same.
    """
    if not found.losses.isnan().equal(expected.losses.isnan()):
        return False
    loss, other = _mean_loss(expected), _mean_loss(found)
    is_near = not abs(other - loss) > LOSS_TOLERANCE * max(1.0, abs(loss))
    scores = torch.stack([expected.scores, found.scores])
    return is_near and bool(((scores[0] == scores[1]) | scores.isnan().all(dim=0)).all())


def _mean_loss(records: ExampleRecords) -> float:
    return float(records.losses.double().nanmean())


# Fixed, and not what is quickest on this machine, so that results repeat to the bit. Larger batches
# gain little on a CPU, and miss more caches.
_BATCH_SIZE = 128

# Estimated statistics that are kept, so that each split of a point does not need them anew.
_ESTIMATED_POINTS = 100


class ForwardPass:
    """Takes splits through a task's network, at any point in weight space.

    Building one is cheap; the network and the data go to the device when they are first needed,
    and stay.

    Args:
        task: Whose network and splits.
        device: Where to compute.
        batch_size: Examples a forward pass; the task's `batch_size`, or 128, unless given.
        memory_budget: Bytes of ingredients to keep in memory.

    Attributes:
        task: The task.
        device: Where it computes.
        notes: What was not done in the quickest way, and why, for people.
    """

    def __init__(
        self, task: Task, device: torch.device, batch_size: int | None, memory_budget: int
    ) -> None:
        self.notes: list[str] = []
        self.task = task
        self.device = device
        # Halved where memory runs out.
        self._batch_size = batch_size or task.batch_size or _BATCH_SIZE
        self._memory_budget = memory_budget
        self._at: tuple[Mixture, Estimate | None] | None = None  # whose weights the network has
        self._estimated: OrderedDict[tuple[Mixture, Estimate], list[Tensor]] = OrderedDict()
        self._data: dict[str, Data] = {}
        self._scorers: dict[str, Scorer] = {}

    @cached_property
    def network(self) -> Network:
        """The task's network."""
        return Network(self.task, self.device, self._memory_budget)

    @cached_property
    def shortcuts(self) -> Shortcuts:
        """The ways around its plain forward pass."""
        # What they keep comes on top of the ingredients.
        return Shortcuts(self.network, self._memory_budget // 4, self.notes)

    def data(self, name: str, on_progress: Progress = no_progress) -> Data:
        """Return the data of a split, decoding it first where that was not done yet."""
        if name not in self._data:
            split = self.task.split(name)
            split.load(on_progress)
            self._data[name] = Data.of(split, self.device)
        return self._data[name]

    def answers(self, name: str) -> Tensor:
        """Return the targets of a split that the task scores by, shape [n, ...]."""
        return self.data(name).answers

    def scorer(self, name: str) -> Scorer:
        """Return what asks the task about the outputs on a split."""
        if name not in self._scorers:
            self._scorers[name] = Scorer(self.task, name, self.data(name).answers)
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
        """Take the examples of a split through the network with the weights of a point.

        Args:
            mixture: The point.
            split: Name of the split.
            keep_outputs: Whether to keep the outputs of each example. They are always kept where
                the task's metrics are computed from them.
            estimate: What to estimate BatchNorm's statistics on; without, they are averaged.
            rejection: The order to see them in, and when to stop; all in their own order without.
            in_bfloat16: Whether layers compute in bfloat16 where torch's autocast lets them.
            on_progress: Called with examples done and in all; raise in it to stop. It may compute
                other points in between.

        Returns:
            The records of the examples that were evaluated, in the order of evaluation.

        Raises:
            TaskError: There is no such split, or one example alone does not fit in memory.
            CheckpointError: The weights do not fit the network, or the memory.
        """
        if not self.task.split(split).is_loaded:  # the first half of the work
            self.data(split, lambda done, total: on_progress(done, 2 * total))
            whole, on_progress = on_progress, lambda done, total: whole(total + done, 2 * total)
        data = self.data(split)
        scorer = self.scorer(split)
        collector = Collector(scorer, keep_outputs=keep_outputs or needs_outputs(self.task))
        order = data.inputs.by_length if rejection is None else rejection.order
        with computing_on(self.device):
            seen = 0
            route = self._go_to(mixture, estimate, split)
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
                    # Whoever was told of the progress had another point computed meanwhile.
                    route = self._go_to(mixture, estimate, split)
            found = collector.result
            return found if order is None or rejection is not None else found.in_order(order)

    @torch.inference_mode()
    def statistics(self, mixture: Mixture, estimate: Estimate) -> dict[str, Tensor]:
        """Return BatchNorm's statistics at a point, on the CPU, by the names they have there."""
        with computing_on(self.device):
            self._put(mixture, estimate)
        names = self.network.name_map.names_in(mixture)
        found = statistics_of(self.network.model)
        return {names[name]: tensor.cpu().clone() for name, tensor in found.items()}

    def _go_to(self, mixture: Mixture, estimate: Estimate | None, split: str) -> Route:
        self._put(mixture, estimate)
        return self.shortcuts.route(split, self.data(split), self.scorer(split))

    def _put(self, mixture: Mixture, estimate: Estimate | None) -> None:
        """Set the network's weights to those of a point, its statistics to estimated ones."""
        self._at = None
        self.network.put(mixture)
        if estimate is not None:
            self._put_statistics(mixture, estimate)
        self._at = (mixture, estimate)

    def _put_statistics(self, mixture: Mixture, estimate: Estimate) -> None:
        places = list(statistics_of(self.network.model).values())
        known = self._estimated.get((mixture, estimate))
        if known is None:
            estimate_statistics(self.network.model, self.data(estimate.split), estimate.examples)
            known = [place.clone() for place in places]
            self._estimated[mixture, estimate] = known
            if len(self._estimated) > _ESTIMATED_POINTS:
                self._estimated.popitem(last=False)
        for place, tensor in zip(places, known, strict=True):
            place.copy_(tensor)

    def _batch(
        self,
        route: Route,
        rows: Rows,
        size: int,
        scorer: Scorer,
        collector: Collector,
        in_bfloat16: bool,
    ) -> bool:
        """Compute some rows; False where there was too little memory, and fewer are to be tried."""
        forward, data = route
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=in_bfloat16):
                records, answers = scorer.records(forward, data, rows)
            collector.add(records.float() if in_bfloat16 else records, answers)
            return True
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                one = in_words(data.inputs.nbytes // len(data))
                raise TaskError(
                    f"Not even one example ({one}) of the task {self.task.name!r} goes through "
                    f"its network in the memory of the device {str(self.device)!r}. Choose "
                    "another device, or close what else runs on it."
                ) from error
        self._batch_size = size // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return False
