from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcore import CheckpointError, open_checkpoint
from soupcore.checkpoints.opening import is_checkpoint_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.safetensors", True),
        ("a.pt", True),
        ("a.pth", True),
        ("a.bin", True),
        ("a.ckpt", True),
        ("a.b.pt", True),
        ("model.safetensors.index.json", True),
        ("model.index.json", False),
        ("sweep.jsonl", False),
        ("a.safetensors.part", False),
        ("safetensors", False),
        ("a.npz", False),
    ],
)
def test_a_checkpoint_is_known_by_its_name(name: str, expected: bool) -> None:
    assert is_checkpoint_name(Path(name)) is expected


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_may_be_text(tmp_path: Path, kind: type[str | Path]) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    assert open_checkpoint(kind(tmp_path / "a.safetensors")).path == tmp_path / "a.safetensors"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.safetensors", None, "does not exist"),
        ("a.txt", b"x", "is not a checkpoint by its name"),
        ("a", b"x", "is not a checkpoint by its name"),
        ("a.safetensors", b"", "is empty. Copy or download it again"),
        ("a.pt", b"", "is empty. Copy or download it again"),
        (
            "a.safetensors",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "Git LFS pointer, not the weights. Run `git lfs pull`",
        ),
        (
            "a.bin",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
            "Git LFS pointer, not the weights. Run `git lfs pull`",
        ),
        ("a.safetensors", b"<html>not found</html>", "is a web page"),
        ("a.pt", b"<html>not found</html>", "is a web page"),
        ("a.pt", b"PK\x03\x04 and no zip", "cannot be opened"),
    ],
)
def test_what_is_no_checkpoint_is_refused_with_the_file_and_the_way_out(
    tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=problem) as caught:
        open_checkpoint(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
