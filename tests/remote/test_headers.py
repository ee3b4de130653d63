import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from soupcore import open_checkpoint
from soupcore.remote.headers import FIRST, write_placeholder


def save_many(path: Path, count: int, size: int) -> None:
    state = {f"layer{i}.weight": torch.randn(size, size) for i in range(count)}
    (torch.save if path.suffix == ".pt" else save_file)(state, path)


def save_old(path: Path, count: int, size: int) -> None:
    state = {f"layer{i}.weight": torch.randn(size, size) for i in range(count)}
    torch.save(state, path, _use_new_zipfile_serialization=False)


class Reader:
    """Reads ranges of a file and counts them."""

    def __init__(self, path: Path) -> None:
        self.content = path.read_bytes()
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, stop: int) -> bytes:
        self.asked.append((start, stop))
        return self.content[start:stop]


def long_names(path: Path) -> None:
    save_file({f"layer{'x' * 200}{i}": torch.randn(4) for i in range(1000)}, path)


def many_records(path: Path) -> None:
    torch.save({f"layer{i}.weight": torch.randn(20) for i in range(1200)}, path)


@pytest.mark.parametrize(
    ("name", "save", "requests"),
    [
        ("few.safetensors", lambda path: save_many(path, 3, 200), 1),
        ("long.safetensors", long_names, 2),
        ("few.pt", lambda path: save_many(path, 3, 200), 2),
        ("many.pt", many_records, 3),
        ("old.pt", lambda path: save_old(path, 3, 200), 1),
        ("many-old.pt", lambda path: save_old(path, 2500, 20), 2),
    ],
)
def test_a_placeholder_opens_like_the_checkpoint(
    tmp_path: Path, name: str, save: Callable[[Path], None], requests: int
) -> None:
    path, placeholder = tmp_path / name, tmp_path / f"placeholder-{name}"
    save(path)
    read = Reader(path)
    assert write_placeholder(placeholder, len(read.content), read)
    assert len(read.asked) == requests
    assert open_checkpoint(placeholder).tensors == open_checkpoint(path).tensors
    assert sum(stop - start for start, stop in read.asked) < len(read.content)


def test_other_files_are_not_openable_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "pickled.pt"
    with path.open("wb") as file:
        pickle.dump({"weight": np.zeros((300, 300))}, file)
    assert not write_placeholder(tmp_path / "placeholder.pt", path.stat().st_size, Reader(path))


def test_an_old_file_with_a_cut_off_pickle_is_not_openable(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"w": torch.randn(300, 300)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content[:200] + bytes(len(content) - 200))
    assert not write_placeholder(tmp_path / "placeholder.pt", path.stat().st_size, Reader(path))


@pytest.mark.parametrize("beginning", [b"PK\3\4", (1 << 40).to_bytes(8, "little") + b"{", b"\0"])
def test_nonsense_is_not_openable_by_its_header(tmp_path: Path, beginning: bytes) -> None:
    path = tmp_path / "nonsense.pt"
    path.write_bytes(beginning + os.urandom(2 * FIRST))
    size = (1 << 40) + 100 if b"{" in beginning else path.stat().st_size
    assert not write_placeholder(tmp_path / "placeholder.pt", size, Reader(path))
