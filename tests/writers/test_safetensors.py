import json
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from soupcore import Cancelled, CheckpointError, TensorInfo, open_checkpoint
from soupcore.checkpoints.dtypes import DTYPES
from soupcore.writers import write_safetensors
from tests.helpers import any_tensor, same_weights
from tests.writers.safetensors_files import write


@pytest.fixture
def every_dtype() -> dict[str, Tensor]:
    state = {}
    for name, dtype in DTYPES.items():
        state[name] = any_tensor(dtype, 3, 6)
        state[f"{name} scalar"] = any_tensor(dtype, seed=1)
        state[f"{name} empty"] = any_tensor(dtype, 2, 0)
    return state


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_a_written_file_loads_with_the_format_s_own_loader_bit_for_bit(
    tmp_path: Path, every_dtype: dict[str, Tensor], pieces: int
) -> None:
    write(tmp_path / "a.safetensors", every_dtype, {"note": "αθ"}, pieces=pieces)
    assert same_weights(load_file(tmp_path / "a.safetensors"), every_dtype)
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert file.metadata() == {"note": "αθ"}


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(st.sampled_from(list(DTYPES.values())), st.lists(st.integers(0, 4), max_size=3)),
        min_size=1,
        max_size=5,
    )
)
def test_any_names_shapes_and_dtypes_are_written_and_read_back(
    tmp_path: Path, layout: dict[str, tuple[torch.dtype, list[int]]]
) -> None:
    state = {name: any_tensor(dtype, *shape) for name, (dtype, shape) in layout.items()}
    write(tmp_path / "a.safetensors", state)
    assert same_weights(load_file(tmp_path / "a.safetensors"), state)
    assert same_weights(open_checkpoint(tmp_path / "a.safetensors").state_dict(), state)


def test_tensors_keep_the_order_that_the_format_s_own_writer_gave_them(
    tmp_path: Path, every_dtype: dict[str, Tensor]
) -> None:
    save_file(every_dtype, tmp_path / "a.safetensors")
    source = open_checkpoint(tmp_path / "a.safetensors")
    write(tmp_path / "b.safetensors", source.state_dict())
    assert list(open_checkpoint(tmp_path / "b.safetensors").tensors) == list(source.tensors)


def test_tensors_of_one_dtype_keep_the_order_they_are_given_in(tmp_path: Path) -> None:
    state = {name: torch.ones(2) for name in ("z", "a", "m")}
    write(tmp_path / "a.safetensors", state)
    assert list(open_checkpoint(tmp_path / "a.safetensors").tensors) == ["z", "a", "m"]


def test_every_tensor_starts_at_a_multiple_of_its_element_size(
    tmp_path: Path, every_dtype: dict[str, Tensor]
) -> None:
    write(tmp_path / "a.safetensors", dict(reversed(every_dtype.items())))
    content = (tmp_path / "a.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    for name, entry in json.loads(content[8 : 8 + length]).items():
        start = 8 + length + entry["data_offsets"][0]
        assert start % every_dtype[name].itemsize == 0, name


@pytest.mark.parametrize(
    ("folder", "umask", "file"),
    [
        (0o755, 0o000, 0o644),
        (0o755, 0o002, 0o644),
        (0o755, 0o022, 0o644),
        (0o755, 0o027, 0o640),
        (0o755, 0o077, 0o600),
        (0o700, 0o022, 0o600),
    ],
    ids=oct,
)
def test_the_mode_follows_the_umask_and_the_folder(
    tmp_path: Path, folder: int, umask: int, file: int
) -> None:
    tmp_path.chmod(folder)
    before = os.umask(umask)
    try:
        write(tmp_path / "a.safetensors", {"w": torch.ones(2)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == file


def test_every_byte_of_the_tensors_is_reported(
    tmp_path: Path, every_dtype: dict[str, Tensor]
) -> None:
    reports: list[int] = []
    write(tmp_path / "a.safetensors", every_dtype, pieces=4, on_bytes=reports.append)
    assert sum(reports) == sum(tensor.nbytes for tensor in every_dtype.values())


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    existed: list[bool] = []
    write(path, {"w": torch.ones(4)}, pieces=4, on_bytes=lambda n: existed.append(path.exists()))
    assert existed == [False] * 4
    assert path.exists()


@pytest.mark.parametrize("error", [Cancelled, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["chunks", "on_bytes"])
@pytest.mark.parametrize("replacing", [False, True])
def test_an_interrupted_write_leaves_things_as_they_were(
    tmp_path: Path, error: type[BaseException], where: str, replacing: bool
) -> None:
    path = tmp_path / "a.safetensors"
    if replacing:
        path.write_bytes(b"the earlier file")

    def chunks(name: str) -> Iterator[Tensor]:
        yield torch.ones(2)
        if where == "chunks":
            raise error
        yield torch.ones(2)

    def on_bytes(nbytes: int) -> None:
        if where == "on_bytes":
            raise error

    with pytest.raises(error):
        write_safetensors(path, {"w": TensorInfo((4,), torch.float32)}, chunks, {}, on_bytes)
    assert [file.name for file in tmp_path.iterdir()] == (["a.safetensors"] if replacing else [])
    assert not replacing or path.read_bytes() == b"the earlier file"


@pytest.mark.parametrize("given", [0, 3, 5])
def test_chunks_that_are_not_the_tensor_s_elements_are_refused(tmp_path: Path, given: int) -> None:
    with pytest.raises(CheckpointError, match=f"'w' yielded {given} elements instead of 4"):
        write_safetensors(
            tmp_path / "a.safetensors",
            {"w": TensorInfo((2, 2), torch.float32)},
            lambda name: [torch.ones(given)],
            {},
        )
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", {"w": torch.zeros(100)})
    write(tmp_path / "a.safetensors", {"w": torch.ones(2)})
    assert load_file(tmp_path / "a.safetensors")["w"].tolist() == [1, 1]
    assert len(list(tmp_path.iterdir())) == 1
