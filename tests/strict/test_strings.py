import argparse
import pickle
from pathlib import PurePosixPath
from typing import Any

import pytest

from soupcore.strict.strings import local_paths_of
from soupcore.strict.tensors import CALLS
from tests.strict.torch_files import machine


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
def test_paths_of_the_machine_are_told_from_other_text(text: str, is_path: bool) -> None:
    assert local_paths_of({"key": text}) == ([("key", text)] if is_path else [])


def test_each_is_given_with_its_place() -> None:
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


def test_no_more_than_fifty_are_given() -> None:
    assert len(local_paths_of([f"/home/anna/{number}" for number in range(99)])) == 50
