from collections import OrderedDict, UserDict
from typing import Any

import pytest
import torch
from torch import nn

from soupcore.strict import containers
from soupcore.strict.refusal import Refusal
from tests.strict.torch_files import contents

SMALL, MORE, OTHER = {"w": torch.ones(4)}, {"w": torch.ones(16)}, {"w": torch.zeros(4)}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(9)}}, "param_groups": [{"lr": 0.1}]}
AVERAGED = {"module.w": torch.ones(4), "n_averaged": torch.tensor(3)}
OF_MMENGINE = {"module.w": torch.zeros(4), "steps": torch.tensor(3)}


class Config(dict[str, Any]):
    pass


def sets(value: object) -> list[tuple[str, str]]:
    return [(found["name"], found["title"]) for found in contents(value)["sets"]]


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        pytest.param(SMALL, [("", "weights")], id="bare"),
        pytest.param(OrderedDict(SMALL), [("", "weights")], id="ordered"),
        pytest.param(nn.Linear(2, 2), [("", "weights")], id="module"),
        pytest.param(nn.DataParallel(nn.Linear(2, 2)), [("", "weights")], id="wrapped module"),
        pytest.param({"state_dict": SMALL, "epoch": 1}, [("state_dict", "weights")], id="wrapped"),
        pytest.param(Config(state_dict=SMALL), [("state_dict", "weights")], id="own dict"),
        pytest.param({"state_dict": Config(SMALL)}, [("state_dict", "weights")], id="own dict in"),
        pytest.param(
            {"model": {"state_dict": SMALL}}, [("model.state_dict", "weights")], id="twice wrapped"
        ),
        pytest.param(
            {"model": SMALL, "optimizer": OPTIMIZER, "rng_state": torch.ones(9)},
            [("model", "weights")],
            id="with an optimizer",
        ),
        pytest.param(
            {"state_dict": SMALL, "state_dict_ema": OTHER, "arch": "vit"},
            [("state_dict_ema", "EMA weights"), ("state_dict", "raw weights")],
            id="timm",
        ),
        pytest.param(
            {"model": SMALL, "model_ema": AVERAGED},
            [("model_ema", "EMA weights"), ("model", "raw weights")],
            id="torchvision",
        ),
        pytest.param(
            {"epoch": 1, "model": nn.Linear(2, 2), "ema": nn.Linear(2, 2).half()},
            [("ema", "EMA weights"), ("model", "raw weights")],
            id="YOLO in training",
        ),
        pytest.param({"model": nn.Linear(2, 2), "ema": None}, [("model", "weights")], id="YOLO"),
        pytest.param({"model": None, "ema": nn.Linear(2, 2)}, [("ema", "weights")], id="YOLO now"),
        pytest.param(
            {"student": SMALL, "teacher": OTHER, "dino_loss": {"center": torch.ones(9)}},
            [("teacher", "teacher weights"), ("student", "student weights")],
            id="DINO",
        ),
        pytest.param(
            {"module": SMALL, "ds_version": "0.14", "lr_scheduler": {}},
            [("module", "weights")],
            id="DeepSpeed",
        ),
        pytest.param(
            {"params": SMALL, "params_ema": OTHER},
            [("params_ema", "EMA weights"), ("params", "raw weights")],
            id="BasicSR",
        ),
        pytest.param(
            {"state_dict": SMALL, "hyper_parameters": {"lr": 1}, "optimizer_states": [OPTIMIZER]},
            [("state_dict", "weights")],
            id="Lightning",
        ),
        pytest.param(
            {"state_dict": SMALL, "current_model_state": OTHER, "averaging_state": {}},
            [("state_dict", "averaged weights"), ("current_model_state", "raw weights")],
            id="Lightning with an average",
        ),
        pytest.param(
            {"state_dict": SMALL, "ema_state_dict": OF_MMENGINE, "message_hub": {}, "meta": {}},
            [("state_dict", "averaged weights"), ("ema_state_dict", "raw weights")],
            id="mmengine",
        ),
        pytest.param(
            {"state_dict": SMALL, "ema_state_dict": OTHER, "meta": {"mmengine_version": "0.10"}},
            [("state_dict", "averaged weights"), ("ema_state_dict", "raw weights")],
            id="mmengine, by its version",
        ),
        pytest.param(
            {"state_dict": SMALL, "ema_state_dict": OTHER},
            [("ema_state_dict", "EMA weights"), ("state_dict", "raw weights")],
            id="average of another tool",
        ),
        pytest.param(
            {"generator": SMALL, "discriminator": MORE, "epoch": 3},
            [("discriminator", "discriminator"), ("generator", "generator")],
            id="by size",
        ),
        pytest.param({"net": nn.Linear(2, 2), "best": 1.0}, [("net", "weights")], id="own name"),
        pytest.param(
            {"w": torch.ones(9), "layer._extra_state": {"scale": torch.ones(1)}},
            [("", ""), ("layer._extra_state", "layer._extra_state")],
            id="extra state",
        ),
        pytest.param(
            {"model": MORE, "ema": {"decay": torch.ones(1)}}, [("model", "weights")], id="not a set"
        ),
        pytest.param({"model": SMALL, "ema": SMALL}, [("ema", "weights")], id="one set twice"),
    ],
)
def test_the_weights_are_found_where_the_tool_puts_them(
    saved: object, expected: list[tuple[str, str]]
) -> None:
    assert sets(saved) == expected


def test_the_choice_is_explained_where_there_is_one() -> None:
    both = contents({"model": SMALL, "model_ema": OTHER})["sets"]
    assert both[0]["notes"] == [
        "'model_ema' (EMA weights) is what the tool that wrote such a file evaluates; "
        "it was taken rather than 'model'."
    ]
    assert both[1]["notes"] == []
    average = contents({"state_dict": SMALL, "current_model_state": OTHER})["sets"]
    assert "'state_dict' holds the average of the weights" in average[0]["notes"][0]
    largest = contents({"generator": SMALL, "discriminator": MORE})["sets"]
    assert "'discriminator' is the largest" in largest[0]["notes"][0]
    assert contents(SMALL)["sets"][0]["notes"] == []


def test_what_is_no_tensor_is_left_out_and_said() -> None:
    found = contents(SMALL | {"epoch": 3, "_extra_state": None})["sets"][0]
    assert list(found["tensors"]) == ["w"]
    assert found["notes"] == [
        "2 of its entries are not named tensors and were left out (the first one: 'epoch')."
    ]


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (AVERAGED, ["module.w"]),
        (OF_MMENGINE, ["module.w"]),
        ({"w": torch.ones(1), "n_averaged": torch.tensor(1)}, ["w"]),
        ({"w": torch.ones(1), "steps": torch.tensor(1)}, ["w", "steps"]),
    ],
)
def test_counters_of_averages_are_no_weights(state: dict[str, Any], names: list[str]) -> None:
    assert list(contents(state)["sets"][0]["tensors"]) == names


@pytest.mark.parametrize(
    ("saved", "problem"),
    [
        pytest.param({}, "holds no tensors", id="empty dict"),
        pytest.param([torch.ones(2)], "a thing of the kind list, and no weights", id="list"),
        pytest.param(3, "a thing of the kind int, and no weights", id="number"),
        pytest.param(UserDict(SMALL), "kind collections.UserDict, and no", id="object"),
        pytest.param(nn.Linear, r"kind torch\.nn\.modules\.linear\.Linear, and no", id="class"),
        pytest.param(torch.ones(2), "one tensor without a name", id="tensor"),
        pytest.param(OPTIMIZER, "holds the state of an optimizer", id="optimizer"),
        pytest.param({"optimizer": OPTIMIZER}, "holds the state of an optimizer", id="run"),
        pytest.param({0: torch.ones(2)}, "tensors have no names .'0'", id="numbers for names"),
        pytest.param({"epoch": 1, "lr": 2}, "no tensors .'epoch', 'lr'.", id="numbers"),
        pytest.param(nn.ReLU(), "kind torch.nn.modules.activation.ReLU", id="module without any"),
        pytest.param(
            {"module": {"w": torch.empty(0)}, "ds_version": "0.14"}, "zero_to_fp32", id="ZeRO-3"
        ),
    ],
)
def test_a_file_without_weights_is_refused_with_what_it_holds(saved: object, problem: str) -> None:
    with pytest.raises(Refusal, match=problem):
        contents(saved)


def test_containers_that_hold_each_other_are_walked_once() -> None:
    loop: dict[str, Any] = {"model": None, "w": torch.ones(1)}
    loop["model"] = {"ema": loop, "state_dict": loop}
    assert sets(loop) == [("", "weights")]


@pytest.mark.parametrize("names", [["model"], ["model", "ema"]])
def test_more_tensors_than_any_model_has_are_refused(
    monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    def many(count: int) -> dict[str, dict[str, torch.Tensor]]:
        tensors = [torch.ones(1) for _ in range(count)]
        return {name: {f"w{n}": tensor for n, tensor in enumerate(tensors)} for name in names}

    monkeypatch.setattr(containers, "MOST_TENSORS", 4)
    assert len(sets(many(4 // len(names)))) == len(names)
    with pytest.raises(Refusal, match="more tensors than the limit of 4"):
        contents(many(5))
