"""BatchNorm folded into the layer before it.

In evaluation mode BatchNorm is linear: γ(x − μ)/√(σ² + ε) + β. After a convolution or a linear
layer it is another weight and bias of that layer, so that the network has a step less and its
activations are written and read once less (Jacob et al. 2018, arXiv:1712.05877, section 3.2). The
folded weights are made at each point from the mixed ones, with factors computed in float64.
"""

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, fx, nn

from soupcore.evaluation.tracing import layers

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class _Pair:
    layer: nn.Conv2d  # or another of _LAYERS and _NORMS: what is read of them is the same
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
    """A network with each BatchNorm folded that follows a layer directly.

    Args:
        graph: The network as traced; it is changed.

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
        # The channels of all layers lie in one tensor, because a step for each layer takes as
        # long as a small network takes to see a batch.
        self._vectors = list(zip(*(pair.vectors for pair in self._pairs), strict=True))
        self._widths = [pair.norm.num_features for pair in self._pairs]
        eps = [torch.full((pair.norm.num_features,), pair.norm.eps) for pair in self._pairs]
        self._eps = torch.cat(eps).to(self._vectors[0][0])
        self._bias = torch.cat(self._vectors[0])
        biases = torch.split(self._bias, self._widths)
        for pair, bias in zip(self._pairs, biases, strict=True):
            pair.both.bias = nn.Parameter(bias, requires_grad=False)

    def __len__(self) -> int:
        """Return how many BatchNorms were folded."""
        return len(self._pairs)

    def refresh(self) -> float:
        """Fold the weights that the network has now.

        Returns:
            The largest factor that a channel was scaled by: what rounding is magnified by.
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
    modules = layers(graph)
    found = []
    for node, norm in modules.items():
        before = node.all_input_nodes[0]
        layer = modules.get(before)
        # Exactly these classes: one derived from them may do something else.
        if type(norm) not in _NORMS or type(layer) not in _LAYERS or len(before.users) > 1:
            continue
        weight = cast("nn.Conv2d", layer).weight
        statistics = cast("nn.BatchNorm2d", norm).running_mean
        if statistics is None or statistics.dtype != weight.dtype or len(statistics) != len(weight):
            continue
        if weight.dtype in _DTYPES:
            found.append((before, node))
    return found


def _fold(graph: fx.GraphModule, layer: fx.Node, norm: fx.Node, name: str) -> _Pair:
    """Put one layer in the place of a layer and its BatchNorm."""
    old = cast("nn.Conv2d", graph.get_submodule(str(layer.target)))
    # The same layer but for its tensors; a deep copy would copy the buffer that these lie in.
    both = copy.copy(old)
    both._parameters = {"weight": nn.Parameter(torch.empty_like(old.weight), False), "bias": None}
    graph.add_submodule(name, both)
    with graph.graph.inserting_before(norm):
        norm.replace_all_uses_with(graph.graph.call_module(name, layer.args, layer.kwargs))
    pair = _Pair(old, cast("nn.BatchNorm2d", graph.get_submodule(str(norm.target))), both)
    graph.graph.erase_node(norm)
    graph.graph.erase_node(layer)
    return pair
