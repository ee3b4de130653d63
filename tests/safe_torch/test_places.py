from typing import Any

import pytest
import torch
from torch import nn

from soupcore.safe_torch import places
from soupcore.safe_torch.refusal import Refusal
from tests.safe_torch.torch_files import contents


class Net(nn.Module):
    """All kinds of parts that a module can have."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
        self.rnn = nn.LSTM(2, 3, num_layers=2, bidirectional=True)
        self.attention = nn.MultiheadAttention(4, 2)
        self.parts = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
        self.parts["b"].weight = self.parts["a"].weight
        self.scale = nn.Parameter(torch.ones(3).half(), requires_grad=False)
        self.more = nn.ParameterList([torch.ones(1), torch.zeros(2)])
        self.register_parameter("nothing", None)
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("skipped", torch.arange(4), persistent=False)
        self.register_buffer("none", None)
        self.no_module = None
        self.again = self.body[0]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
def test_a_pickled_module_gives_the_names_of_its_state_dict(protocol: int, zipped: bool) -> None:
    net = Net()
    found = contents(net, protocol, zipped=zipped)["sets"][0]
    assert found["notes"] == []
    assert [(name, tuple(view[3])) for name, view in found["tensors"].items()] == [
        (name, tuple(tensor.shape)) for name, tensor in net.state_dict().items()
    ]
    assert "skipped" not in found["tensors"]


def test_hooks_and_values_that_are_not_modules_are_noted() -> None:
    net = nn.Sequential(nn.Linear(1, 1))
    net.__dict__["_modules"]["1"] = 3
    net[0]._state_dict_hooks[0] = len
    notes = contents(net)["sets"][0]["notes"]
    assert notes == [
        "The module torch.nn.modules.linear.Linear changes its state dict by hooks, "
        "which were not run.",
        "The submodule 1 is not a module and was omitted.",
    ]


def shared(levels: int) -> nn.Module:
    module: nn.Module = nn.Linear(1, 1)
    for _ in range(levels):
        module = nn.Sequential(module, module)
    return module


def deep(levels: int) -> nn.Module:
    module: nn.Module = nn.Linear(1, 1)
    for _ in range(levels):
        module = nn.Sequential(module)
    return module


def in_itself() -> nn.Module:
    module = nn.Sequential(nn.Linear(1, 1))
    module.__dict__["_modules"]["again"] = module
    return module


def named_by_a_number() -> nn.Module:
    module = nn.Linear(1, 1)
    parameters: dict[Any, Any] = module.__dict__["_parameters"]
    parameters[3] = parameters.pop("weight")
    return module


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        pytest.param(shared(30), "expand to more than 100,000 tensors", id="shared"),
        pytest.param(deep(101), "nested more than 100 levels deep", id="deep"),
        pytest.param(in_itself(), "'again' contains itself", id="in itself"),
        pytest.param(named_by_a_number(), "the name '3', which is not a string", id="no name"),
    ],
)
def test_modules_that_no_model_has_are_refused(module: nn.Module, problem: str) -> None:
    with pytest.raises(Refusal, match=problem):
        contents(module)


def test_long_names_of_deep_modules_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MOST_NAME_BYTES", 100)
    with pytest.raises(Refusal, match="expand"):
        contents(deep(20))


def test_a_module_of_layers_used_many_times_is_read() -> None:
    assert len(contents(shared(5))["sets"][0]["tensors"]) == 64
