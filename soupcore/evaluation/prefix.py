"""The beginning of a network that is the same at all points, computed once.

Fine-tuning often leaves the first layers as they were: frozen ones, or all but a new head. What
they make of the data then is the same at each point, and takes the place of the data. Nobody has to
say which layers these are: their weights are compared at each point, bit by bit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from soupcore.evaluation.data import Data
from soupcore.evaluation.tracing import beginning, ending, weights_of

_AT_A_TIME = 256  # examples
_ROUNDING = 1e-4  # of the largest value


class Prefix:
    """Takes what the unchanged steps of a network make of the data for the data.

    Args:
        graph: The network as traced, with the weights that it has at the time.
        budget: Bytes that this may take.
    """

    def __init__(self, graph: fx.GraphModule, budget: int) -> None:
        self._graph = graph
        self._budget = budget
        self._weights: dict[fx.Node, list[Tensor]] = {}  # of each step, at the point before
        self._unchanged: frozenset[fx.Node] = frozenset()
        self._last: list[fx.Node] = []  # of the unchanged steps, those that the others need
        self._tail: fx.GraphModule | None = None
        self._made: dict[str, Data] = {}

    def route(self, split: str, data: Data) -> tuple[fx.GraphModule, Data] | None:
        """Return the changed steps and what they are given in place of the data of a split.

        None where nothing worth it is unchanged since the point before, or it takes more memory
        than there is.
        """
        unchanged = self._compare()
        if unchanged != self._unchanged:
            self._unchanged = unchanged
            self._cut()
        if self._tail is None:
            return None
        if split not in self._made:
            made = self._make(data)
            if made is None:
                self._tail = None
                return None
            self._made[split] = made
        return self._tail, self._made[split]

    def _compare(self) -> frozenset[fx.Node]:
        """Return the steps on the way of the data that give what they gave at the point before."""
        changed = self._changed()
        if not changed:  # the point before again, on another split or in another precision
            return self._unchanged
        same: set[fx.Node] = set()
        on_the_way: set[fx.Node] = set()
        for node in self._graph.graph.nodes:
            inputs = node.all_input_nodes
            if node.op == "output" or node in changed or not same.issuperset(inputs):
                continue
            same.add(node)
            if node.op == "placeholder" or any(n in on_the_way for n in inputs):
                on_the_way.add(node)
        return frozenset(same & on_the_way)

    def _changed(self) -> set[fx.Node]:
        """Return the steps with other weights than at the point before, or seen for the first time.

        All steps are compared, those after a changed one too: what is kept of a step has to be of
        the point before, not of one longer ago.
        """
        changed = set()
        for node in self._graph.graph.nodes:
            weights, before = list(weights_of(self._graph, node)), self._weights.get(node)
            if before is None and weights:
                self._weights[node] = [tensor.clone() for tensor in weights]
                changed.add(node)
            elif before is not None and not all(map(torch.equal, weights, before)):
                for kept, tensor in zip(before, weights, strict=True):
                    kept.copy_(tensor)
                changed.add(node)
        return changed

    def _cut(self) -> None:
        unchanged = self._unchanged
        self._made.clear()
        self._tail = None
        if any(node in unchanged for node in self._weights):
            steps = [node for node in self._graph.graph.nodes if node in unchanged]
            self._last = [node for node in steps if node.users.keys() - unchanged]
            self._tail = ending(self._graph, self._last)

    def _make(self, data: Data) -> Data | None:
        head = beginning(self._graph, self._last)
        if not _is_by_example(head, data):
            return None
        parts: list[Sequence[Tensor]] = []
        for start in range(0, len(data), _AT_A_TIME):
            made, targets = data.through(head, slice(start, start + _AT_A_TIME))
            share = len(targets) / len(data)
            if sum(tensor.nbytes for tensor in made) / share > self._budget:
                return None
            parts.append(made)
        inputs = tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return Data(inputs, data.targets)


def _is_by_example(head: fx.GraphModule, data: Data) -> bool:
    """Return whether what the first steps give has a row for each example, of that alone.

    A size, or the numbers from 0 to the size of the batch, are made of the data too.
    """
    if len(data) < 2:
        return False
    pair, targets = data.through(head, slice(0, 2))
    single, _ = data.through(head, slice(1, 2))
    for both, one in zip(pair, single, strict=True):
        if not (isinstance(both, Tensor) and both.dim() and len(both) == len(targets)):
            return False
        second, alone = both[1:].double(), one[: len(both) - 1].double()
        # A batch of one may be summed in another order, and what cancels out is not small then.
        rounding = _ROUNDING * float(second.abs().nan_to_num().amax()) if second.numel() else 0.0
        if not torch.allclose(second, alone, rtol=0, atol=rounding, equal_nan=True):
            return False
    return True
