import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcore import open_checkpoint
from soupcore.remote.headers import FIRST, write_placeholder


def save_many(path: Path, count: int, size: int) -> None:
    state = {f"layer{i}.weight": torch.randn(size, size) for i in range(count)}
    (torch.save if path.suffix == ".pt" else save_file)(state, path)


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
    path = tmp_path / "old.pt"
    state = {"weight": torch.randn(300, 300)}
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert not write_placeholder(tmp_path / "placeholder.pt", path.stat().st_size, Reader(path))


@pytest.mark.parametrize("beginning", [b"PK\3\4", (1 << 40).to_bytes(8, "little") + b"{", b"\0"])
def test_nonsense_is_not_openable_by_its_header(tmp_path: Path, beginning: bytes) -> None:
    path = tmp_path / "nonsense.pt"
    path.write_bytes(beginning + os.urandom(2 * FIRST))
    size = (1 << 40) + 100 if b"{" in beginning else path.stat().st_size
    assert not write_placeholder(tmp_path / "placeholder.pt", size, Reader(path))
