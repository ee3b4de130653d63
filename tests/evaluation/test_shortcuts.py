import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from soupcore import Checkpoint, Evaluator, Mixture, Store, Sweep, interpolate
from soupcore.evaluation.folding import Folding
from tests.evaluation.nets import CLASSES, EXAMPLES, NETS, SIDE, Kitchen, kitchen
from tests.helpers import save_sweep

Build = Callable[[], nn.Module]


def evaluator_of(kitchen: Kitchen, store: Store, **options: int) -> Evaluator:
    return Evaluator(kitchen.task, store, device="cpu", **options)


def frozen(*parts: str) -> Callable[[str], bool]:
    """Say that only tensors with one of these in their names move."""
    return lambda name: any(part in name for part in parts)


# Against the plain loop

# What a quarter of it holds is what the first layer of the MLP makes of one split for two
# ingredients, which the others have to take turns in.
FOR_TWO = 4 * 2 * EXAMPLES * 32 * torch.float32.itemsize


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    "options",
    [{}, {"batch_size": 16}, {"memory_budget": 0}, {"memory_budget": FOR_TWO}],
    ids=str,
)
def test_every_point_is_what_the_plain_loop_finds(
    tmp_path: Path, store: Store, net: str, options: dict[str, int]
) -> None:
    made = kitchen(tmp_path / "sweep", NETS[net], splits=("val", "test"))
    evaluator = evaluator_of(made, store, **options)
    for split in ("val", "test"):
        points = made.points()
        for point, found in zip(points, evaluator.evaluate_all(points, split), strict=True):
            assert made.agrees(found, point, split)
    assert evaluator.notes == []


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
def test_where_layers_are_frozen_it_is_too(
    tmp_path: Path, store: Store, net: str, moving: tuple[str, ...]
) -> None:
    made = kitchen(tmp_path / "sweep", NETS[net], moving=frozen(*moving), splits=("val", "test"))
    evaluator = evaluator_of(made, store)
    for split in ("val", "test", "val"):
        points = made.points()
        for point, found in zip(points, evaluator.evaluate_all(points, split), strict=True):
            assert made.agrees(found, point, split)
    assert evaluator.notes == []


def test_layers_that_are_frozen_in_some_ingredients_are_not_taken_for_frozen_in_others(
    tmp_path: Path, store: Store
) -> None:
    moving = frozen("head")
    tuned = {"run1"}
    made = kitchen(tmp_path / "frozen", NETS["conv net"], moving=moving)
    free = kitchen(tmp_path / "free", NETS["conv net"])
    states = {n: free.states[n] if n in tuned else state for n, state in made.states.items()}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "mixed", states))
    mixed = Kitchen(made.task, sweep, states)
    evaluator = evaluator_of(mixed, store)
    for point in mixed.points():
        for keep_outputs in (False, True):
            found = evaluator.evaluate(point, "val", keep_outputs=keep_outputs)
            assert mixed.agrees(found, point)


# What is computed, and what is not


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
    made = kitchen(tmp_path / "sweep", NETS["conv net"], moving=frozen("head"))
    evaluator = evaluator_of(made, store, batch_size=100)
    evaluator.evaluate_all(made.points()[:2], "val")
    before = len(convolved)
    evaluator.evaluate_all(made.points(), "val")
    assert convolved[before:] == []


def test_the_same_point_on_another_split_is_not_taken_for_one_with_all_layers_frozen(
    tmp_path: Path, store: Store, convolved: list[int]
) -> None:
    moving = frozen("blocks.2", "head")
    made = kitchen(tmp_path / "sweep", NETS["conv net"], moving=moving, splits=("val", "test"))
    evaluator = evaluator_of(made, store, batch_size=100)
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


def test_what_would_take_more_memory_than_there_is_is_computed_at_each_point(
    tmp_path: Path, store: Store, convolved: list[int]
) -> None:
    made = kitchen(tmp_path / "sweep", NETS["conv net"], moving=frozen("head"))
    # The features of the last layer are 16 numbers an example.
    few = evaluator_of(made, store, batch_size=100, memory_budget=4 * EXAMPLES * 15 * 4)
    few.evaluate_all(made.points()[:3], "val")
    before = len(convolved)
    found = few.evaluate(made.points()[4], "val")
    assert len(convolved) > before
    assert made.agrees(found, made.points()[4])


def test_a_linear_first_layer_is_computed_once_for_each_ingredient(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = kitchen(tmp_path / "sweep", NETS["mlp"])
    seen: list[tuple[int, int]] = []
    forward = nn.Linear.forward

    def counted(self: nn.Linear, inputs: Tensor) -> Tensor:
        seen.append((self.in_features, len(inputs)))
        return forward(self, inputs)

    monkeypatch.setattr(nn.Linear, "forward", counted)
    evaluator = evaluator_of(made, store, batch_size=100)
    a, b = (made.sweep[name].mixture for name in made.sweep.names()[:2])
    points = [interpolate(a, b, Fraction(i, 10)) for i in range(11)]
    evaluator.evaluate_all(points, "val")
    first = [n for inputs, n in seen if inputs == SIDE * SIDE]
    # Once for each of the two, and once where the shortcut is compared with the plain way.
    assert first == [EXAMPLES] * 3
    assert len([n for inputs, n in seen if inputs == 32]) == 2 * len(points) + 2 * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_weights_are_rounded_as_their_mixture_is(
    tmp_path: Path, store: Store, dtype: torch.dtype
) -> None:
    made = kitchen(tmp_path / "sweep", NETS["mlp"], k=2)
    halved = {n: {k: t.to(dtype) for k, t in s.items()} for n, s in made.states.items()}
    sweep = Sweep.from_folder(save_sweep(tmp_path / "halved", halved))
    point = sweep.mixture({"run0": Fraction(1, 3), "run1": Fraction(2, 3)})
    found = evaluator_of(made, store).evaluate(point, "val")
    model = made.task.build_model()
    model.load_state_dict(point.state_dict())
    with torch.no_grad():
        expected = model(made.task.split("val").inputs)
    torch.testing.assert_close(found.outputs, expected)


# Networks that are not what they seem


class InPlace(nn.Module):
    """Writes to its input, and to what its frozen layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4 * (SIDE - 2) ** 2, CLASSES)

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
        self.head = nn.Linear(SIDE * SIDE, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head((images + self.features(images)).flatten(1))
        return logits


@pytest.mark.parametrize("build", [InPlace, ByPosition, Branching, Around])
@pytest.mark.parametrize("moving", [("",), ("head",), ("features",)])
@pytest.mark.parametrize("batch_size", [16, 70])
def test_a_peculiar_network_is_computed_as_it_would_be(
    tmp_path: Path, store: Store, build: Build, moving: tuple[str, ...], batch_size: int
) -> None:
    made = kitchen(tmp_path / "sweep", build, moving=frozen(*moving))
    evaluator = evaluator_of(made, store, batch_size=batch_size)
    inputs = made.task.split("val").inputs.clone()
    for point in made.points():
        assert made.agrees(evaluator.evaluate(point, "val"), point)
    assert torch.equal(made.task.split("val").inputs, inputs)


def test_a_network_with_hooks_keeps_them(tmp_path: Path, store: Store) -> None:
    def build() -> nn.Module:
        model = NETS["conv net"]()
        model.stem[0].register_forward_hook(  # type: ignore[index, union-attr]
            lambda module, arguments, output: output * 2
        )
        return model

    made = kitchen(tmp_path / "sweep", build, moving=frozen("head"))
    evaluator = evaluator_of(made, store)
    for point in made.points():
        assert made.agrees(evaluator.evaluate(point, "val"), point)


# Shortcuts that fail


def test_a_shortcut_that_changes_the_numbers_is_switched_off_with_a_note(
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
    made = kitchen(tmp_path / "sweep", NETS["conv net"])
    evaluator = evaluator_of(made, store)
    for point in made.points():
        assert made.agrees(evaluator.evaluate(point, "val"), point)
    (note,) = evaluator.notes
    assert "BatchNorm is computed as it stands: the shortcut changed the loss by" in note


def test_a_broken_point_switches_nothing_off(
    tmp_path: Path, store: Store, checkpoint_of: Callable[[Mapping[str, Tensor]], Checkpoint]
) -> None:
    made = kitchen(tmp_path / "sweep", NETS["conv net"])
    evaluator = evaluator_of(made, store)
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
