"""Shortcuts for networks that can be traced to a graph, compared with the plain forward pass.

`Folding` folds BatchNorm into the preceding layer. In evaluation mode, BatchNorm is affine:
γ(x − μ)/√(σ² + ε) + β. After a convolution or a linear layer it can be folded into the weight and
bias of that layer, which saves one write and one read of the activations (Jacob et al. 2018,
arXiv:1712.05877, section 3.2). The folded weights are computed at each point from the mixed ones,
with factors in float64.

`Prefix` computes layers that are the same at all points only once. Fine-tuning often leaves the
first layers unchanged: frozen layers, or all but a new head. Their activations are then the same at
each point, and replace the data. These layers are detected automatically: weights are compared bit
by bit at each point.

`Shortcuts` chooses among them, and compares them with the plain pass from time to time.
"""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx, nn

from soupcore.evaluation.data import Data, is_out_of_memory
from soupcore.evaluation.network import Network
from soupcore.evaluation.scoring import ExampleRecords, Scorer
from soupcore.tasks.examples import Examples

Forward = Callable[..., Tensor]
Route = tuple[Forward, Data]

_LOSS_TOLERANCE = 1e-6  # relative to the loss, or absolute if the loss is below 1
_EXAMPLES = 256  # examples of a comparison; fewer if they do not fit in memory
_AGAIN = 32  # points until the next comparison, which uses the next examples

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_DTYPES = (torch.float32, torch.float64)

_AT_A_TIME = 256  # examples of activations that are computed at once
_ROUNDING = 1e-4  # relative to the largest value


class Shortcuts:
    """Chooses how to compute the network at a point.

    A shortcut is compared with the plain forward pass on at most 256 examples when it is first
    used, and then at every 32nd point, each time on the next examples: the mean loss has to agree
    to 1e-6, and each score exactly. A shortcut that fails is not used again. This is a sample and
    not a proof: other points and other examples are not compared.

    Args:
        network: The network, with the weights of the point.
        budget: Maximum size in bytes of the cache that reuses activations between points: a
            quarter for activations, and the rest for the weights of the previous point.
        notes: Messages about disabled shortcuts are appended here.
        is_exact: Whether the network is evaluated in float32; below, no shortcut would agree.
    """

    def __init__(
        self, network: Network, budget: int, notes: list[str], *, is_exact: bool = True
    ) -> None:
        self._notes = notes
        self._model: Forward = network.model
        self._folding: Folding | None = None
        self._prefix: Prefix | None = None
        self._trusted: set[Forward] = {self._model}
        self._uses: Counter[Forward] = Counter()
        self._largest_scale = 0.0
        self._examples = _EXAMPLES
        # Some steps of the shortcuts use float64, which Apple's GPUs do not support.
        has_float64 = all(buffer.device.type != "mps" for buffer in network.buffers.values())
        graph = trace(network.model) if has_float64 and is_exact else None
        if graph is not None:
            folding = Folding(graph)
            self._folding = folding if len(folding) else None
            self._prefix = Prefix(graph, budget // 4, budget - budget // 4)

    def route(self, split: str, data: Data, scorer: Scorer) -> Route:
        """Return a function and the data to call it with, for the network's current weights.

        Args:
            split: Name of the split.
            data: The data of the split.
            scorer: Computes losses and scores on the split.
        """
        try:
            return self._shortest(split, data, scorer)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._prefix = None
            self._notes.append(
                "Every layer is computed at every point, because activations to be reused at "
                "several points do not fit in memory."
            )
        try:
            return self._shortest(split, data, scorer)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return self._model, data  # not even one example fits, and its batch will raise an error

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
        """Return the whole network, folded if possible; None if only the plain one is safe."""
        if self._folding is None:
            return plain
        scale = self._folding.refresh()
        if not math.isfinite(scale):
            return None
        folded = self._folding.graph, plain[1]
        if scale > self._largest_scale:
            # Differences in rounding are multiplied by these factors, so a point with larger
            # factors than before has to be compared again.
            self._trusted.discard(folded[0])
        agrees = self._agrees(folded, plain, scorer, "BatchNorm is")
        if agrees:
            self._largest_scale = max(scale, self._largest_scale)
            return folded
        if agrees is False:
            self._folding = self._prefix = None
        return None

    def _agrees(self, shortcut: Route, plain: Route, scorer: Scorer, name: str) -> bool | None:
        """Return whether a shortcut agrees with the plain pass; None if the point is broken."""
        forward = shortcut[0]
        self._uses[forward] += 1
        times, since = divmod(self._uses[forward], _AGAIN)
        if forward in self._trusted and since:
            return True
        expected, found = self._compared(plain, shortcut, scorer, times * self._examples)
        if expected.losses.isinf().any():
            return None
        if _agree(found, expected):
            self._trusted.add(forward)
            return True
        loss, other = _mean_loss(expected), _mean_loss(found)
        difference = abs(other - loss) / max(1.0, abs(loss))
        self._notes.append(
            f"{name} computed without a shortcut, which changed the loss by {difference:.1e}."
        )
        return False

    def _compared(
        self, plain: Route, shortcut: Route, scorer: Scorer, start: int
    ) -> tuple[ExampleRecords, ExampleRecords]:
        while True:
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
        records, targets = scorer.records(forward, data, rows)
        return scorer.score(records, targets)


def _agree(found: ExampleRecords, expected: ExampleRecords) -> bool:
    """Return whether the records of two computations agree: the loss to 1e-6, each score exactly.

    Losses and scores have to be NaN for the same examples.
    """
    if not found.losses.isnan().equal(expected.losses.isnan()):
        return False
    loss, other = _mean_loss(expected), _mean_loss(found)
    is_near = not abs(other - loss) > _LOSS_TOLERANCE * max(1.0, abs(loss))
    scores = torch.stack([expected.scores, found.scores])
    return is_near and bool(((scores[0] == scores[1]) | scores.isnan().all(dim=0)).all())


def _mean_loss(records: ExampleRecords) -> float:
    return float(records.losses.double().nanmean())


@dataclass(frozen=True)
class _Pair:
    layer: nn.Conv2d  # or another class of _LAYERS or _NORMS, with the same attributes
    norm: nn.BatchNorm2d
    both: nn.Conv2d

    @property
    def vectors(self) -> tuple[Tensor, ...]:
        """Bias of the layer, mean, variance, gain and offset, each of shape [channels]."""
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None  # noqa: S101, PT018 - see _foldable
        zeros = torch.zeros_like(mean)
        return (
            zeros if self.layer.bias is None else self.layer.bias,
            mean,
            variance,
            zeros + 1 if self.norm.weight is None else self.norm.weight,
            zeros if self.norm.bias is None else self.norm.bias,
        )


class Folding:
    """A network in which each BatchNorm directly after a layer is folded into it.

    Args:
        graph: The traced network. It is changed.

    Attributes:
        graph: The folded network, with the weights of the last `refresh`.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self._pairs = [
            _fold(graph, layer, norm, f"_folded_{index}")
            for index, (layer, norm) in enumerate(_foldable(graph))
        ]
        graph.graph.lint()
        graph.recompile()
        if not self._pairs:
            return
        # The channels of all layers are in one tensor, because one operation per layer would take
        # as long as a forward pass of a small network.
        self._vectors = list(zip(*(pair.vectors for pair in self._pairs), strict=True))
        self._widths = [pair.norm.num_features for pair in self._pairs]
        eps = [torch.full((pair.norm.num_features,), pair.norm.eps) for pair in self._pairs]
        self._eps = torch.cat(eps).to(self._vectors[0][0])
        self._bias = torch.cat(self._vectors[0])
        biases = torch.split(self._bias, self._widths)
        for pair, bias in zip(self._pairs, biases, strict=True):
            pair.both.bias = nn.Parameter(bias, requires_grad=False)

    def __len__(self) -> int:
        """Return the number of folded BatchNorms."""
        return len(self._pairs)

    def refresh(self) -> float:
        """Fold the network's current weights.

        Returns:
            The largest factor by which a channel was scaled, which also scales rounding errors.
        """
        bias, mean, variance, gain, offset = (torch.cat(v).double() for v in self._vectors)
        scale = gain / (variance + self._eps).sqrt()
        self._bias.copy_((bias - mean) * scale + offset)
        factors = torch.split(scale.to(self._bias.dtype), self._widths)
        for pair, factor in zip(self._pairs, factors, strict=True):
            weight = pair.both.weight
            torch.mul(pair.layer.weight, factor.view(-1, *[1] * (weight.dim() - 1)), out=weight)
        return float(scale.abs().max())


def _foldable(graph: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    modules = _layers(graph)
    foldable = []
    for node, norm in modules.items():
        if not node.all_input_nodes:  # a parametrization takes no input
            continue
        before = node.all_input_nodes[0]
        layer = modules.get(before)
        # Only these exact classes, since subclasses may compute something else.
        if type(norm) not in _NORMS or type(layer) not in _LAYERS or len(before.users) > 1:
            continue
        weight = cast("nn.Conv2d", layer).weight
        statistics = cast("nn.BatchNorm2d", norm).running_mean
        if statistics is None or statistics.dtype != weight.dtype or len(statistics) != len(weight):
            continue
        if weight.dtype in _DTYPES:
            foldable.append((before, node))
    return foldable


def _fold(graph: fx.GraphModule, layer: fx.Node, norm: fx.Node, name: str) -> _Pair:
    """Replace a layer and its BatchNorm by one layer."""
    old = cast("nn.Conv2d", graph.get_submodule(str(layer.target)))
    # A copy without its tensors. A deep copy would copy the shared buffer of all tensors.
    both = copy.copy(old)
    both._parameters = {"weight": nn.Parameter(torch.empty_like(old.weight), False), "bias": None}
    graph.add_submodule(name, both)
    with graph.graph.inserting_before(norm):
        norm.replace_all_uses_with(graph.graph.call_module(name, layer.args, layer.kwargs))
    pair = _Pair(old, cast("nn.BatchNorm2d", graph.get_submodule(str(norm.target))), both)
    graph.graph.erase_node(norm)
    graph.graph.erase_node(layer)
    return pair


class Prefix:
    """Replaces the data by the activations of the network's first, unchanged steps.

    Args:
        graph: The traced network, which shares the network's current weights.
        budget: Maximum size of the activations in bytes.
        weights_budget: Maximum size in bytes of the weights of the previous point, kept to detect
            changes. Steps whose weights exceed it count as changed.
    """

    def __init__(self, graph: fx.GraphModule, budget: int, weights_budget: int) -> None:
        self._graph = graph
        self._budget = budget
        self._room = weights_budget
        self._weights: dict[fx.Node, list[Tensor]] = {}  # of each step, at the previous point
        self._unchanged: frozenset[fx.Node] = frozenset()
        self._last: list[fx.Node] = []  # the unchanged steps whose results the others need
        self._tail: fx.GraphModule | None = None
        self._made: dict[str, Data] = {}

    def route(self, split: str, data: Data) -> tuple[fx.GraphModule, Data] | None:
        """Return the changed steps, and the activations that are their inputs on a split.

        Returns None if no step with weights is unchanged since the previous point, or if the
        activations exceed the budget.
        """
        if not data.inputs.is_rectangular or not data.targets.is_one_tensor:
            return None  # activations are stored by rows
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
        """Return the steps that depend on the data and are the same as at the previous point."""
        changed = self._changed()
        if not changed:  # the same point, on another split or in another precision
            return self._unchanged
        same: set[fx.Node] = set()
        from_data: set[fx.Node] = set()
        for node in self._graph.graph.nodes:
            inputs = node.all_input_nodes
            if node.op == "output" or node in changed or not same.issuperset(inputs):
                continue
            same.add(node)
            if node.op == "placeholder" or any(n in from_data for n in inputs):
                from_data.add(node)
        return frozenset(same & from_data)

    def _changed(self) -> set[fx.Node]:
        """Return the steps whose weights differ from the previous point, or were never compared.

        All steps are compared, also those after a changed one, so that the stored weights of every
        step are those of the previous point. Steps behind one whose weights are not stored are
        never unchanged, so theirs are not stored either.
        """
        changed: set[fx.Node] = set()
        unknown: set[fx.Node] = set()  # steps whose weights are not stored, and those behind them
        for node in self._graph.graph.nodes:
            if not unknown.isdisjoint(node.all_input_nodes):
                unknown.add(node)
                continue
            weights, before = list(_weights_of(self._graph, node)), self._weights.get(node)
            if before is None and weights:
                changed.add(node)
                nbytes = sum(tensor.nbytes for tensor in weights)
                if nbytes <= self._room:
                    self._room -= nbytes
                    self._weights[node] = [tensor.clone() for tensor in weights]
                else:
                    unknown.add(node)
            elif before is not None and not all(map(torch.equal, weights, before)):
                for old, tensor in zip(before, weights, strict=True):
                    old.copy_(tensor)
                changed.add(node)
        return changed

    def _cut(self) -> None:
        unchanged = self._unchanged
        self._made.clear()
        self._tail = None
        if any(node in unchanged for node in self._weights):
            steps = [node for node in self._graph.graph.nodes if node in unchanged]
            self._last = [node for node in steps if node.users.keys() - unchanged]
            self._tail = _ending(self._graph, self._last)

    def _make(self, data: Data) -> Data | None:
        head = _beginning(self._graph, self._last)
        if not _is_by_example(head, data):
            return None
        inputs: list[Tensor] = []
        for start in range(0, len(data), _AT_A_TIME):
            made, _, targets = data.through(head, slice(start, start + _AT_A_TIME))
            if not inputs:
                if sum(tensor[0].nbytes for tensor in made) * len(data) > self._budget:
                    return None
                inputs = [tensor.new_empty(len(data), *tensor.shape[1:]) for tensor in made]
            for whole, part in zip(inputs, made, strict=True):
                whole[start : start + len(targets)] = part
        made_inputs = Examples(inputs, tuple(range(len(inputs))))
        return Data(made_inputs, data.targets, data.device, token_weights=data.token_weights)


def _is_by_example(head: fx.GraphModule, data: Data) -> bool:
    """Return whether the first steps compute one row per example, independent of other examples.

    Sizes, or a range over the batch, also depend on the data, but are not rows of examples.
    """
    if len(data) < 2:
        return False
    pair, _, targets = data.through(head, slice(0, 2))
    single, _, _ = data.through(head, slice(1, 2))
    for both, one in zip(pair, single, strict=True):
        if not (isinstance(both, Tensor) and both.dim() and len(both) == len(targets)):
            return False
        second, alone = both[1:].double(), one[: len(both) - 1].double()
        # Sums may have another order in a batch of one, and cancellation amplifies the difference.
        rounding = _ROUNDING * float(second.abs().nan_to_num().amax()) if second.numel() else 0.0
        if not torch.allclose(second, alone, rtol=0, atol=rounding, equal_nan=True):
            return False
    return True


class _Tracer(fx.Tracer):
    """Treats all modules without submodules as one step, which avoids failures of tracing."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not list(m.children()) or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> fx.GraphModule | None:
    """Return a network as a graph that shares its weights, or None if that is not possible.

    Networks whose control flow depends on the data have no such graph. Networks with hooks are not
    traced, because a graph may skip the modules of the hooks.
    """
    if any(_has_hooks(module) for module in model.modules()):
        return None
    try:
        return fx.GraphModule(model, _Tracer().trace(model))
    except Exception:  # tracing calls the network's own code with proxies instead of tensors
        return None


def _layers(graph: fx.GraphModule) -> dict[fx.Node, nn.Module]:
    """Return `{step: module}` of the modules that a graph calls exactly once."""
    calls = [node for node in graph.graph.nodes if node.op == "call_module"]
    modules = {node: graph.get_submodule(str(node.target)) for node in calls}
    times = Counter(id(module) for module in modules.values())
    return {node: module for node, module in modules.items() if times[id(module)] == 1}


def _weights_of(graph: fx.GraphModule, node: fx.Node) -> Iterator[Tensor]:
    """Yield the parameters and buffers that a step uses."""
    if node.op == "call_module":
        yield from graph.get_submodule(str(node.target)).state_dict(keep_vars=True).values()
    elif node.op == "get_attr":
        value = graph
        for name in str(node.target).split("."):
            value = getattr(value, name)
        if isinstance(value, Tensor):
            yield value


def _beginning(graph: fx.GraphModule, last: Sequence[fx.Node]) -> fx.GraphModule:
    """Return the part of a graph from its inputs to some of its values, returned as a tuple."""
    steps = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    needed = _leading_to(last, known=())
    for node in graph.graph.nodes:
        if node in needed or node.op == "placeholder":
            copies[node] = steps.node_copy(node, copies.__getitem__)
    steps.output(tuple(copies[node] for node in last))
    return fx.GraphModule(graph, steps)


def _ending(graph: fx.GraphModule, first: Sequence[fx.Node]) -> fx.GraphModule:
    """Return the part of a graph from some of its values, the new inputs, to its output."""
    steps = fx.Graph()
    copies = {node: steps.placeholder(node.name) for node in first}
    output = next(iter(graph.graph.find_nodes(op="output")))
    needed = _leading_to([output], known=first)
    for node in graph.graph.nodes:
        if node in needed and node not in copies:
            copies[node] = steps.node_copy(node, copies.__getitem__)
    return fx.GraphModule(graph, steps)


def _leading_to(nodes: Iterable[fx.Node], known: Iterable[fx.Node]) -> set[fx.Node]:
    visited = set(known)
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in visited:
            visited.add(node)
            waiting += node.all_input_nodes
    return visited


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
