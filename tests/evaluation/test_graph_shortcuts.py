import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from soupcore import Split
from soupcore.evaluation.data import Data
from soupcore.evaluation.graph_shortcuts import Folding, Prefix, trace
from tests.benchmarks.nets import ConvNet


def lively(model: nn.Module) -> nn.Module:
    """Give BatchNorm the statistics and gains of a trained network."""
    random = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (module.running_mean, module.weight, module.bias):
                if tensor is not None:
                    tensor.data.normal_(generator=random)
            if module.running_var is not None:
                module.running_var.uniform_(0.1, 2, generator=random)
    return model.requires_grad_(requires_grad=False).eval()


def folding_of(model: nn.Module) -> Folding:
    graph = trace(model)
    assert graph is not None
    return Folding(graph)


PAIRS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), (4,)),
    "conv 1d": (lambda: nn.Sequential(nn.Conv1d(2, 6, 3), nn.BatchNorm1d(6)), (2, 9)),
    "conv 2d": (lambda: nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6)), (2, 9, 9)),
    "conv 3d": (lambda: nn.Sequential(nn.Conv3d(2, 6, 3), nn.BatchNorm3d(6)), (2, 5, 5, 5)),
    "no bias": (
        lambda: nn.Sequential(nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6, eps=0.1)),
        (2, 9, 9),
    ),
    "reflected, in groups": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, 2, 1, groups=2, padding_mode="reflect"), nn.BatchNorm2d(6)
        ),
        (4, 9, 9),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_is_folded_as_torch_would(name: str) -> None:
    build, shape = PAIRS[name]
    model = lively(build())
    folding = folding_of(model)
    assert len(folding) == 1
    folding.refresh()
    layer, norm = model.children()
    fuse: Any = fuse_linear_bn_eval if isinstance(layer, nn.Linear) else fuse_conv_bn_eval
    fused = fuse(layer, norm)
    found = dict(folding.graph.named_parameters())
    torch.testing.assert_close(found["_folded_0.weight"], fused.weight)
    torch.testing.assert_close(found["_folded_0.bias"], fused.bias)
    inputs = torch.randn(5, *shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(folding.graph(inputs), model(inputs))


def test_without_gains_it_is_the_same() -> None:
    model = lively(nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6, affine=False)))
    folding = folding_of(model)
    folding.refresh()
    inputs = torch.randn(5, 2, 9, 9)
    torch.testing.assert_close(folding.graph(inputs), model(inputs))


def test_a_residual_network_is_folded_throughout_and_follows_its_weights() -> None:
    model = lively(ConvNet(1, 4, 3))
    folding = folding_of(model)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(folding) == len(norms) == 10
    assert "norm" not in folding.graph.code
    inputs = torch.randn(5, 1, 8, 8)
    for scale in (1.0, 1.5):
        for parameter in model.parameters():
            parameter.mul_(scale)
        largest = folding.refresh()
        assert largest == pytest.approx(max(float(_scale(norm).abs().max()) for norm in norms))
        torch.testing.assert_close(folding.graph(inputs), model(inputs), rtol=1e-4, atol=1e-5)


def _scale(norm: nn.BatchNorm2d) -> Tensor:
    assert norm.running_var is not None
    return norm.weight / torch.sqrt(norm.running_var + norm.eps)


def test_folding_leaves_the_network_itself_as_it_is() -> None:
    model = lively(ConvNet(1, 4, 3))
    before = copy.deepcopy(model.state_dict())
    folding_of(model).refresh()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.norm = nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        y: Tensor = self.norm(self.conv(x))
        return y


class Also(Twice):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y: Tensor = self.norm(x) + x
        return y


class Before(Twice):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(self.norm(x))
        return y


class Derived(Twice):
    def __init__(self) -> None:
        super().__init__()
        self.norm = NoisyNorm(2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(x))
        return y


class NoisyNorm(nn.BatchNorm2d):
    pass


class Stateless(Derived):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2, track_running_stats=False)


@pytest.mark.parametrize("build", [Twice, Also, Before, Derived, Stateless])
def test_other_pairs_of_layers_are_not_folded(build: Callable[[], nn.Module]) -> None:
    folding = folding_of(lively(build()))
    assert len(folding) == 0
    inputs = torch.randn(5, 2, 3, 3)
    assert folding.graph(inputs).shape == (5, 2, 3, 3)


def test_a_network_with_a_parametrization_is_folded_where_it_can_be() -> None:
    model = nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)),
        nn.Linear(6, 5),
        nn.BatchNorm1d(5),
    )
    assert len(folding_of(lively(model))) == 1


class Branches(nn.Module):
    """Has a small and a large branch, and a layer behind each and behind both."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.behind_large = nn.Linear(4, 64), nn.Linear(64, 4)
        self.small, self.behind_small = nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        large = self.behind_large(torch.relu(self.large(x)))
        y: Tensor = self.head(large + self.behind_small(torch.relu(self.small(x))))
        return y


LAYERS = {"large": 1280, "behind_large": 1040, "small": 80, "behind_small": 80, "head": 60}


@pytest.mark.parametrize(
    ("budget", "stored"),
    [
        (0, []),
        (160, ["small", "behind_small"]),
        (1279, ["small", "behind_small"]),
        (1280, ["large"]),
        (1 << 20, [*LAYERS]),
    ],
)
def test_no_weights_are_stored_behind_a_step_that_exceeds_the_budget(
    budget: int, stored: list[str]
) -> None:
    model = Branches().requires_grad_(requires_grad=False).eval()
    graph = trace(model)
    assert graph is not None
    inputs = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    data = Data.of(Split("select", inputs, torch.zeros(10)), torch.device("cpu"))
    prefix = Prefix(graph, 1 << 20, budget)
    for point in range(3):
        model.head.bias.fill_(point)
        found = prefix.route("val", data)
        assert (found is not None) == (point > 0 and bool(stored))
        if found is not None:
            tail, made = found
            torch.testing.assert_close(tail(*made.batch(slice(0, 10))[0]), model(inputs))
    sizes = {node.name: sum(t.nbytes for t in held) for node, held in prefix._weights.items()}
    assert sizes == {name: LAYERS[name] for name in stored}
    assert sum(sizes.values()) <= budget
