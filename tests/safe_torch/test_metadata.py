import argparse
import enum
import math
import pickle
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from soupcore.safe_torch import metadata
from soupcore.safe_torch.metadata import local_paths_of
from soupcore.safe_torch.tensors import CALLS
from tests.safe_torch.foreign import AttributeDict, omegaconf_tree
from tests.safe_torch.torch_files import contents, machine

STATE = {"w": torch.ones(2)}


class Optimizer(enum.Enum):
    ADAM = "adam"


@dataclass
class Settings:
    lr: float
    depth: int


def details(**entries: object) -> dict[str, Any]:
    found: dict[str, Any] = contents({"state_dict": STATE, **entries})["details"]
    return found


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (3, 3),
        (2.5, 2.5),
        (True, True),
        ("cosine", "cosine"),
        ((0.9, 0.999), "0.9, 0.999"),
        (["a", 1, None], "a, 1, None"),
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.int64(-7), -7),
        (np.uint8(7), 7),
        (np.bool_(True), True),
        (PurePosixPath("runs/a"), "runs/a"),
        (PurePosixPath("/runs/a"), "/runs/a"),
        (torch.device("cuda", 1), "cuda:1"),
        (torch.float16, "torch.float16"),
        (torch.nn.ReLU, "torch.nn.modules.activation.ReLU"),
        (Optimizer.ADAM, "adam"),
        (torch.torch_version.TorchVersion("2.13.0+cu130"), "2.13.0+cu130"),
    ],
    ids=str,
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_values_of_all_kinds_are_converted_to_plain_ones(
    value: object, plain: object, protocol: int
) -> None:
    read = machine(pickle.dumps(value, protocol), CALLS).load()
    assert metadata.plain_value(read) == plain


@pytest.mark.parametrize(
    "value",
    [
        "x" * 201,
        "two\nlines",
        1 << 60,
        [],
        list(range(9)),
        [[1]],
        torch.ones(2),
        torch.ones(0),
        torch.tensor(1j),
        torch.tensor(1 << 60),
        torch.ones(1).to_sparse(),
        np.ones(2),
        np.complex128(1j),
        np.datetime64("2024-01-01"),
        b"bytes",
        Settings(1, 2),
        {"a": 1},
    ],
    ids=repr,
)
def test_long_and_other_values_are_left_out(value: object) -> None:
    assert "value" not in details(value=value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (torch.tensor(71.25), 71.25),
        (torch.tensor([[71.25]]), 71.25),
        (torch.tensor(-1.5, dtype=torch.float64), -1.5),
        (torch.tensor(-1.5, dtype=torch.float16), -1.5),
        (torch.tensor(-1.5, dtype=torch.bfloat16), -1.5),
        (torch.tensor(-7), -7),
        (torch.tensor(7, dtype=torch.uint8), 7),
        (torch.tensor(True), True),
        (torch.arange(5)[3], 3),
    ],
    ids=str,
)
def test_a_tensor_of_one_number_is_that_number(value: object, plain: object, zipped: bool) -> None:
    read = contents({"state_dict": STATE, "best_acc1": value}, zipped=zipped)
    assert read["details"] == {"best_acc1": plain}
    assert set(read["storages"]) == {view[0] for view in read["sets"][0]["tensors"].values()}


def test_tensors_of_the_weights_are_no_details() -> None:
    scale = torch.tensor(2.0)
    assert contents({"w": torch.ones(2), "scale": scale})["details"] == {}
    assert details(scale=scale) == {"scale": 2.0}
    shared = {"state_dict": {"scale": scale}, "args": {"scale": scale}}
    assert contents(shared)["details"] == {}


def test_no_more_tensors_than_details_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "MOST_SCALARS", 2)
    assert details(a=torch.tensor(1), b=torch.tensor(2), c=torch.tensor(3)) == {"a": 1, "b": 2}


def test_the_best_score_that_lightning_kept_is_shown() -> None:
    callbacks = {
        "EarlyStopping": {"best_score": torch.tensor(0.5), "patience": 3},
        "ModelCheckpoint{'monitor': 'val_acc'}": {
            "monitor": "val_acc",
            "best_model_score": torch.tensor(0.75),
            "best_model_path": "runs/best.ckpt",
        },
        "ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(1.5)},
    }
    assert details(epoch=3, callbacks=callbacks) == {
        "epoch": 3,
        "monitor": "val_acc",
        "best_model_score": 0.75,
        "callbacks.best_model_score": 1.5,
    }


def test_nan_stays_nan() -> None:
    assert math.isnan(details(loss=math.nan)["loss"])


def test_values_beside_the_weights_are_shown() -> None:
    assert details(epoch=3, best_acc1=np.float64(81.5), arch="vit", model=None) == {
        "epoch": 3,
        "best_acc1": 81.5,
        "arch": "vit",
    }


@pytest.mark.parametrize(
    "holder",
    [
        {"lr": 0.1, "depth": 2},
        argparse.Namespace(lr=0.1, depth=2, _hidden=1),
        SimpleNamespace(lr=0.1, depth=2),
        Settings(0.1, 2),
        omegaconf_tree({"lr": 0.1, "depth": 2}),
        AttributeDict(lr=0.1, depth=2),
    ],
    ids=lambda holder: type(holder).__name__,
)
@pytest.mark.parametrize("group", ["hyper_parameters", "args", "train_args", "cfg"])
def test_hyperparameters_are_shown_without_the_name_of_their_group(
    group: str, holder: object
) -> None:
    assert details(**{group: holder}) == {"lr": 0.1, "depth": 2}


def test_nested_details_have_their_path_as_name() -> None:
    nested = {"optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}, "sizes": [1] * 20, 3: 4}
    assert details(config=nested) == {"optimizer.lr": 0.1, "optimizer.betas": "0.9, 0.99"}
    tree = omegaconf_tree({"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "none": None})
    assert details(config=tree) == {
        "optimizer.lr": 0.1,
        "optimizer.betas": "0.9, 0.99",
        "none": None,
    }


def test_the_same_name_in_two_groups_keeps_that_of_the_second_group() -> None:
    assert details(epoch=3, args={"epoch": 90}, cfg={"epoch": 10}) == {
        "epoch": 3,
        "args.epoch": 90,
        "cfg.epoch": 10,
    }


def test_details_are_bounded() -> None:
    many = {f"key{number}": number for number in range(1000)}
    assert len(details(args=many)) == 200
    shared: dict[str, Any] = many
    for _ in range(3):
        shared = {f"key{number}": shared for number in range(1000)}
    assert len(details(args=shared)) <= 200


def test_a_soup_has_a_recipe_and_no_details() -> None:
    saved = {"model": {"w": torch.ones(1)}, "lr": 0.1, "stockpot": '{"recipe": "uniform"}'}
    found = contents(saved)
    assert (found["metadata"], found["details"]) == ({"stockpot": saved["stockpot"]}, {})
    other = contents(saved | {"stockpot": 3})
    assert (other["metadata"], other["details"]) == ({}, {"lr": 0.1, "stockpot": 3})


@pytest.mark.parametrize(
    ("text", "is_path"),
    [
        ("/home/anna/data.yaml", True),
        ("/mnt/x", True),
        ("~/runs", True),
        ("C:\\Users\\anna\\data", True),
        ("D:/data", True),
        ("\\\\server\\share", True),
        ("file:///tmp/x", True),
        ("runs/train", False),
        ("/", False),
        ("/data", False),
        ("//comment", False),
        ("https://example.org/a/b", False),
        ("metrics/mAP50(B)", False),
        ("a / b", False),
        ("/a\n/b", False),
        ("/a" * 400, False),
    ],
)
def test_local_paths_are_distinguished_from_other_text(text: str, is_path: bool) -> None:
    assert local_paths_of({"key": text}) == ([("key", text)] if is_path else [])


def test_each_path_is_given_with_its_place() -> None:
    tree: dict[str, Any] = {
        "train_args": {"data": "/home/anna/d.yaml", "epochs": 3},
        "git": argparse.Namespace(root="/home/anna/repo"),
        "callbacks": [{"best": ("/home/anna/best.ckpt",)}],
        "folder": PurePosixPath("/home/anna"),
        "/home/anna/as/a/key": 1,
    }
    tree["again"] = tree["train_args"]
    tree["itself"] = tree
    read = machine(pickle.dumps(tree, 4), CALLS).load()
    assert local_paths_of(read) == [
        ("folder", "/home/anna"),
        ("train_args.data", "/home/anna/d.yaml"),
        ("git.root", "/home/anna/repo"),
        ("callbacks.0.best.0", "/home/anna/best.ckpt"),
    ]


def test_no_more_than_fifty_paths_are_given() -> None:
    assert len(local_paths_of([f"/home/anna/{number}" for number in range(99)])) == 50
