from collections import OrderedDict, defaultdict
from typing import Any

import pytest
import torch
from torch import nn

from tests.strict.foreign import Foreign
from tests.strict.torch_files import contents

ROWS = [
    [-1, 1, "Conv", [64, 3, 2]],
    (-1, 1, "nn.Upsample", ["None", 2, "nearest"]),
    [-1, 1, "torchvision.ops.DeformConv2d", []],
    [[15, 18, 21], 1, "Detect", ["nc"]],
]
HONEST = {"nc": 80, "scales": {"n": [0.33, 0.25, 1024]}, "backbone": ROWS, "head": ROWS}
UNUSUAL = "a model's yaml of an unusual form"


class Model(Foreign):
    pickled_as = "ultralytics.nn.tasks.DetectionModel"


def executes(description: object, holder: str | None = None) -> list[str]:
    attributes = {"yaml": description}
    model = Model(**({holder: attributes} if holder else attributes))
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
def test_what_ultralytics_evaluates_is_told_from_an_activation(text: str, is_usual: bool) -> None:
    expected = [] if is_usual else [f"eval({text!r})"]
    assert executes({"activation": text}) == expected
    assert executes({"act": text}) == []


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
def test_what_ultralytics_calls_is_told_from_a_layer(part: str, layer: str, is_known: bool) -> None:
    expected = [] if is_known else [f"the layer {layer!r} of a model's yaml"]
    assert executes(HONEST | {part: [*ROWS, [-1, 1, layer, ["'x.pt'"]]]}) == expected


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
def test_a_description_is_plain_wherever_it_stands(
    description: object, found: list[str], holder: str | None
) -> None:
    assert executes(description, holder) == found


def test_rows_that_also_stand_elsewhere_are_looked_at() -> None:
    rows: list[Any] = [[-1, 1, "Path", []]]
    state = {"w": torch.ones(1)}
    model = Model(yaml={"backbone": ROWS, "head": rows})
    read = contents({"before": rows, "model": state, "ema": model, "last": model})
    assert read["executes"] == ["the layer 'Path' of a model's yaml"]


def test_it_matters_in_modules_only() -> None:
    state = OrderedDict(w=torch.ones(1))
    side = {"activation": "print()", "yaml": "lr: 0.1"}
    assert contents({"model": state, **side})["executes"] == []
    model = nn.Sequential()
    model.__dict__["yaml"] = {"activation": "print()"}
    assert contents({"model": state, "ema": model})["executes"] == ["eval('print()')"]
