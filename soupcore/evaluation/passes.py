"""Passes of a split through the network: where models run."""

from collections import OrderedDict
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from soupcore.errors import TaskError
from soupcore.evaluation.batching import Pace, Settings
from soupcore.evaluation.batchnorm import Estimate, estimate_statistics, statistics_of
from soupcore.evaluation.data import Data, Rows
from soupcore.evaluation.devices import computing_on
from soupcore.evaluation.judging import Judge, Judged
from soupcore.evaluation.memory import in_words, is_out_of_memory
from soupcore.evaluation.network import Network
from soupcore.evaluation.progress import Progress, no_progress
from soupcore.evaluation.race import Race
from soupcore.evaluation.replays import Replays, record_on_cuda
from soupcore.evaluation.shortcuts import Route, Shortcuts
from soupcore.mixtures import Mixture
from soupcore.tasks import Task

# Estimated statistics that are kept, so that each split of a point does not need them anew.
_ESTIMATED_POINTS = 100


class Passes:
    """Takes splits through a task's network, at any point in weight space.

    Building one is cheap; the network and the data go to the device when they are first needed,
    and stay.

    Args:
        task: Whose network and splits.
        device: Where to compute.
        batch_size: Examples a forward pass; None to find the quickest by measuring.
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
        self._batch_size = batch_size
        self._memory_budget = memory_budget
        self._paces: dict[bool, Pace] = {}  # by whether in bfloat16
        self._at: tuple[Mixture, Estimate | None] | None = None  # whose weights the network has
        self._estimated: OrderedDict[tuple[Mixture, Estimate], list[Tensor]] = OrderedDict()
        self._data: dict[str, Data] = {}

    @cached_property
    def network(self) -> Network:
        """The task's network."""
        return Network(self.task, self.device, self._memory_budget)

    @cached_property
    def shortcuts(self) -> Shortcuts:
        """The ways around its plain forward pass."""
        # What they keep comes on top of the ingredients.
        return Shortcuts(self.task, self.network, self._memory_budget // 4, self.notes)

    @cached_property
    def replays(self) -> Replays | None:
        """What plays forward passes back, where the device can record them."""
        if self.device.type != "cuda":
            return None
        record = partial(record_on_cuda, pool=torch.cuda.graph_pool_handle())
        return Replays(record, self.notes)

    def data(self, name: str, on_progress: Progress = no_progress) -> Data:
        """Return the data of a split, decoding it first where that was not done yet."""
        if name not in self._data:
            split = self.task.split(name)
            split.load(on_progress)
            self._data[name] = Data.of(split, self.device)
        return self._data[name]

    def settings(self, split: str) -> Settings:
        """Return how the data of a split goes through the network, as far as is known by now."""
        return self._pace_for(self.data(split), in_bfloat16=False).settings

    @torch.inference_mode()
    def run(
        self,
        mixture: Mixture,
        split: str,
        *,
        keep_outputs: bool = True,
        estimate: Estimate | None = None,
        race: Race | None = None,
        in_bfloat16: bool = False,
        on_progress: Progress = no_progress,
    ) -> Judged:
        """Take the examples of a split through the network with the weights of a point.

        Args:
            mixture: The point.
            split: Name of the split.
            keep_outputs: Whether to keep the outputs of each example.
            estimate: What to estimate BatchNorm's statistics on; without, they are averaged.
            race: The order to see them in, and when to stop; all in their own order without.
            in_bfloat16: Whether layers compute in bfloat16 where torch's autocast lets them.
            on_progress: Called with examples done and in all; raise in it to stop. It may compute
                other points in between.

        Returns:
            What was found of the examples seen, in the order in which they were.

        Raises:
            TaskError: There is no such split, or one example alone does not fit in memory.
            CheckpointError: The weights do not fit the network, or the memory.
        """
        if not self.task.split(split).is_loaded:  # the first half of the work
            self.data(split, lambda done, total: on_progress(done, 2 * total))
            whole, on_progress = on_progress, lambda done, total: whole(total + done, 2 * total)
        data = self.data(split)
        pace = self._pace_for(data, in_bfloat16)
        judge = Judge(self.task, keep_outputs=keep_outputs)
        with computing_on(self.device), pace.session():
            seen = 0
            route = self._go_to(mixture, estimate, split)
            while seen < len(data):
                batch = pace.settings.batch
                size = min(batch, len(data) - seen) if race is None else race.size(seen, batch)
                rows = slice(seen, seen + size) if race is None else race.order[seen : seen + size]
                if not self._batch(route, rows, size, judge, in_bfloat16):
                    continue
                seen += size
                if race is not None and race.is_lost(judge.scores):
                    on_progress(len(data), len(data))
                    break
                on_progress(seen, len(data))
                if self._at != (mixture, estimate) and seen < len(data):
                    # Whoever was told of the progress had another point computed meanwhile.
                    route = self._go_to(mixture, estimate, split)
            return judge.result

    @torch.inference_mode()
    def statistics(self, mixture: Mixture, estimate: Estimate) -> dict[str, Tensor]:
        """Return BatchNorm's statistics at a point, on the CPU, by the names they have there."""
        with computing_on(self.device):
            self.put(mixture, estimate)
        names = self.network.fitting.names_in(mixture)
        found = statistics_of(self.network.model)
        return {names[name]: tensor.cpu().clone() for name, tensor in found.items()}

    def _go_to(self, mixture: Mixture, estimate: Estimate | None, split: str) -> Route:
        self.put(mixture, estimate)
        return self.shortcuts.route(mixture, split, self.data(split))

    def put(self, mixture: Mixture, estimate: Estimate | None) -> None:
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

    def _batch(self, route: Route, rows: Rows, size: int, judge: Judge, in_bfloat16: bool) -> bool:
        """Compute some rows; False where there was too little memory, and fewer are to be tried."""
        forward, data = route
        pace = self._pace_for(data, in_bfloat16)
        if self.replays is not None and pace.is_settled and not in_bfloat16:
            forward = partial(self.replays.call, forward)

        def compute() -> None:
            layout = pace.settings.channels_last
            with torch.autocast(self.device.type, torch.bfloat16, enabled=in_bfloat16):
                outputs, targets = data.through(forward, rows, channels_last=layout)
            judge.add(outputs.float() if in_bfloat16 else outputs, targets)

        try:
            pace.compute(size, compute)
            return True
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if not pace.halve():
                one = in_words(sum(tensor[:1].nbytes for tensor in data.inputs))
                raise TaskError(
                    f"Not even one example ({one}) of the task {self.task.name!r} goes through "
                    f"its network in the memory of the device {str(self.device)!r}. Choose "
                    "another device, or close what else runs on it."
                ) from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return False

    def _pace_for(self, data: Data, in_bfloat16: bool) -> Pace:
        if in_bfloat16 not in self._paces:
            images = data.inputs[0].dim() == 4 and any(
                isinstance(module, nn.Conv2d) for module in self.network.model.modules()
            )
            on_cpu = self.device.type == "cpu"
            pace = Pace(self._batch_size, len(data), images=images, on_cpu=on_cpu)
            self._paces[in_bfloat16] = pace
        return self._paces[in_bfloat16]
