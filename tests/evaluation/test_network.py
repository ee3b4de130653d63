from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from soupcore import Checkpoint, CheckpointError, ClassificationTask, Mixture, Split, mean
from soupcore.evaluation import network as network_module
from soupcore.evaluation.network import Network
from tests.helpers import State, any_tensor, same_bits
from tests.toy import build_model, random_state

CheckpointOf = Callable[[Mapping[str, Tensor]], Checkpoint]
BUDGETS = [0, 1500, 1 << 30]  # none of three ingredients in memory, some, all


class Tied(nn.Module):
    """Shares a weight between two layers, and has tensors of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("ids", torch.arange(3))
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("table", torch.zeros(2, 2, dtype=torch.float64))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("scratch", torch.zeros(5), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.embedding(rows))) * self.scale
        return logits


class Column(nn.Module):
    """Has a weight that does not lie row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, 4).T)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.weight


def network_of(build: Callable[[], nn.Module], budget: int = 1 << 30) -> Network:
    splits = {"val": Split("select", torch.zeros(1), torch.zeros(1))}
    task = ClassificationTask(build, splits, name="toy")
    return Network(task, torch.device("cpu"), budget)


def random_like(build: Callable[[], nn.Module], seed: int) -> State:
    model = build()
    state = {
        name: any_tensor(tensor.dtype, *tensor.shape, seed=seed + index)
        for index, (name, tensor) in enumerate(model.state_dict().items())
    }
    if isinstance(model, Tied):
        state["head.weight"] = state["embedding.weight"].clone()
    return state


@pytest.fixture(params=[build_model, Tied, Column], ids=["toy", "tied", "column"])
def build(request: pytest.FixtureRequest) -> Callable[[], nn.Module]:
    found: Callable[[], nn.Module] = request.param
    return found


def points(checkpoints: list[Checkpoint]) -> list[Mixture]:
    alone = [Mixture([(checkpoint, 1)]) for checkpoint in checkpoints]
    return [
        *alone,
        mean(alone),
        alone[0] * Fraction(3, 7) + alone[2] * Fraction(-1, 3),
        mean(alone),
    ]


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_network_has_the_weights_of_the_point_to_the_bit(
    build: Callable[[], nn.Module], checkpoint_of: CheckpointOf, budget: int
) -> None:
    network = network_of(build, budget)
    for point in points([checkpoint_of(random_like(build, seed)) for seed in (0, 100, 200)]):
        network.put(point)
        expected = point.state_dict()
        for name, tensor in network.model.state_dict().items():
            assert same_bits(tensor, expected[name]), name


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_another_dtype_are_mixed_in_it_and_then_converted(
    checkpoint_of: CheckpointOf, dtype: torch.dtype, budget: int
) -> None:
    states = [
        {n: t.to(dtype) if t.is_floating_point() else t for n, t in random_state(seed).items()}
        for seed in range(3)
    ]
    states[2] = random_state(2)  # one of them in the network's own
    network = network_of(build_model, budget)
    for point in points([checkpoint_of(state) for state in states]):
        network.put(point)
        expected = point.state_dict()
        for name, tensor in network.model.state_dict().items():
            assert same_bits(tensor, expected[name].to(tensor.dtype)), name


def test_tied_weights_stay_tied_and_no_parameter_is_lost(checkpoint_of: CheckpointOf) -> None:
    network = network_of(Tied)
    model = network.model
    assert isinstance(model, Tied)
    assert model.head.weight is model.embedding.weight
    network.put(Mixture([(checkpoint_of(random_like(Tied, 1)), 1)]))
    assert model.head.weight.data_ptr() == model.embedding.weight.data_ptr()
    assert torch.equal(model.get_buffer("scratch"), torch.zeros(5))
    fresh = Tied()
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in fresh.named_parameters()]


def test_the_tensors_of_one_dtype_lie_in_one_buffer(checkpoint_of: CheckpointOf) -> None:
    model = network_of(build_model).model
    storages = {t.untyped_storage().data_ptr() for t in model.state_dict().values()}
    assert len(storages) == 2  # floats, and the counter


def test_a_network_keeps_the_values_it_was_built_with_until_a_point_is_put_in() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = build_model().state_dict()
        torch.manual_seed(3)
        found = network_of(build_model).model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


class Unsaved(nn.Module):
    """Has a tensor, but not in its state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scratch", torch.zeros(5), persistent=False)


@pytest.mark.parametrize("build", [nn.Flatten, Unsaved])
def test_a_network_without_tensors_fits_no_checkpoint(
    checkpoint_of: CheckpointOf, build: Callable[[], nn.Module]
) -> None:
    network = network_of(build)
    assert network.buffers == {}
    with pytest.raises(CheckpointError, match="does not fit the network of the task 'toy'"):
        network.put(Mixture([(checkpoint_of(random_state(1)), 1)]))


def test_an_ingredient_that_does_not_fit_in_memory_is_read_in_pieces(
    checkpoint_of: CheckpointOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(network_module.Row, "__init__", full)
    network = network_of(build_model)
    (point, *_) = points([checkpoint_of(random_state(seed)) for seed in range(3)])
    network.put(point)
    for name, tensor in network.model.state_dict().items():
        assert same_bits(tensor, point.state_dict()[name])


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory")], ids=str
)
def test_a_tensor_that_cannot_be_mixed_in_memory_is_named(
    checkpoint_of: CheckpointOf, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    mix_into = Mixture.mix_into

    def scarce(self: Mixture, name: str, *arguments: object) -> None:
        if name == "3.weight":
            raise error
        mix_into(self, name, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Mixture, "mix_into", scarce)
    point = Mixture([(checkpoint_of(random_state(1)), 1)])
    with pytest.raises(CheckpointError, match=r"too little memory to mix tensor '3\.weight'"):
        network_of(build_model, 0).put(point)


def test_other_errors_are_not_handled_as_out_of_memory(
    checkpoint_of: CheckpointOf, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(Mixture, "mix_into", broken)
    with pytest.raises(RuntimeError, match="something else"):
        network_of(build_model, 0).put(Mixture([(checkpoint_of(random_state(1)), 1)]))
