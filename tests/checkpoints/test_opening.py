from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from soupcore import CheckpointError, open_checkpoint
from soupcore.checkpoints.recognition import is_checkpoint_name, stem_of, suffix_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.safetensors", True),
        ("a.pt", True),
        ("a.pth", True),
        ("a.bin", True),
        ("a.ckpt", True),
        ("a.b.pt", True),
        ("checkpoint-3.pth.tar", True),
        ("a.pt.tar", True),
        ("A.PT", True),
        ("A.Safetensors", True),
        ("model.safetensors.index.json", True),
        ("pytorch_model.bin.index.json", True),
        ("model.index.json", False),
        ("sweep.jsonl", False),
        ("a.safetensors.part", False),
        ("safetensors", False),
        ("a.npz", False),
        ("a.tar", False),
        (".pt", False),
    ],
)
def test_a_checkpoint_is_known_by_its_name(name: str, expected: bool) -> None:
    assert is_checkpoint_name(Path(name)) is expected


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("a.b.pt", "a.b", ".pt"),
        ("checkpoint-3.pth.tar", "checkpoint-3", ".pth.tar"),
        ("A.PT", "A", ".pt"),
        ("model.safetensors.index.json", "model", ".safetensors.index.json"),
        ("a.txt", "a.txt", ""),
    ],
)
def test_a_checkpoint_is_named_after_its_file_without_the_suffix(
    name: str, stem: str, suffix: str
) -> None:
    assert (stem_of(Path(name)), suffix_of(Path(name))) == (stem, suffix)


@pytest.mark.parametrize("kind", [str, Path])
def test_paths_may_be_strings(tmp_path: Path, kind: type[str | Path]) -> None:
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
        ("a.safetensors", b"<html>not found</html>", "is a web page, not the weights"),
        ("a.pt", b"\n <!DOCTYPE html>", "is a web page, not the weights"),
        ("a.pt", b"<?xml version='1.0'?><Error>", "is a web page, not the weights"),
        ("a.pt", b'{"error": "Repository not found"}', "is JSON, not the weights"),
        ("a.pt", b"\x1f\x8b\x08", "is compressed with gzip, not a checkpoint. Unpack it"),
        ("a.pt", b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
        ("a.pt", b"Rar!\x1a\x07", "is a RAR archive"),
        ("a.bin", b"\x89HDF\r\n", "is an HDF5 file, not a torch"),
        ("a.bin", b"GGUF\3\0\0\0", "is a GGUF file, which cannot be averaged"),
        ("a.pth", bytes(257) + b"ustar\x0000", "is a tar archive.* torch before 0.1.10"),
        ("a.pt", bytes(1000), "begins with 512 zeros"),
        ("a.pt", b"PK\x03\x04 and no zip", "cannot be opened"),
        ("a.pt", b"\1just bytes", "not a torch.save file: its first bytes"),
        ("a.safetensors", b"\1just bytes", "is not a complete safetensors file"),
        ("a.safetensors", b"{\1\0\0\0\0\0\0{" + b" " * 300, "is not a complete safetensors file"),
        ("a.safetensors", b"<\1\0\0\0\0\0\0{" + b" " * 300, "is not a complete safetensors file"),
    ],
)
def test_other_files_are_refused_with_the_file_and_the_way_out(
    tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=problem) as caught:
        open_checkpoint(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_safetensors_files_are_recognised_under_any_name(tmp_path: Path) -> None:
    for count in range(1, 60):  # so that the header begins with all kinds of bytes
        path = tmp_path / f"{count}.pt"
        save_file({"w" * count: torch.ones(2)}, path)
        assert type(open_checkpoint(path)).__name__ == "SafetensorsCheckpoint"


def test_torch_files_are_recognised_under_any_name(tmp_path: Path) -> None:
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.safetensors"
        torch.save({"w": torch.ones(2)}, path, _use_new_zipfile_serialization=zipped)
        assert open_checkpoint(path).read("w").tolist() == [1, 1]


@pytest.mark.parametrize("name", ["checkpoint-3.pth.tar", "best.pt.tar", "A.PT", "A.SAFETENSORS"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_torch_file_is_opened_under_the_names_that_tools_give_it(
    tmp_path: Path, name: str, zipped: bool
) -> None:
    state = {"state_dict": {"w": torch.ones(2)}, "epoch": 3}
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=zipped)
    assert open_checkpoint(tmp_path / name).read("w").tolist() == [1, 1]


def test_a_bad_torch_file_named_safetensors_is_reported_as_a_torch_file(tmp_path: Path) -> None:
    torch.save([1], tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"type list.*Despite its name, it is not a safetens"):
        open_checkpoint(tmp_path / "a.safetensors")


def test_weights_that_a_file_does_not_have_are_refused(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a.safetensors")
    open_checkpoint(tmp_path / "a.safetensors", weights="")
    with pytest.raises(CheckpointError, match=r"a\.safetensors has only one set of weights"):
        open_checkpoint(tmp_path / "a.safetensors", weights="ema")
