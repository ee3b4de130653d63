import pytest
import torch
from torch import Tensor, nn

from soupcore.safe_torch.siblings import named_like
from soupcore.safe_torch.tensors import Storage, Unusable
from soupcore.safe_torch.tensors import Tensor as Stored

State = dict[str, Tensor]


def stored(tensor: Tensor) -> Stored:
    dtype = str(tensor.dtype).removeprefix("torch.")
    storage = Storage(str(tensor.untyped_storage().data_ptr()), dtype, tensor.nbytes)
    return Stored(
        storage, dtype, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride())
    )


def tied() -> nn.Module:
    made = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
    made[1].weight = made[0].weight
    return made


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3)),
        nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Linear(3, 3)),
        nn.TransformerEncoderLayer(4, 2, 8),
        nn.LSTM(3, 4, num_layers=2),
        tied(),
    ],
    ids=lambda network: type(network).__name__,
)
def test_a_list_of_parameters_gets_the_names_that_torch_gives_them(network: nn.Module) -> None:
    state = {name: stored(tensor) for name, tensor in network.state_dict().items()}
    averages = [stored(parameter.detach() + 1) for parameter in network.parameters()]
    expected = [name for name, _ in network.named_parameters()]
    found = named_like(averages, state)
    assert list(found) == expected
    assert [*found.values()] == averages


def test_frozen_parameters_may_be_missing_where_the_shapes_say_which() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5), nn.Linear(5, 1))
    state = {name: stored(tensor) for name, tensor in network.state_dict().items()}
    trained = [stored(parameter.detach()) for parameter in network[1].parameters()]
    assert list(named_like(trained, state)) == ["1.weight", "1.bias"]


@pytest.mark.parametrize(
    "unnamed",
    [
        [torch.zeros(3)],
        [torch.zeros(3, 3)],
        [torch.zeros(9, 9), torch.zeros(3)],
        [torch.zeros(3, 3), torch.zeros(3), torch.zeros(3, 3), torch.zeros(3), torch.zeros(3)],
    ],
    ids=["two biases", "two matrices", "another shape", "too many"],
)
def test_ambiguous_shapes_get_no_names(unnamed: list[Tensor]) -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    state = {name: stored(tensor) for name, tensor in network.state_dict().items()}
    assert named_like([stored(tensor) for tensor in unnamed], state) == {}


def test_tensors_that_cannot_be_read_get_no_names() -> None:
    state = {"w": stored(torch.zeros(3))}
    assert named_like([Unusable("is sparse", "")], state) == {}
