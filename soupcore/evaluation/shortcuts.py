"""Ways around the plain forward pass that lead to the same numbers, and the proof that they do."""

import math
from collections.abc import Callable

from torch import Tensor

from soupcore.evaluation.data import Data
from soupcore.evaluation.first_layer import FirstLayer
from soupcore.evaluation.folding import Folding
from soupcore.evaluation.judging import Judged, judge
from soupcore.evaluation.memory import is_out_of_memory
from soupcore.evaluation.network import Network
from soupcore.evaluation.prefix import Prefix
from soupcore.evaluation.tracing import trace
from soupcore.mixtures import Mixture
from soupcore.tasks import Task

Forward = Callable[..., Tensor]
Route = tuple[Forward, Data]

LOSS_TOLERANCE = 1e-6  # of the loss, or absolute where the loss is below 1
_EXAMPLES = 256  # that a shortcut is compared on; fewer where they do not fit in memory


class Shortcuts:
    """Chooses how to compute the network at a point.

    A shortcut is compared with the plain forward pass before it is used: the mean loss of a batch
    has to agree to 1e-6, and each score exactly. One that fails is not tried again.

    Args:
        task: Whose network.
        network: Its weights are those of the point.
        budget: Bytes that results may take which serve several points.
        notes: Takes what was switched off and why, for people.
    """

    def __init__(self, task: Task, network: Network, budget: int, notes: list[str]) -> None:
        self._notes = notes
        self._task = task
        self._model: Forward = network.model
        self._folding: Folding | None = None
        self._prefix: Prefix | None = None
        self._first_layer: FirstLayer | None = None
        self._trusted: set[Forward] = {self._model}
        self._largest_scale = 0.0
        self._examples = _EXAMPLES
        # They compute in float64 here and there, which Apple's GPUs do not have.
        has_float64 = all(buffer.device.type != "mps" for buffer in network.buffers.values())
        graph = trace(network.model) if has_float64 else None
        if graph is not None:
            self._first_layer = FirstLayer(graph, budget)
            folding = Folding(graph)
            self._folding = folding if len(folding) else None
            self._prefix = Prefix(graph, budget)

    def route(self, mixture: Mixture, split: str, data: Data) -> Route:
        """Return what to call with batches of which data, for the weights the network has now.

        Args:
            mixture: The point whose weights these are.
            split: Name of the split.
            data: Its data.
        """
        try:
            return self._shortest(mixture, split, data)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._prefix = self._first_layer = None
            self._notes.append(
                "Every layer is computed at every point: results that serve several points do not "
                "fit in memory."
            )
        try:
            return self._shortest(mixture, split, data)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return self._model, data  # not even one example fits, which its batch will say

    def _shortest(self, mixture: Mixture, split: str, data: Data) -> Route:
        plain = self._model, data
        whole = self._whole(plain)
        if whole is None:
            return plain
        if self._prefix is not None and (found := self._prefix.route(split, data)):
            agrees = self._agrees(found, plain, "The first layers, the same at all points, are")
            if agrees:
                return found
            if agrees is False:
                self._prefix = None
        if self._first_layer is not None and (
            found := self._first_layer.route(mixture, split, data)
        ):
            agrees = self._agrees(found, plain, "The first layer is")
            if agrees:
                return found
            if agrees is False:
                self._first_layer = None
        return whole

    def _whole(self, plain: Route) -> Route | None:
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
        agrees = self._agrees(folded, plain, "BatchNorm is")
        if agrees:
            self._largest_scale = max(scale, self._largest_scale)
            return folded
        if agrees is False:
            self._folding = self._prefix = None
        return None

    def _agrees(self, shortcut: Route, plain: Route, name: str) -> bool | None:
        """Compare a shortcut that is new with the plain way; None where the point is broken."""
        if shortcut[0] in self._trusted:
            return True
        expected, found = self._compared(plain, shortcut)
        if not math.isfinite(expected.loss):
            return None
        if agree(found, expected):
            self._trusted.add(shortcut[0])
            return True
        difference = abs(found.loss - expected.loss) / max(1.0, abs(expected.loss))
        self._notes.append(
            f"{name} computed as it stands: the shortcut changed the loss by {difference:.1e}."
        )
        return False

    def _compared(self, plain: Route, shortcut: Route) -> tuple[Judged, Judged]:
        while True:
            try:
                return self._judge(plain), self._judge(shortcut)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or self._examples == 1:
                    raise
                self._examples //= 2

    def _judge(self, route: Route) -> Judged:
        forward, data = route
        return judge(self._task, *data.through(forward, slice(0, self._examples)))


def agree(found: Judged, expected: Judged) -> bool:
    """Return whether two ways of computing the same agree: the loss to 1e-6, each score exactly."""
    difference = abs(found.loss - expected.loss)
    is_near = difference <= LOSS_TOLERANCE * max(1.0, abs(expected.loss))
    return is_near and expected.scores.equal(found.scores)
