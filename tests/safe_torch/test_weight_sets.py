import re
import struct
from collections import OrderedDict, UserDict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from soupcore.safe_torch import places, weight_sets
from soupcore.safe_torch.contents import read_contents
from soupcore.safe_torch.refusal import Refusal
from tests.safe_torch.torch_files import contents
from tests.safe_torch.torch_files import saved as saved_file

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
        pytest.param(UserDict(SMALL), [("data", "weights")], id="attribute of an object"),
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
            [
                ("generator", "generator"),
                ("discriminator", "discriminator"),
                ("generator+discriminator", "joined weights"),
            ],
            id="GAN",
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


def test_the_choice_among_several_sets_is_explained() -> None:
    both = contents({"model": SMALL, "model_ema": OTHER})["sets"]
    assert both[0]["notes"] == [
        "'model_ema' (EMA weights) holds the weights that the tool with these keys evaluates; "
        "it was opened and not 'model'."
    ]
    assert both[1]["notes"] == []
    average = contents({"state_dict": SMALL, "current_model_state": OTHER})["sets"]
    assert "'state_dict' holds the average of the weights" in average[0]["notes"][0]
    several = contents({"generator": SMALL, "discriminator": MORE})["sets"]
    assert several[0]["notes"] == [
        "'generator' was opened; the file also holds 'discriminator', 'generator+discriminator'.",
        "'generator' omits 'discriminator', which the file also holds: another part of "
        "the network, or another network.",
    ]
    assert contents(SMALL)["sets"][0]["notes"] == []


def test_values_that_are_not_tensors_are_left_out_and_noted() -> None:
    found = contents(SMALL | {"epoch": 3, "_extra_state": None})["sets"][0]
    assert list(found["tensors"]) == ["w"]
    assert found["notes"] == [
        "2 of its entries are not named tensors and were omitted (the first one: 'epoch')."
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
def test_counters_of_averages_are_not_weights(state: dict[str, Any], names: list[str]) -> None:
    assert list(contents(state)["sets"][0]["tensors"]) == names


@pytest.mark.parametrize(
    ("saved", "problem"),
    [
        pytest.param({}, "holds no tensors", id="empty dict"),
        pytest.param([torch.ones(2)], "an object of type list, and no named weights", id="list"),
        pytest.param(3, "an object of type int, and no named weights", id="number"),
        pytest.param(UserDict(a=1), "type collections.UserDict, and no", id="object"),
        pytest.param(nn.Linear, r"type torch\.nn\.modules\.linear\.Linear, and no", id="class"),
        pytest.param(torch.ones(2), "one tensor without a name", id="tensor"),
        pytest.param(OPTIMIZER, "holds the state of an optimizer", id="optimizer"),
        pytest.param({"optimizer": OPTIMIZER}, "holds the state of an optimizer", id="run"),
        pytest.param({0: torch.ones(2)}, "tensors have no names .'0'", id="numbers for names"),
        pytest.param({"epoch": 1, "lr": 2}, "no tensors .'epoch', 'lr'.", id="numbers"),
        pytest.param(nn.ReLU(), "type torch.nn.modules.activation.ReLU", id="module without any"),
        pytest.param(
            {"module": {"w": torch.empty(0)}, "ds_version": "0.14"}, "zero_to_fp32", id="ZeRO-3"
        ),
    ],
)
def test_a_file_without_weights_is_refused_with_its_contents(saved: object, problem: str) -> None:
    with pytest.raises(Refusal, match=problem):
        contents(saved)


def test_recursive_containers_are_walked_once() -> None:
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

    monkeypatch.setattr(weight_sets, "MOST_TENSORS", 4)
    assert len(sets(many(4 // len(names)))) == len(names)
    with pytest.raises(Refusal, match="more tensors than the limit of 4"):
        contents(many(5))


def layers(*names: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict of linear layers, `encoder.0` for one of them."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{name}.{part}": torch.randn(size, generator=generator)
        for name in names
        for part, size in (("weight", (3, len(name))), ("bias", (3,)))
    }


def averaged(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor + 1 for name, tensor in state.items()}


BODY, HEAD = layers("0", "10"), {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
NETWORK = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


class Average:
    """An average as an object of a class of somebody's own."""

    def __init__(self, shadow: dict[str, torch.Tensor]) -> None:
        self.decay = 0.99
        self.shadow = shadow


OTHER_SETS = [
    *("model_avg", "swa_model", "averager", "ema_weights", "shadow", "polyak", "teacher"),
    *("target_network", "best_model", "best_loss_model", "averaged_state", "slow_model"),
]


def nested() -> dict[str, Any]:
    """A tree of dicts, as of T5X, whose layers have the same names and shapes."""

    def attention() -> dict[str, Any]:
        return {name: {"kernel": torch.ones(2, 2)} for name in ("query", "key", "value")}

    return {
        "encoder": {f"layers_{n}": {"attention": attention()} for n in range(2)},
        "decoder": {"norm": {"scale": torch.ones(2)}},
        "logit_scale": torch.tensor(1.0),
    }


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ({"model": BODY, "generator": HEAD}, ["model+generator", "model", "generator"]),
        ({"encoder": BODY, "decoder": HEAD}, ["encoder+decoder", "encoder", "decoder"]),
        (
            {"backbone": BODY, "head": HEAD, "optimizer": OPTIMIZER},
            ["backbone+head", "backbone", "head"],
        ),
        (
            {"net": {"trunk": BODY, "heads": HEAD}, "phase": 1},
            ["net", "net.trunk", "net.heads"],
        ),
        (
            {"encoder_a": BODY, "encoder_b": averaged(BODY)},
            ["encoder_a+encoder_b", "encoder_a", "encoder_b"],
        ),
        (
            {"enc": BODY, "dec": HEAD, "enc_ema": averaged(BODY), "dec_ema": averaged(HEAD)},
            ["enc+dec", "enc_ema+dec_ema", "enc", "enc_ema", "dec", "dec_ema"],
        ),
        (
            {"model": {"enc": BODY, "dec": HEAD}, "ema": {"enc": averaged(BODY), "dec": HEAD | {}}},
            ["ema", "ema.enc", "ema.dec", "model", "model.enc", "model.dec"],
        ),
        ([BODY, averaged(BODY)], ["0+1", "0", "1"]),
    ],
    ids=lambda value: "+".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_a_network_in_several_state_dicts_is_one_set_and_its_parts(
    saved: object, expected: list[str]
) -> None:
    assert [name for name, _ in sets(saved)] == expected
    found = contents(saved)["sets"]
    assert found[0]["left_out"] == []
    assert "were joined under their keys" in found[0]["notes"][0]
    assert all(
        one["left_out"] for one in found if "+" not in one["name"] and one["name"].count("c")
    )


def test_joined_tensors_are_named_after_their_parts() -> None:
    joined = contents({"a": {"model": BODY, "generator": HEAD, "epoch": 3}})["sets"][0]
    assert joined["name"] == "a"
    assert list(joined["tensors"]) == [
        *(f"model.{name}" for name in BODY),
        *(f"generator.{name}" for name in HEAD),
    ]


@pytest.mark.parametrize(
    "place", [("target",), ("params",), ("state", "model"), ("model", "language_model")], ids=str
)
def test_a_tree_of_dicts_is_one_network(place: tuple[str, ...]) -> None:
    saved: dict[str, Any] = nested()
    for key in reversed(place):
        saved = {key: saved, "step": torch.tensor(3)}
    found = contents(saved)["sets"]
    assert found[0]["name"] == ".".join(place)
    assert len(found[0]["tensors"]) == 8
    assert "encoder.layers_1.attention.value.kernel" in found[0]["tensors"]
    assert "logit_scale" in found[0]["tensors"]


def test_the_layers_of_a_wide_tree_are_no_sets_of_their_own() -> None:
    saved = {f"layer_{n}": {"w": torch.ones(2)} for n in range(20)}
    (found,) = contents(saved)["sets"]
    assert (found["name"], found["title"], len(found["tensors"])) == ("", "weights", 20)


@pytest.mark.parametrize("key", OTHER_SETS)
def test_sets_of_weights_are_found_under_any_name(key: str) -> None:
    wrapped = {f"module.{name}": tensor for name, tensor in averaged(BODY).items()}
    for other in (averaged(BODY), wrapped | {"n_averaged": torch.tensor(2)}):
        found = contents({"model": BODY, key: other, "epoch": 3})["sets"]
        assert {one["name"] for one in found} == {"model", key}
        assert [one["left_out"] for one in found] == [[], []]
        assert repr(({"model", key} - {found[0]["name"]}).pop()) in found[0]["notes"][0]


@pytest.mark.parametrize(
    ("saved", "place"),
    [
        ({"state": {"model": BODY, "optimizers": {}}, "rng": [{}]}, "state.model"),
        (
            {"classy_state_dict": {"base_model": {"model": {"trunk": BODY, "heads": {}}}}},
            "classy_state_dict.base_model.model.trunk",
        ),
        ({"ema": Average(BODY)}, "ema.shadow"),
        ({"trainer": {"agents": [{"policy": NETWORK}]}}, "trainer.agents.0.policy"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weights_are_found_at_any_depth(saved: object, place: str) -> None:
    assert sets(saved) == [(place, "weights")]


@pytest.mark.parametrize("one", ["model", "net"])
def test_sets_that_may_be_copies_or_parts_are_noted_and_can_be_joined(one: str) -> None:
    found = contents({one: BODY, "other": averaged(BODY)})["sets"]
    assert [each["name"] for each in found] == [one, "other", f"{one}+other"]
    assert [each["left_out"] for each in found] == [["other"], [one], []]
    assert "has the same names and shapes as 'other'. It is not clear" in found[0]["notes"][1]


@pytest.mark.parametrize("other", ["discriminator", "netD", "teacher"])
def test_another_network_is_joined_only_on_request(other: str) -> None:
    found = contents({"generator": BODY, other: HEAD})["sets"]
    assert [each["name"] for each in found] == ["generator", other, f"generator+{other}"]
    assert [each["left_out"] for each in found] == [[other], ["generator"], []]


def test_an_average_that_was_saved_as_a_list_gets_the_names_of_the_parameters() -> None:
    averages = [parameter.detach() + 1 for parameter in NETWORK.parameters()]
    saved = {"model": NETWORK.state_dict(), "ema": {"decay": 0.9, "shadow_params": averages}}
    raw, average = contents(saved)["sets"]
    assert (raw["name"], average["name"]) == ("model", "ema.shadow_params")
    assert list(average["tensors"]) == [name for name, _ in NETWORK.named_parameters()]
    assert "whose names are used. It lacks 3 tensors of these." in average["notes"][0]


def test_a_list_without_names_is_listed_with_the_reason_why_it_cannot_be_opened() -> None:
    saved = {"model": BODY, "ema": {"shadow_params": [torch.ones(7, 7)]}}
    first, average = contents(saved)["sets"]
    assert average["problem"] in first["notes"]
    assert "'ema.shadow_params' is a list of 1 tensor without names" in average["problem"]


@pytest.mark.parametrize(
    ("beside", "note"),
    [
        ({"dino_loss": {"center": torch.ones(9)}}, "'dino_loss' (1 tensor) was omitted"),
        ({"optimizer": {"exp_avg": averaged(BODY)}}, "'optimizer' (4 tensors) was omitted"),
        ({"class_weights": torch.ones(4)}, "were omitted ('class_weights')"),
        ({"curve": {"acc": np.ones(9)}}, "'curve' (1 NumPy array) was omitted"),
        ({"samples": [torch.ones(4)]}, "'samples' (1 tensor without names) was omitted"),
    ],
    ids=str,
)
def test_floats_beside_the_weights_are_noted(beside: dict[str, Any], note: str) -> None:
    (found,) = contents({"model": BODY} | beside)["sets"]
    assert list(found["tensors"]) == list(BODY)
    assert any(note in text for text in found["notes"])


@pytest.mark.parametrize(
    "beside",
    [
        {"optimizer": OPTIMIZER, "lr_schedulers": [{"last_epoch": 3}]},
        {"optimizer_states": [OPTIMIZER]},
        {"best_acc": torch.tensor(0.9), "epoch": 3},
        {"rng_state": torch.ones(9, dtype=torch.uint8), "cuda_rng": [torch.ones(9).byte()]},
    ],
    ids=str,
)
def test_usual_values_beside_the_weights_are_not_noted(beside: dict[str, Any]) -> None:
    (found,) = contents({"model": BODY} | beside)["sets"]
    assert found["notes"] == []


@pytest.mark.parametrize(
    ("saved", "where"),
    [
        ({"decay": 0.9, "shadow_params": [torch.ones(3)]}, "1 tensor in 'shadow_params'"),
        ({"optimizer": {"a": {"m": torch.ones(3)}, "b": [torch.ones(2)]}}, "2 tensors in 'optim"),
        ([[torch.ones(2)]], "no named weights: 1 tensor in '0'"),
        ([torch.ones(2)], "no named weights: 1 tensor in its top level"),
    ],
    ids=str,
)
def test_a_file_of_tensors_without_names_is_described(saved: object, where: str) -> None:
    with pytest.raises(Refusal, match=where):
        contents(saved)


def test_one_object_at_two_places_is_noted() -> None:
    shared = {"w": torch.ones(2)}
    (found,) = contents({"a": shared, "b": {"c": shared}})["sets"]
    assert found["notes"] == ["'b.c' is the same object as 'a'."]


def test_deep_nesting_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "DEEPEST", 3)
    saved = {"model": BODY, "a": {"b": {"c": {"d": {"w": torch.ones(2)}}}}}
    (found,) = contents(saved)["sets"]
    assert found["notes"] == ["'a.b.c.d': nested too deeply, not searched."]


KEYS = st.sampled_from(
    [
        *("model", "ema", "model_avg", "state_dict", "net", "generator", "discriminator", "state"),
        *("encoder", "decoder", "head", "loss", "metrics", "optimizer", "layer_0", "layer_1"),
        *("shadow_params", "weird", "teacher", "student", "data"),
    ]
)
SHAPES = st.sampled_from([(2,), (3, 2), (2, 2), (1, 4)])
TENSORS = SHAPES.map(torch.zeros)
STATES = st.dictionaries(
    st.sampled_from(["0.weight", "0.bias", "weight", "scale"]), TENSORS, min_size=1
)
TREES = st.recursive(
    STATES | TENSORS | st.integers(0, 3) | st.lists(TENSORS, max_size=3),
    lambda inner: st.dictionaries(KEYS, inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=6,
)


def numbered(value: Any, place: tuple[str, ...], found: dict[int, tuple[str, ...]]) -> Any:
    """The same tree with another number in each tensor; which number is where is added."""
    if isinstance(value, torch.Tensor):
        found[len(found) + 1] = place
        return torch.full(value.shape, float(len(found)))
    if isinstance(value, dict):
        return {key: numbered(part, (*place, key), found) for key, part in value.items()}
    if isinstance(value, list):
        return [numbered(part, (*place, str(at)), found) for at, part in enumerate(value)]
    return value


@given(TREES)
def test_every_tensor_is_in_a_set_or_its_place_is_named(tree: Any) -> None:
    where: dict[int, tuple[str, ...]] = {}
    file = saved_file(numbered(tree, (), where))
    refused = ""
    read: dict[str, Any] = {}
    try:
        read = read_contents(file)
    except Refusal as refusal:
        refused = str(refusal)
    if refused:
        says_where = re.search(r"\d tensors? in |have no names|one tensor", refused)
        assert says_where or not where
        return
    text = " ".join(
        note for one in read["sets"] for note in (*one["notes"], one.get("problem", ""))
    )
    seen = set()
    for one in read["sets"]:
        for key, _, offset, *_ in one.get("tensors", {}).values():
            file.seek(read["storages"][key][0] + 4 * offset)
            seen.add(int(struct.unpack("<f", file.read(4))[0]))
    for number in where.keys() - seen:
        above = [".".join(where[number][:end]) for end in range(1, len(where[number]) + 1)]
        named = [*map(repr, above), repr(where[number][-1]), "its top level"]
        assert any(place in text for place in named), where[number]
