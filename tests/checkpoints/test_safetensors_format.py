import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from soupcore import CheckpointError, TensorInfo, open_checkpoint
from soupcore.checkpoints.dtypes import DTYPES
from tests.helpers import any_tensor, raw_safetensors, same_bits


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_dtype_is_read_as_the_format_s_own_writer_wrote_it(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    state = {
        "w": any_tensor(dtype, 3, 5),
        "scalar": any_tensor(dtype),
        "none": any_tensor(dtype, 0),
    }
    save_file(state, tmp_path / "a.safetensors")
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    assert checkpoint.tensors == {
        "w": TensorInfo((3, 5), dtype),
        "scalar": TensorInfo((), dtype),
        "none": TensorInfo((0,), dtype),
    }
    assert all(same_bits(checkpoint.read(name), tensor) for name, tensor in state.items())
    assert checkpoint.nbytes == 16 * dtype.itemsize


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 1), (2, 7), (14, 15), (0, 15), (15, 15)])
def test_a_range_of_elements_is_a_slice_of_the_flattened_tensor(
    tmp_path: Path, start: int, stop: int
) -> None:
    tensor = any_tensor(torch.float16, 3, 5)
    save_file({"before": torch.ones(3), "w": tensor}, tmp_path / "a.safetensors")
    part = open_checkpoint(tmp_path / "a.safetensors").read_elements("w", start, stop)
    assert same_bits(part, tensor.flatten()[start:stop])


def test_tensors_are_in_the_order_of_their_bytes_and_metadata_is_kept(tmp_path: Path) -> None:
    path = raw_safetensors(
        tmp_path / "a.safetensors",
        {
            "second": entry(shape=[1], offsets=[4, 8]),
            "__metadata__": {"format": "pt", "note": "αθ"},
            "first": entry(shape=[1], offsets=[0, 4]),
        },
        struct.pack("<2f", 1, 2),
    )
    checkpoint = open_checkpoint(path)
    assert list(checkpoint.tensors) == ["first", "second"]
    assert [tensor.item() for tensor in checkpoint.state_dict().values()] == [1, 2]
    assert checkpoint.metadata == {"format": "pt", "note": "αθ"}


def test_opening_reads_the_header_only(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    elements = 1 << 36  # 256 GiB that take no space on the disk: a file with a hole
    raw_safetensors(path, {"w": entry(shape=[elements], offsets=[0, 4 * elements])})
    os.truncate(path, path.stat().st_size + 4 * elements)
    checkpoint = open_checkpoint(path)
    assert checkpoint.tensors["w"].numel == elements
    assert not checkpoint.is_scanned
    assert checkpoint.read_elements("w", elements - 2, elements).tolist() == [0, 0]


def test_an_unknown_tensor_is_refused_by_name(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"a\.safetensors has no tensor 'weight'"):
        open_checkpoint(tmp_path / "a.safetensors").read("weight")


@pytest.mark.parametrize(
    ("kept", "more", "problem"),
    [
        *((kept, b"", ".*[Cc]opy or download it again") for kept in (1, 7, 8, 9, 40, -9, -1)),
        (None, b"\0", r"has \d+ bytes, but its header"),
    ],
)
def test_a_truncated_or_extended_file_is_refused(
    tmp_path: Path, kept: int | None, more: bytes, problem: str
) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(4)}, path)
    path.write_bytes(path.read_bytes()[:kept] + more)
    with pytest.raises(CheckpointError, match=rf"a\.safetensors {problem}"):
        open_checkpoint(path)


def test_a_file_cut_short_while_open_is_refused_when_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.ones(4)}, path)
    checkpoint = open_checkpoint(path)
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(CheckpointError, match=r"a\.safetensors ended inside tensor 'w'"):
        checkpoint.read("w")


@pytest.mark.parametrize(
    ("header", "data", "problem"),
    [
        pytest.param(b"{", b"", "its header length is", id="header of one byte"),
        pytest.param(b"{}", b"", "holds no tensors", id="no tensors"),
        pytest.param({"__metadata__": {"a": "b"}}, b"", "holds no tensors", id="metadata only"),
        pytest.param(b"not json", b"", "damaged safetensors header", id="not JSON"),
        pytest.param(b'{"\xff": 1}', b"", "damaged safetensors header", id="not UTF-8"),
        pytest.param(b"[" * 100_000, b"", "damaged safetensors header", id="deeply nested"),
        pytest.param([1, 2], b"", "not an object", id="a list"),
        pytest.param({"__metadata__": 3}, b"", "__metadata__ is not an object", id="metadata"),
        pytest.param(
            {"__metadata__": {f"{number}": "" for number in range(100_001)}},
            b"",
            "__metadata__ has 100,001 entries; at most 100,000 are",
            id="too much metadata",
        ),
        pytest.param(
            b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
            b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
            "it has a duplicate key",
            id="a name twice",
        ),
        pytest.param(
            b'{"w":{"dtype":"F32","shape":[1],"shape":[1],"data_offsets":[0,4]}}',
            bytes(4),
            "it has a duplicate key",
            id="a key twice inside",
        ),
        pytest.param({"w": 3}, b"", "'w' lacks dtype", id="entry a number"),
        pytest.param({"w": {"shape": [], "data_offsets": [0, 4]}}, b"", "'w' lacks", id="no dtype"),
        pytest.param({"w": entry(offsets=[0])}, bytes(8), "'w' lacks", id="one offset"),
        pytest.param({"w": entry(shape=None)}, bytes(8), "'w' lacks", id="no shape"),
        pytest.param(
            {"w": entry(shape=[-2])}, bytes(8), "of tensor 'w' are not all", id="negative shape"
        ),
        pytest.param(
            {"w": entry(shape=[2.0])}, bytes(8), "of tensor 'w' are not all", id="shape of floats"
        ),
        pytest.param(
            {"w": entry(shape=[True, 2])},
            bytes(8),
            "of tensor 'w' are not all",
            id="shape with true",
        ),
        pytest.param(
            {"w": entry(shape="2")}, bytes(8), "of tensor 'w' are not all", id="shape of text"
        ),
        pytest.param(
            {"w": entry(offsets=[-8, 0])},
            bytes(8),
            "of tensor 'w' are not all",
            id="negative offset",
        ),
        pytest.param({"w": entry("F4")}, bytes(8), "'w' has dtype F4", id="unknown dtype"),
        pytest.param({"w": entry(["F32"])}, bytes(8), "'w' has dtype", id="dtype a list"),
        pytest.param({"w": entry({})}, bytes(8), "'w' has dtype", id="dtype an object"),
        pytest.param({"w": entry(None)}, bytes(8), "'w' has dtype None", id="dtype null"),
        pytest.param({"w": entry(shape=[3])}, bytes(8), "needs 12 bytes", id="wrong size"),
        pytest.param({"w": entry(offsets=[8, 0])}, bytes(8), "needs 8 bytes", id="end first"),
        pytest.param(
            {"w": entry(shape=[1 << 62, 1 << 62])}, bytes(8), "'w' of shape", id="enormous shape"
        ),
        pytest.param({"w": entry(offsets=[4, 12])}, bytes(12), "leaves a gap", id="gap first"),
        pytest.param(
            {"a": entry(), "b": entry(offsets=[12, 20])}, bytes(20), "'b' overlaps", id="gap"
        ),
        pytest.param(
            {"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12), "'b' overlaps", id="overlap"
        ),
        pytest.param({"a": entry(), "b": entry()}, bytes(8), "overlaps", id="the same bytes"),
    ],
)
def test_a_damaged_header_is_refused_with_the_file_and_the_reason(
    tmp_path: Path, header: Any, data: bytes, problem: str
) -> None:
    path = raw_safetensors(tmp_path / "bad.safetensors", header, data)
    with pytest.raises(CheckpointError, match=problem) as caught:
        open_checkpoint(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", [(1 << 64) - 1, 100_000_001, 1000])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b'{"w":{}}')
    with pytest.raises(CheckpointError, match=rf"header length is {length} bytes, the file has 16"):
        open_checkpoint(path)


@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_file_with_one_byte_changed_is_refused_or_read_as_the_format_s_own_loader_reads_it(
    tmp_path: Path, position: int, byte: int
) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(2), "b": torch.ones(1, 3, dtype=torch.int16)}, path)
    content = bytearray(path.read_bytes())
    content[position % len(content)] = byte
    path.write_bytes(content)
    try:
        read = open_checkpoint(path).state_dict()
    except CheckpointError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right
    else:
        expected = load_file(path)
        assert read.keys() == expected.keys()
        assert all(same_bits(read[name], expected[name]) for name in expected)


def test_a_header_that_resembles_a_reserved_name_is_plain_data(tmp_path: Path) -> None:
    name = json.dumps({"weird": "naïve\n"})
    save_file({name: torch.ones(2)}, tmp_path / "a.safetensors")
    assert open_checkpoint(tmp_path / "a.safetensors").read(name).tolist() == [1, 1]


def test_details_of_the_run_in_the_metadata_are_plain_values(tmp_path: Path) -> None:
    metadata = {
        "format": "pt",
        "epoch": "7",
        "lr": "1e-05",
        "betas": "[0.9, 0.99]",
        "optimizer": "adamw",
        "nested": '{"a": 1}',
        "nothing": "null",
        "id": "007",
        "long": "x" * 201,
        "lines": "a\nb",
        "digits": "9" * 30,
    }
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors", metadata)
    checkpoint = open_checkpoint(tmp_path / "a.safetensors")
    assert checkpoint.metadata == metadata
    assert checkpoint.details == {
        "epoch": 7,
        "lr": 1e-05,
        "betas": "0.9, 0.99",
        "optimizer": "adamw",
        "id": "007",
    }
