"""Files that are not weights, as failed downloads and clones leave them, with specific errors."""

import gzip
import io
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.helpers import adam_state
from tests.hostile import assembler as asm
from tests.hostile.hostile_file import HostileFile

LFS_POINTER = (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:"
    + b"4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body></body></html>\n"
ANSWER = b'{"error": "Repository not found"}'


def placeholder(name: str, tries: str, reason: str, content: bytes) -> HostileFile:
    def write(path: Path) -> None:
        path.write_bytes(content)

    return HostileFile(name, tries, reason, write)


def made(name: str, tries: str, reason: str, write: Callable[[Path], object]) -> HostileFile:
    return HostileFile(name, tries, reason, lambda path: (write(path), None)[1])


def torchscript(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # users still have TorchScript files
        # torch.jit.trace would import SymPy.
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def optimizer_alone(path: Path) -> None:
    torch.save(adam_state(), path)


def optimizer_in_container(path: Path) -> None:
    sgd = {"state": {}, "param_groups": [{"lr": 0.1, "momentum": 0, "params": [0]}]}
    torch.save({"epoch": 3, "optimizer": sgd}, path)


def numpy_archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, w=np.ones(4))
    return file.getvalue()


def index_of_placeholders(path: Path) -> None:
    path.parent.mkdir()
    path.with_name("model-00001-of-00001.safetensors").write_bytes(LFS_POINTER)
    path.write_text(json.dumps({"weight_map": {"w": "model-00001-of-00001.safetensors"}}))


FILES = [
    *(
        placeholder(f"{name}-{suffix}.{suffix}", tries, reason, content)
        for suffix in ("pt", "safetensors")
        for name, tries, reason, content in [
            ("empty", "is empty", r"is empty. Copy or download it again", b""),
            ("lfs-pointer", "is a pointer of Git LFS", r"Run `git lfs pull`", LFS_POINTER),
            ("html-page", "is a page of a web server", r"web page.*[Dd]ownload", PAGE),
        ]
    ),
    placeholder("json-answer.pt", "is an answer of a web server", r"is JSON.*download", ANSWER),
    placeholder("gzip.pt", "is compressed with gzip", r"not a|gunzip|unpack", gzip.compress(PAGE)),
    placeholder("numpy.pt", "is an archive of NumPy", r"data\.pkl|NumPy|folder", numpy_archive()),
    placeholder("hdf5.pt", "is a file of Keras", r"HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100)),
    placeholder("zeros.pt", "is nothing but zeros", r"not a|zeros", bytes(4096)),
    made("torchscript.pt", "is a TorchScript archive", r"TorchScript.*state_dict", torchscript),
    made("adam.pt", "is the state of an optimizer", r"optimizer", optimizer_alone),
    made(
        "adam-of-a-run.ckpt",
        "holds an optimizer and no model",
        r"optimizer",
        optimizer_in_container,
    ),
    made("pipe.pt", "is a pipe that never ends", r"does not exist|not a file", os.mkfifo),
    made("folder.pt", "is an empty folder", r"holds|folder", Path.mkdir),
    made(
        "link-to-itself.pt",
        "is a link to itself",
        r"does not exist|link",
        lambda path: path.symlink_to(path.name),
    ),
    made(
        "link-to-device.pt",
        "is a link to a device that never ends",
        r"does not exist|not a file",
        lambda path: path.symlink_to("/dev/zero"),
    ),
    made(
        "lfs-shards/model.safetensors.index.json",
        "is an index of pointers of Git LFS",
        r"Run `git lfs pull`",
        index_of_placeholders,
    ),
    made(
        "no-tensors.pt",
        "holds settings and no tensors",
        r"no tensors|no weights",
        lambda path: asm.write_zip(path, asm.plain({"lr": 0.1, "epochs": 3}), {}),
    ),
]
