"""Folding and reused activations, alone and against the plain forward pass."""

import copy
import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from soupcore import Checkpoint, Mixture, Split, Store, Sweep, interpolate
from soupcore.evaluation.data import Data
from soupcore.evaluation.shortcuts import Folding, Prefix, trace
from tests.helpers import save_sweep
from tests.toy import IMAGE_CLASSES, IMAGE_NETWORKS, IMAGES, SIDE, ConvNet, ImageSweep, image_sweep

Build = Callable[[], nn.Module]


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


def test_batchnorm_without_gains_is_folded() -> None:
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


# Frozen layers


def frozen(*parts: str) -> Callable[[str], bool]:
    """Select the tensors that are not frozen: those with one of these parts in their names."""
    return lambda name: any(part in name for part in parts)


@pytest.mark.parametrize(
    ("net", "moving"),
    [
        pytest.param("mlp", ("5.",), id="mlp, head"),
        pytest.param("mlp", ("3.", "5."), id="mlp, all but the first layer"),
        pytest.param("mlp", ("1.",), id="mlp, first layer only"),
        pytest.param("conv net", ("head",), id="conv net, head"),
        pytest.param("conv net", ("blocks.2", "head"), id="conv net, last block"),
        pytest.param("conv net", ("norm",), id="conv net, BatchNorm only"),
        pytest.param("transformer", ("head",), id="transformer, head"),
        pytest.param("transformer", ("blocks.1", "head"), id="transformer, last block"),
        pytest.param("transformer", ("token",), id="transformer, class token only"),
        pytest.param("transformer", ("num_batches_tracked",), id="transformer, nothing"),
    ],
)
def test_points_with_frozen_layers_agree_with_the_plain_loop(
    tmp_path: Path, store: Store, net: str, moving: tuple[str, ...]
) -> None:
    made = image_sweep(tmp_path / "sweep", net, moving=frozen(*moving), splits=("val", "test"))
    evaluator = made.evaluator(store)
    for split in ("val", "test", "val"):
        points = made.points()
        for point, found in zip(points, evaluator.evaluate_all(points, split), strict=True):
            assert made.agrees(found, point, split)
    assert evaluator.notes == []


def test_layers_frozen_in_only_some_ingredients_are_computed_for_the_others(
    tmp_path: Path, store: Store
) -> None:
    moving = frozen("head")
    tuned = {"run1"}
    made = image_sweep(tmp_path / "frozen", "conv net", moving=moving)
    free = image_sweep(tmp_path / "free", "conv net")
    states = {n: free.states[n] if n in tuned else state for n, state in made.states.items()}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "mixed", states))
    mixed = ImageSweep(made.task, sweep, states)
    evaluator = mixed.evaluator(store)
    for point in mixed.points():
        for keep_outputs in (False, True):
            found = evaluator.evaluate(point, "val", keep_outputs=keep_outputs)
            assert mixed.agrees(found, point)


@pytest.fixture
def convolved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many examples each call of a convolution had."""
    calls: list[int] = []
    forward = nn.Conv2d.forward

    def counted(self: nn.Conv2d, images: Tensor) -> Tensor:
        calls.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(nn.Conv2d, "forward", counted)
    return calls


def test_frozen_layers_are_computed_once(
    tmp_path: Path, store: Store, convolved: list[int]
) -> None:
    made = image_sweep(tmp_path / "sweep", "conv net", moving=frozen("head"))
    evaluator = made.evaluator(store, batch_size=100)
    evaluator.evaluate_all(made.points()[:2], "val")
    before = len(convolved)
    evaluator.evaluate_all(made.points(), "val")
    assert convolved[before:] == []


def test_evaluating_a_point_on_another_split_does_not_freeze_its_layers(
    tmp_path: Path, store: Store, convolved: list[int]
) -> None:
    moving = frozen("blocks.2", "head")
    made = image_sweep(tmp_path / "sweep", "conv net", moving=moving, splits=("val", "test"))
    evaluator = made.evaluator(store, batch_size=100)
    for point in made.points()[:2]:
        for split in ("val", "test"):
            evaluator.evaluate(point, split)
    # What the frozen layers make of both splits is known by now, and the last block has three.
    before = len(convolved)
    third = made.points()[2]
    found = {split: evaluator.evaluate(third, split) for split in ("val", "test")}
    assert len(convolved) - before == 2 * 3
    for split, evaluation in found.items():
        assert made.agrees(evaluation, third, split)


def test_layers_too_large_to_cache_are_computed_at_each_point(
    tmp_path: Path, store: Store, convolved: list[int]
) -> None:
    made = image_sweep(tmp_path / "sweep", "conv net", moving=frozen("head"))
    # The features of the last layer are 16 numbers an example.
    few = made.evaluator(store, batch_size=100, memory_budget=4 * IMAGES * 15 * 4)
    few.evaluate_all(made.points()[:3], "val")
    before = len(convolved)
    found = few.evaluate(made.points()[4], "val")
    assert len(convolved) > before
    assert made.agrees(found, made.points()[4])


# Networks that shortcuts could break


class InPlace(nn.Module):
    """Writes to its input, and to what its frozen layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4 * (SIDE - 2) ** 2, IMAGE_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        images.sub_(0.5)
        features = self.features(images)
        features.mul_(1.5).add_(0.25)
        logits: Tensor = self.head(features.flatten(1))
        return logits


class ByPosition(InPlace):
    """Takes numbers up to the size of the batch from the way that the data comes."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images).flatten(1)
        order = torch.arange(features.shape[0])
        logits: Tensor = self.head(features)
        return logits[order]


class Branching(InPlace):
    """Asks the data which way to go, so that there is no graph of it."""

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.features(images).flatten(1)
        if features.isnan().all():
            return features
        logits: Tensor = self.head(features)
        return logits


class Around(InPlace):
    """The data goes through the first layer and around it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(SIDE, SIDE)  # type: ignore[assignment]
        self.head = nn.Linear(SIDE * SIDE, IMAGE_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head((images + self.features(images)).flatten(1))
        return logits


@pytest.mark.parametrize("build", [InPlace, ByPosition, Branching, Around])
@pytest.mark.parametrize("moving", [("",), ("head",), ("features",)])
@pytest.mark.parametrize("batch_size", [16, 70])
def test_unusual_networks_agree_with_the_plain_loop(
    tmp_path: Path, store: Store, build: Build, moving: tuple[str, ...], batch_size: int
) -> None:
    made = image_sweep(tmp_path / "sweep", build, moving=frozen(*moving))
    evaluator = made.evaluator(store, batch_size=batch_size)
    inputs = made.task.split("val").inputs.clone()
    for point in made.points():
        assert made.agrees(evaluator.evaluate(point, "val"), point)
    assert torch.equal(made.task.split("val").inputs, inputs)


def test_a_network_with_hooks_keeps_them(tmp_path: Path, store: Store) -> None:
    def build() -> nn.Module:
        model = IMAGE_NETWORKS["conv net"]()
        model.stem[0].register_forward_hook(  # type: ignore[index, union-attr]
            lambda module, arguments, output: output * 2
        )
        return model

    made = image_sweep(tmp_path / "sweep", build, moving=frozen("head"))
    evaluator = made.evaluator(store)
    for point in made.points():
        assert made.agrees(evaluator.evaluate(point, "val"), point)


# Shortcuts that fail


def test_a_shortcut_that_changes_results_is_disabled_with_a_note(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    refresh = Folding.refresh

    def wrong(self: Folding) -> float:
        scale = refresh(self)
        for name, parameter in self.graph.named_parameters():
            if name.startswith("_folded"):
                parameter.mul_(1.001)
        return scale

    monkeypatch.setattr(Folding, "refresh", wrong)
    made = image_sweep(tmp_path / "sweep", "conv net")
    evaluator = made.evaluator(store)
    for point in made.points():
        assert made.agrees(evaluator.evaluate(point, "val"), point)
    (note,) = evaluator.notes
    assert "BatchNorm is computed without a shortcut, which changed the loss by" in note


def test_a_shortcut_that_fails_later_is_disabled_at_the_next_comparison(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soupcore.evaluation.shortcuts._AGAIN", 4)
    monkeypatch.setattr("soupcore.evaluation.shortcuts._EXAMPLES", 16)
    made = image_sweep(tmp_path / "sweep", "conv net")
    evaluator = made.evaluator(store)
    one, other = made.sweep["run0"].mixture, made.sweep["run1"].mixture
    points = [interpolate(one, other, Fraction(i, 20)) for i in range(1, 12)]
    refresh, calls = Folding.refresh, 0

    def wrong_from_the_third_on(self: Folding) -> float:
        nonlocal calls
        calls += 1
        refresh(self)
        for name, parameter in self.graph.named_parameters():
            if calls >= 3 and name.startswith("_folded"):
                parameter.mul_(1.01)
        return 1.0  # with larger factors than before, it would be compared at once

    monkeypatch.setattr(Folding, "refresh", wrong_from_the_third_on)
    for point in points[:3]:
        evaluator.evaluate(point, "val")
    assert evaluator.notes == []
    for point in points[3:]:
        evaluator.evaluate(point, "val")
    (note,) = evaluator.notes
    assert "BatchNorm is computed without a shortcut, which changed the loss by" in note
    assert made.agrees(evaluator.evaluate(points[-1], "val"), points[-1])


def test_points_with_nan_disable_no_shortcut(
    tmp_path: Path, store: Store, checkpoint_of: Callable[[Mapping[str, Tensor]], Checkpoint]
) -> None:
    made = image_sweep(tmp_path / "sweep", "conv net")
    evaluator = made.evaluator(store)
    for name, tensor, value in (
        ("run0", "head.bias", math.nan),
        ("run1", "blocks.0.norm1.running_var", -1.0),
        ("run2", "stem.0.weight", math.inf),
    ):
        state = {**made.states[name], tensor: torch.full_like(made.states[name][tensor], value)}
        broken, whole = Mixture([(checkpoint_of(state), 1)]), made.sweep[name].mixture
        found = evaluator.evaluate(broken, "val")
        assert math.isnan(found.loss)
        assert found.score == 0
        assert made.agrees(evaluator.evaluate(whole, "val"), whole)
    assert evaluator.notes == []
