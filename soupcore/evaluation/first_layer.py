"""The first layer of a network, computed once for each ingredient.

A linear or convolutional layer is linear in its weights. What it makes of the data at Σcᵢθᵢ is Σcᵢ
times what it makes of it at θᵢ: a sum of k tensors in place of a matrix product. That is less work
where each output is a sum over many inputs, as in networks that begin with a linear layer.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from soupcore.checkpoints import Checkpoint
from soupcore.evaluation.data import Data, Rows
from soupcore.evaluation.tracing import beginning, ending, layers, weights_of
from soupcore.mixtures import Mixture

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

_AT_A_TIME = 1024  # examples

# Inputs of each output, a term: below it the product is as quick, as it reads less memory.
_WORTH_IT = 32

# Σ|cᵢ|: beyond, what the terms are rounded by shows in a sum that is small against them.
_LARGEST_SUM = 4.0


@dataclass(eq=False)
class Sum(Data):
    """Data that is a weighted sum of tensors, made batch by batch.

    Attributes:
        factors: One for each of the inputs, which together are one argument.
    """

    factors: tuple[float, ...] = ()

    def batch(self, rows: Rows, *, channels_last: bool = False) -> tuple[list[Tensor], Tensor]:
        """Return the sum and the targets for some of the rows."""
        (first, *others), targets = super().batch(rows)
        total = first * self.factors[0]
        for part, factor in zip(others, self.factors[1:], strict=True):
            total.add_(part, alpha=factor)
        if channels_last and total.dim() == 4:
            total = total.contiguous(memory_format=torch.channels_last)
        return [total], targets


class FirstLayer:
    """Takes sums of what the first layers of the ingredients make of the data for the data.

    Args:
        graph: The network as traced.
        budget: Bytes that this may take.
    """

    def __init__(self, graph: fx.GraphModule, budget: int) -> None:
        self._budget = budget
        self._parts: OrderedDict[tuple[str, str], Tensor] = OrderedDict()  # by split and digest
        self._tail: fx.GraphModule | None = None
        node = _first_layer(graph)
        if node is not None:
            self._layer = cast("nn.Linear", graph.get_submodule(str(node.target)))
            self._names = {n: f"{node.target}.{n}" for n, _ in self._layer.named_parameters()}
            self._head = beginning(graph, node.all_input_nodes)
            self._tail = ending(graph, [node])

    def route(self, mixture: Mixture, split: str, data: Data) -> tuple[fx.GraphModule, Data] | None:
        """Return the network after its first layer, and what that is given at a point.

        None where this is not less work, or takes more memory than there is.
        """
        if self._tail is None or not self._is_worth_it(mixture):
            return None
        needed = {(split, digest): c for digest, c in mixture.sources.items()}
        for key in self._parts.keys() & needed.keys():
            self._parts.move_to_end(key)
        parts = []
        for key, checkpoint in needed.items():
            part = self._parts.get(key)
            if part is None:
                part = self._make(checkpoint, data, len(needed))
                if part is None:
                    return None
                self._parts[key] = part
            parts.append(part)
        factors = tuple(float(c) for c in mixture.coefficients.values())
        return self._tail, Sum(tuple(parts), data.targets, needs_copies=False, factors=factors)

    def _is_worth_it(self, mixture: Mixture) -> bool:
        inputs = self._layer.weight[0].numel()
        names = self._names.values()
        return (
            inputs >= _WORTH_IT * len(mixture.sources)
            and sum(abs(c) for c in mixture.coefficients.values()) <= _LARGEST_SUM
            # The mixture of half types is rounded to them, and a sum is not.
            and all(
                c.tensors[n].dtype == self._layer.weight.dtype == torch.float32
                for c in mixture.sources.values()
                for n in names
            )
        )

    def _make(self, checkpoint: Checkpoint, data: Data, needed: int) -> Tensor | None:
        """Return what the layer of an ingredient makes of all data, None where it is too large."""
        device = data.targets.device
        weights = {own: checkpoint.read(name).to(device) for own, name in self._names.items()}
        made: Tensor | None = None
        for start in range(0, len(data), _AT_A_TIME):
            inputs, _ = data.through(self._head, slice(start, start + _AT_A_TIME))
            part = functional_call(self._layer, weights, inputs)
            if made is None:
                if part[0].nbytes * len(data) * needed > self._budget:
                    return None
                made = self._place(part, len(data))
            made[start : start + len(part)] = part
        return made

    def _place(self, part: Tensor, rows: int) -> Tensor:
        """Return memory for so many rows like those of a part.

        It is that of what was used longest ago if not more may be taken: what is freed is not given
        back to the system, nor always found again.
        """
        shape, dropped = (rows, *part.shape[1:]), None
        nbytes = part[0].nbytes * rows
        while self._parts and nbytes + sum(p.nbytes for p in self._parts.values()) > self._budget:
            _, dropped = self._parts.popitem(last=False)
        if dropped is not None and dropped.shape == shape:
            return dropped
        return part.new_empty(shape)


def _first_layer(graph: fx.GraphModule) -> fx.Node | None:
    """Return the step of a layer that all data goes through, before any other weights."""
    modules = layers(graph)
    before: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if type(modules.get(node)) in _LAYERS:
            goes_around = any(step.users.keys() - before - {node} for step in before)
            return None if goes_around or not before.issuperset(node.all_input_nodes) else node
        if node.op == "placeholder" or (
            node.op in ("call_function", "call_method", "call_module")
            and before.issuperset(node.all_input_nodes)
            and not list(weights_of(graph, node))
        ):
            before.add(node)
        else:
            return None
    return None
