"""What is fuzzed: each target takes bytes, and returns, or raises what a user would not see.

All of it runs in this process, without the child that the app reads torch files in: what its limits
would stop has to be stopped before.
"""

import io
import json
from math import prod
from pathlib import Path

import torch
from safetensors import deserialize

from soupcore.checkpoints.safetensors_format import SafetensorsCheckpoint
from soupcore.errors import CheckpointError
from soupcore.safe_torch.contents import read_contents
from soupcore.safe_torch.refusal import Refusal
from soupcore.safe_torch.rewriting import rewrite
from tests.hostile import archives


def read_torch_file(data: bytes) -> None:
    """Either gives plain, finite contents or a sentence."""
    try:
        contents = read_contents(io.BytesIO(data))
    except Refusal as refusal:
        check_sentence(str(refusal))
        return
    json.dumps(contents)
    for found in contents["sets"]:
        for storage, dtype, offset, shape, stride, *_ in found.get("tensors", {}).values():
            start, nbytes, _ = contents["storages"][storage]
            item = getattr(torch, dtype).itemsize
            last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
            assert 0 <= start <= start + nbytes <= len(data)
            assert not prod(shape) or 0 <= last * item < nbytes
        if "tensors" in found:
            write_again(data, found["name"])


def write_again(data: bytes, weights: str) -> None:
    """What can be read can be written again, or a sentence says why not."""
    try:
        written = rewrite(io.BytesIO(data), weights)
    except Refusal as refusal:
        check_sentence(str(refusal))
        return
    json.dumps(written)
    assert all(0 <= start <= start + n <= len(data) for start, n in written["storages"].values())


def read_pickle(data: bytes) -> None:
    """The pickle of an archive that is sound otherwise."""
    pieces = archives.entries()
    read_torch_file(archives.with_changed(pieces, "data.pkl", data=data))


def read_safetensors(data: bytes, path: Path) -> None:
    """Whatever we open, the format's own loader opens too, and finds the same in it."""
    path.write_bytes(data)
    try:
        checkpoint = SafetensorsCheckpoint(path)
    except CheckpointError as error:
        check_sentence(str(error))
        return
    expected = dict(deserialize(data))  # type: ignore[no-untyped-call]
    assert checkpoint.tensors.keys() == expected.keys()
    for name, info in checkpoint.tensors.items():
        assert list(info.shape) == expected[name]["shape"]
        if info.nbytes < 1 << 20:
            read = checkpoint.read(name)
            assert bytes(read.flatten().view(torch.uint8).numpy()) == expected[name]["data"]


def check_sentence(text: str) -> None:
    assert text.isprintable(), text
    assert len(text) < 600, text
