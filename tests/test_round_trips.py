"""The average of identical weights is these weights, bit for bit, in every format and dtype."""

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from soupcore import Sweep, open_checkpoint, uniform
from tests.helpers import State, any_tensor, same_weights, save_checked

pytestmark = pytest.mark.usefixtures("read_in_this_process")

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
]


def some_weights(dtype: torch.dtype) -> State:
    """Random values, the edges of the dtype, zeros of both signs, and tensors of no floats."""
    tiny = torch.finfo(dtype).smallest_normal
    edges = torch.tensor([0.0, -0.0, tiny, -tiny, tiny / 4, 1.0], dtype=torch.float64).to(dtype)
    return {
        "layer.weight": any_tensor(dtype, 7, 30),
        "layer.edges": edges,
        "layer.empty": torch.empty(0, 3, dtype=dtype),
        "steps": torch.tensor(1 << 40),
        "mask": torch.tensor([True, False]),
    }


def save_safetensors(state: State, path: Path) -> Path:
    save_file(state, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def save_zip(state: State, path: Path) -> Path:
    torch.save(state, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def save_container(state: State, path: Path) -> Path:
    torch.save({"epoch": 3, "state_dict": state}, path.with_suffix(".ckpt"))
    return path.with_suffix(".ckpt")


def save_module(state: State, path: Path) -> Path:
    model, layer = nn.Module(), nn.Module()
    for name, tensor in state.items():
        part = layer if name.startswith("layer.") else model
        part.register_buffer(name.removeprefix("layer."), tensor)
    model.add_module("layer", layer)
    torch.save(model, path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def save_legacy(state: State, path: Path) -> Path:
    torch.save(state, path.with_suffix(".pth"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".pth")


def save_shards(state: State, path: Path) -> Path:
    return _save_shards(state, path, "model.safetensors.index.json", "safetensors", save_file)


def save_bin_shards(state: State, path: Path) -> Path:
    return _save_shards(state, path, "pytorch_model.bin.index.json", "bin", torch.save)


def _save_shards(
    state: State, path: Path, index: str, suffix: str, save: Callable[[State, Path], None]
) -> Path:
    path.mkdir()
    names = {name: f"shard-{number}.{suffix}" for number, name in enumerate(state)}
    for name, shard in names.items():
        save({name: state[name]}, path / shard)
    (path / index).write_text(json.dumps({"weight_map": names}))
    return path


FORMATS = [
    *(save_safetensors, save_shards, save_zip, save_container, save_module, save_bin_shards),
    save_legacy,
]
CASES = [
    (save, dtype, 3)
    for save in FORMATS
    for dtype in DTYPES
    if dtype.itemsize > 1 or save is not save_legacy  # it has no storages of 8-bit floats
] + [(save_safetensors, dtype, k) for dtype in DTYPES for k in (2, 7)]
ONE_TORCH_FILE = (save_zip, save_container, save_module, save_legacy)


@pytest.mark.parametrize(
    ("save", "dtype", "k"), CASES, ids=lambda value: getattr(value, "__name__", str(value))
)
def test_the_mean_of_equal_weights_is_these_weights(
    tmp_path: Path, save: Callable[[State, Path], Path], dtype: torch.dtype, k: int
) -> None:
    state = some_weights(dtype)
    folder = tmp_path / "sweep"
    folder.mkdir()
    for number in range(k):
        # Files of one digest count as one point; one tensor that differs has them averaged.
        save(state | {"differs": torch.tensor([float(number)])}, folder / f"run{number}")
    soup = uniform(Sweep.from_folder(folder))
    save_checked(soup, tmp_path / "soup.safetensors")
    expected = state | {"differs": torch.tensor([(k - 1) / 2])}
    assert same_weights(load_file(tmp_path / "soup.safetensors"), expected)
    (*_, index) = save_checked(soup, tmp_path / "shards.safetensors", shard_size=200)
    assert same_weights(open_checkpoint(index).state_dict(), expected)
    if save in ONE_TORCH_FILE:
        save_checked(soup, tmp_path / "soup.pt")
        assert same_weights(open_checkpoint(tmp_path / "soup.pt").state_dict(), expected)
    else:
        assert soup.output.why_no_pt is not None


@pytest.mark.parametrize(
    ("save", "dtype"),
    [(save, dtype) for save, dtype, k in CASES if save in ONE_TORCH_FILE],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_the_soup_of_copies_of_a_torch_file_has_its_weights_and_its_form(
    tmp_path: Path, save: Callable[[State, Path], Path], dtype: torch.dtype
) -> None:
    folder = tmp_path / "sweep"
    folder.mkdir()
    first = save(some_weights(dtype), folder / "run1")
    copy(first, folder / f"run2{first.suffix}")
    save_checked(uniform(Sweep.from_folder(folder)), tmp_path / "soup.pt")
    written, original = open_checkpoint(tmp_path / "soup.pt"), open_checkpoint(first)
    assert written.digest == original.digest
    assert list(written.tensors) == list(original.tensors)
