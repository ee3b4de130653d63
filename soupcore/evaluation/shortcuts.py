"""Ways around the plain forward pass that lead to the same numbers, and the proof that they do."""

import math
from collections.abc import Callable

from torch import Tensor

from soupcore.evaluation.batchnorm import norms_of
from soupcore.evaluation.data import Data
from soupcore.evaluation.folding import Folding
from soupcore.evaluation.judging import judge
from soupcore.evaluation.network import Network
from soupcore.evaluation.tracing import trace
from soupcore.tasks import Task

Forward = Callable[..., Tensor]

LOSS_TOLERANCE = 1e-6  # of the loss, or absolute where the loss is below 1
_EXAMPLES = 256  # that a shortcut is compared on


class Shortcuts:
    """Chooses how to compute the network at a point.

    A shortcut is compared with the plain forward pass before it is used: the losses of a batch have
    to agree to 1e-6, and the scores exactly. One that fails is not tried again.

    Args:
        task: Whose network.
        network: Its weights are those of the point.

    Attributes:
        notes: What was switched off and why, for people.
    """

    def __init__(self, task: Task, network: Network) -> None:
        self.notes: list[str] = []
        self._task = task
        self._network = network
        self._largest_scale = 0.0
        self._folding: Folding | None = None
        if norms_of(network.model) and (graph := trace(network.model)) is not None:
            folding = Folding(graph)
            self._folding = folding if len(folding) else None

    def route(self, data: Data) -> Forward:
        """Return what to call with a batch, for the weights that the network has now."""
        model: Forward = self._network.model
        if self._folding is None:
            return model
        scale = self._folding.refresh()
        if not math.isfinite(scale):
            return model
        folded: Forward = self._folding.graph
        # What was rounded a little differently is multiplied by these factors, so a point with
        # larger ones than those seen so far is another case.
        if scale > self._largest_scale:
            difference = self._difference(model, folded, data)
            if math.isnan(difference):  # the point itself is broken, so it tells nothing
                return model
            if difference > LOSS_TOLERANCE:
                self._folding = None
                self.notes.append(
                    "BatchNorm is computed as it stands: folded into the layers before it, it "
                    f"changed the loss by {difference:.1e}."
                )
                return model
            self._largest_scale = scale
        return folded

    def _difference(self, plain: Forward, other: Forward, data: Data) -> float:
        """Return how far two ways differ: of the loss, and infinite where a score does."""
        batch, targets = data.batch(slice(0, _EXAMPLES))
        expected = judge(self._task, plain(*batch), targets)
        found = judge(self._task, other(*batch), targets)
        loss = float(expected.losses.double().mean())
        if math.isfinite(loss) and not expected.scores.equal(found.scores):
            return math.inf
        return abs(float(found.losses.double().mean()) - loss) / max(1.0, abs(loss))
