import argparse
import collections
import functools
import importlib
import inspect
import pathlib
from collections import OrderedDict, defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from soupcore.safe_torch.execution import check_name
from soupcore.safe_torch.known_classes import MODULE_CLASSES
from soupcore.safe_torch.refusal import Refusal
from tests.safe_torch import foreign
from tests.safe_torch.foreign import AttributeDict, omegaconf_tree
from tests.safe_torch.torch_files import contents

STATE = {"w": torch.ones(2)}


class Net(nn.Module):
    pass


class Reduced:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


class AModel(foreign.Foreign):
    pickled_as = "ultralytics.nn.tasks.DetectionModel"


class OddState(foreign.Foreign):
    """A module whose attributes come from something else than a dict."""

    pickled_as = "torch.nn.modules.activation.ReLU"

    def __init__(self, state: object) -> None:
        self.state = state

    def __getstate__(self) -> object:
        return self.state


def executes(value: object, protocol: int = 2) -> list[str]:
    found: list[str] = contents({"state_dict": STATE, "extra": value}, protocol)["executes"]
    return found


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "value",
    [
        STATE,
        nn.Parameter(torch.ones(2)),
        torch.ones(2).to(torch.float8_e5m2),
        nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.ReLU(), nn.LSTM(2, 2)),
        nn.TransformerEncoderLayer(4, 2, 8),
        {"norm": nn.LayerNorm, "activation": nn.functional.relu},
        argparse.Namespace(lr=1, out=pathlib.PurePosixPath("a/b"), device=torch.device("cpu")),
        collections.defaultdict(list, a=[1]),
        collections.Counter("aab"),
        collections.OrderedDict(a={1, 2}, b=frozenset({3}), c=b"raw", d=b"", e=1j),
        (np.float64(1.5), np.ones(3), np.float32(1).dtype),
        omegaconf_tree({"a": {"b": [1]}}),
        torch.__version__,
    ],
    ids=lambda value: type(value).__name__,
)
def test_usual_contents_are_known_to_be_harmless(value: object, protocol: int) -> None:
    assert executes(value, protocol) == []


@pytest.mark.parametrize(
    ("value", "found"),
    [
        pytest.param(Net(), [f"{__name__}.Net"], id="own class"),
        pytest.param(Net, [f"{__name__}.Net"], id="own class by name"),
        pytest.param(print, ["builtins.print"], id="function by name"),
        pytest.param(AttributeDict(a=1), [AttributeDict.pickled_as], id="dict of a package"),
        pytest.param(AModel(), [], id="model of ultralytics"),
        pytest.param(AModel, [AModel.pickled_as], id="class of ultralytics as a value"),
        pytest.param([AModel(), AModel, AModel()], [AModel.pickled_as], id="both"),
        pytest.param(Reduced(SimpleNamespace, ({"a": 1},)), ["types.SimpleNamespace"]),
        pytest.param(
            Reduced(collections.Counter, (), {"append": set}, iter([1])), ["collections.Counter"]
        ),
        pytest.param(
            Reduced(SimpleNamespace, (), {"__setstate__": set}), ["the attribute __setstate__"]
        ),
        pytest.param(
            Reduced(SimpleNamespace, (), (None, {"__class__": 1})), ["the attribute __class__"]
        ),
        pytest.param(
            Reduced(type(torch.__version__), (b"2.13",)), ["torch.torch_version.TorchVersion"]
        ),
        pytest.param(OddState({"a": "b"}), [], id="state"),
        pytest.param(OddState([("a", "b")]), [OddState.pickled_as], id="state of pairs"),
        pytest.param(OddState(({"a": "b"}, None)), [OddState.pickled_as], id="module with slots"),
        pytest.param(
            Reduced(SimpleNamespace, (), [("a", 1)]), ["types.SimpleNamespace"], id="pairs"
        ),
        pytest.param(
            torch.eye(2).to_sparse(),
            ["torch._utils._rebuild_sparse_tensor", "torch.serialization._get_layout"],
        ),
        pytest.param(Reduced(print, ("x",)), ["builtins.print"], id="call"),
        pytest.param(functools.partial(nn.LayerNorm, eps=1), ["functools.partial"], id="partial"),
        pytest.param(
            Reduced(nn.ReLU, (), {}), ["torch.nn.modules.activation.ReLU"], id="class called"
        ),
        pytest.param(np.array([{}]), ["numpy.dtype of an unusual kind"]),
        pytest.param(np.zeros(1, [("a", "f4")]), ["numpy.dtype of an unusual kind"]),
    ],
)
def test_names_on_no_list_are_reported(value: object, found: list[str]) -> None:
    assert executes(value) == found


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "posix.system",
        "subprocess.Popen",
        "builtins.eval",
        "builtins.__import__",
        "importlib.import_module",
        "runpy.run_path",
        "pkgutil.resolve_name",
        "pickle.loads",
        "_pickle.loads",
        "torch.load",
        "torch.hub.load",
        "torch.storage._load_from_bytes",
        "torch.serialization.load",
        "numpy.testing._private.utils.runstring",
        "operator.attrgetter",
        "copyreg.add_extension",
        "_codecs.decode",
        "torch:os.system",
        "torch._utils:copyreg.__builtins__.get",
        "__main__:__builtins__.eval",
        "antigravity.geohash",
        "code.Net",
        "os.path.join",
        "xml.etree.ElementTree.XML",
        "code.models:os.system",
        "code:InteractiveConsole.push",
    ],
)
def test_names_that_only_a_malicious_file_has_are_refused(path: str) -> None:
    with pytest.raises(Refusal, match=f"names {path.replace(':', '.')}, which runs code"):
        check_name(path)


@pytest.mark.parametrize(
    ("path", "way_out"),
    [
        ("trace.Net", "If trace is a module of your own, save model.state_dict() instead."),
        ("os.system", ""),
        ("torch.hub.load", ""),
    ],
)
def test_a_module_that_shadows_the_standard_library_is_refused_with_a_way_out(
    path: str, way_out: str
) -> None:
    with pytest.raises(Refusal) as refused:
        check_name(path)
    assert refused.value.way_out == way_out


@pytest.mark.parametrize(
    "path",
    [
        "mypackage.models.Net",
        "__main__.Net",
        "__main__:Net.Config",
        "mypackage:Net.os",
        "collections.OrderedDict",
        "copyreg._reconstructor",
        "_codecs.encode",
        "builtins.getattr",
        "torch.serialization._get_layout",
        "torch.nn.modules.linear.Linear",
        "lightning.fabric.utilities.data.AttributeDict",
        "logging.getLogger",
        "cloudpickle.cloudpickle._make_function",
        "code.models.Net",
        "code.models:Net.Config",
        "select.nets.Net",
    ],
)
def test_names_of_training_runs_are_not_refused(path: str) -> None:
    check_name(path)


@pytest.mark.parametrize("module", [name for name in MODULE_CLASSES if name.startswith("torch.")])
def test_the_listed_classes_of_torch_are_modules_without_a_reduce(module: str) -> None:
    for name in MODULE_CLASSES[module].split():
        cls = getattr(importlib.import_module(module), name)
        assert issubclass(cls, nn.Module)
        assert cls.__module__ == module
        assert cls.__reduce__ is object.__reduce__
        assert cls.__reduce_ex__ is object.__reduce_ex__
        assert "__new__" not in vars(cls)
        if setstate := vars(cls).get("__setstate__"):
            assert not set(inspect.unwrap(setstate).__code__.co_names) & {"eval", "exec", "open"}


def test_every_listed_module_names_its_classes_once() -> None:
    for names in MODULE_CLASSES.values():
        assert len(set(names.split())) == len(names.split())


# Descriptions that ultralytics builds a model from in training.

ROWS = [
    [-1, 1, "Conv", [64, 3, 2]],
    (-1, 1, "nn.Upsample", ["None", 2, "nearest"]),
    [-1, 1, "torchvision.ops.DeformConv2d", []],
    [[15, 18, 21], 1, "Detect", ["nc"]],
]
HONEST = {"nc": 80, "scales": {"n": [0.33, 0.25, 1024]}, "backbone": ROWS, "head": ROWS}
UNUSUAL = "a model's yaml of an unusual form"


def run_in_training(description: object, holder: str | None = None) -> list[str]:
    attributes = {"yaml": description}
    model = AModel(**({holder: attributes} if holder else attributes))
    found: list[str] = contents({"model": {"w": torch.ones(1)}, "ema": model})["executes"]
    return found


@pytest.mark.parametrize(
    ("text", "is_usual"),
    [
        ("nn.SiLU()", True),
        ("torch.nn.LeakyReLU(0.1)", True),
        ("nn.LeakyReLU(negative_slope=0.1, inplace=True)", True),
        ("nn.Threshold( -1, 1e-3 )", True),
        ("nn.ReLU", True),
        ("__import__('os').system('x')", False),
        ("nn.SiLU(print(1))", False),
        ("nn.SiLU() or print()", False),
        ("nn.SiLU(scale)", False),
        ("nn.x.y()", False),
        ("nn.load()", False),
        ("eval(scale)", False),  # which is another text of the description
        ("torch_safe_load(scale)", False),
        ("exit()", False),
        ("[print(1)]", False),
        ("", False),
    ],
)
def test_text_that_ultralytics_evaluates_is_distinguished_from_an_activation(
    text: str, is_usual: bool
) -> None:
    expected = [] if is_usual else [f"eval({text!r})"]
    assert run_in_training({"activation": text}) == expected
    assert run_in_training({"act": text}) == []


@pytest.mark.parametrize(
    ("layer", "is_known"),
    [
        ("C3k2", True),
        ("nn.Conv2d", True),
        ("Silence", True),
        ("torch_safe_load", False),
        ("Path", False),
        ("nn.modules", False),
        ("nn.Conv2d.__class__", False),
        ("Conv2d", False),
        ("torchvision.ops.os", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("part", ["backbone", "head"])
def test_names_that_ultralytics_calls_are_distinguished_from_layers(
    part: str, layer: str, is_known: bool
) -> None:
    expected = [] if is_known else [f"the layer {layer!r} of a model's yaml"]
    assert run_in_training(HONEST | {part: [*ROWS, [-1, 1, layer, ["'x.pt'"]]]}) == expected


@pytest.mark.parametrize(
    ("description", "found"),
    [
        (HONEST, []),
        (OrderedDict(HONEST), []),
        ({}, []),
        ("https://example.org/model.yaml", [UNUSUAL]),
        (defaultdict(list, HONEST), [UNUSUAL]),
        (HONEST | {"activation": b"print()"}, [UNUSUAL]),
        (HONEST | {"activation": ["nn.SiLU()"]}, [UNUSUAL]),
        (HONEST | {"head": tuple(ROWS)}, [UNUSUAL]),
        (HONEST | {"head": [{1: 1, 2: 2, "Path": 3, 4: 4}]}, [UNUSUAL]),
        (HONEST | {"head": [[-1, 1, b"Path", []]]}, [UNUSUAL]),
        (HONEST | {"head": ["Path"]}, [UNUSUAL]),
    ],
)
@pytest.mark.parametrize("holder", [None, "_modules", "_buffers", "_parameters"])
def test_code_that_a_description_runs_is_found_at_any_place(
    description: object, found: list[str], holder: str | None
) -> None:
    assert run_in_training(description, holder) == found


def test_rows_with_two_holders_are_checked() -> None:
    rows: list[Any] = [[-1, 1, "Path", []]]
    state = {"w": torch.ones(1)}
    model = AModel(yaml={"backbone": ROWS, "head": rows})
    read = contents({"before": rows, "model": state, "ema": model, "last": model})
    assert read["executes"] == ["the layer 'Path' of a model's yaml"]


def test_descriptions_matter_in_modules_only() -> None:
    state = OrderedDict(w=torch.ones(1))
    side = {"activation": "print()", "yaml": "lr: 0.1"}
    assert contents({"model": state, **side})["executes"] == []
    model = nn.Sequential()
    model.__dict__["yaml"] = {"activation": "print()"}
    assert contents({"model": state, "ema": model})["executes"] == ["eval('print()')"]


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        (HONEST, HONEST | {"backbone": [*map(list, ROWS)], "head": [*map(list, ROWS)]}),
        (HONEST | {"activation": "exit()"}, None),
        (HONEST | {"backbone": [[-1, 1, "Path", []]]}, None),
        (HONEST | {"more": b"bytes"}, None),
        (HONEST | {"more": [0] * 20_000}, None),
    ],
)
def test_a_network_is_described_where_building_it_runs_layers_only(
    description: object, expected: object
) -> None:
    found = contents({"model": {"w": torch.ones(1)}, "ema": AModel(yaml=description)})
    assert found["network"] == expected


def test_without_an_ultralytics_model_no_network_is_described() -> None:
    assert contents({"model": {"w": torch.ones(1)}})["network"] is None
