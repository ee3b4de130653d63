import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from soupcore import CheckpointError, open_checkpoint
from soupcore.checkpoints import sharded
from soupcore.checkpoints.bounded_json import MOST_VALUES
from tests.helpers import any_tensor, same_weights

INDEX = "model.safetensors.index.json"
ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return {
        "embed": any_tensor(torch.float32, 4, 3),
        "head": any_tensor(torch.bfloat16, 5, seed=1),
        "steps": torch.tensor(9),
    }


@pytest.fixture
def shards(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A folder as `save_pretrained` leaves it."""
    folder = tmp_path / "shards"
    folder.mkdir()
    save_file({"embed": state["embed"]}, folder / ONE, {"format": "pt"})
    save_file({"head": state["head"], "steps": state["steps"]}, folder / TWO, {"format": "pt"})
    write_index(folder, {"embed": ONE, "head": TWO, "steps": TWO})
    return folder


def write_index(folder: Path, weight_map: Any) -> Path:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder / INDEX


@pytest.mark.parametrize("way", ["index", "folder with index", "folder without index"])
def test_shards_are_read_as_one_checkpoint(
    shards: Path, state: dict[str, torch.Tensor], way: str
) -> None:
    if way == "folder without index":
        (shards / INDEX).unlink()
    checkpoint = open_checkpoint(shards / INDEX if way == "index" else shards)
    assert same_weights(checkpoint.state_dict(), state)
    assert checkpoint.metadata == {"format": "pt"}
    assert {file.name for file in checkpoint.files} == {ONE, TWO}


def test_shards_have_the_digest_of_the_same_weights_in_one_file(
    tmp_path: Path, shards: Path, state: dict[str, torch.Tensor]
) -> None:
    save_file(state, tmp_path / "whole.safetensors")
    assert open_checkpoint(shards).digest == open_checkpoint(tmp_path / "whole.safetensors").digest


def test_a_change_of_one_shard_is_noticed(shards: Path) -> None:
    checkpoint = open_checkpoint(shards)
    save_file({"head": torch.zeros(6), "steps": torch.tensor(9)}, shards / TWO)
    with pytest.raises(CheckpointError, match="was changed after it was opened"):
        checkpoint.check_unchanged()


def test_a_folder_with_one_file_is_that_file(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    assert open_checkpoint(tmp_path).read("w").tolist() == [1, 1]


@pytest.mark.parametrize(
    ("weight_map", "problem"),
    [
        pytest.param(
            {"embed": "../secret.safetensors"}, "'../secret.safetensors' is not a plain", id="up"
        ),
        pytest.param({"embed": "/etc/passwd"}, "is not a plain file name", id="absolute"),
        pytest.param({"embed": "sub/x.safetensors"}, "is not a plain file name", id="sub-folder"),
        pytest.param({"embed": ".."}, "is not a plain file name", id="the folder above"),
        pytest.param({"embed": "a\0b"}, "is not a plain file name", id="a NUL"),
        pytest.param({"embed": 3}, "is not a shard index", id="number"),
        pytest.param({"embed": [ONE]}, "is not a shard index", id="list"),
        pytest.param({"embed": ONE, "head": 3}, "is not a shard index", id="text and number"),
        pytest.param([ONE], "is not a shard index", id="map a list"),
        pytest.param({"embed": ONE, "head": "gone.safetensors"}, "gone.safetensors is missing"),
        pytest.param({"embed": ONE, "head": TWO}, "disagree on tensor 'steps'", id="one too few"),
        pytest.param(
            {"embed": ONE, "bias": ONE, "head": TWO, "steps": TWO},
            "disagree on tensor 'bias'",
            id="one too many",
        ),
        pytest.param(
            {"embed": TWO, "head": ONE, "steps": TWO},
            f"disagree on tensor 'embed' in {ONE}",
            id="in each other's place",
        ),
    ],
)
def test_a_wrong_index_is_refused_with_the_reason(
    shards: Path, weight_map: Any, problem: str
) -> None:
    save_file({"embed": torch.ones(1)}, shards.parent / "secret.safetensors")
    index = write_index(shards, weight_map)
    with pytest.raises(CheckpointError, match=problem) as caught:
        open_checkpoint(index)
    assert str(index) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"weight_map": {"embed": "%s", "embed": "%s"}}' % (ONE.encode(), TWO.encode()),
        b'{"x": [' + b"[]," * (MOST_VALUES // 2) + b"[]]}",
    ],
    ids=["empty", "cut", "list", "no map", "not text", "deep", "a key twice", "a bomb"],
)
def test_a_damaged_index_is_refused(shards: Path, content: bytes) -> None:
    (shards / INDEX).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"index\.json is not a shard index"):
        open_checkpoint(shards)


def test_a_tensor_in_two_shards_is_refused(shards: Path) -> None:
    save_file({"embed": torch.ones(1)}, shards / TWO)
    (shards / INDEX).unlink()
    with pytest.raises(CheckpointError, match=f"'embed' is in both {ONE} and {TWO}"):
        open_checkpoint(shards)


@pytest.mark.parametrize("way", ["index", "folder"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
    ],
    ids=["empty", "LFS pointer"],
)
def test_a_shard_that_is_only_a_placeholder_is_refused_by_name(
    shards: Path, way: str, content: bytes, problem: str
) -> None:
    (shards / TWO).write_bytes(content)
    if way == "folder":
        (shards / INDEX).unlink()
    with pytest.raises(CheckpointError, match=problem) as caught:
        open_checkpoint(shards)
    assert TWO in str(caught.value)


def test_a_folder_without_one_clear_checkpoint_is_refused(tmp_path: Path, shards: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"is an empty folder\. Put a checkpoint there"):
        open_checkpoint(tmp_path / "empty")
    (tmp_path / "empty" / "readme.md").touch()
    with pytest.raises(CheckpointError, match="is a folder without checkpoints"):
        open_checkpoint(tmp_path / "empty")
    (shards / f"other{INDEX}").write_text("{}")
    with pytest.raises(CheckpointError, match=r"holds 2 snapshots \(model, othermodel\), and it"):
        open_checkpoint(shards)


@pytest.fixture
def torch_shards(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A folder as `save_pretrained` left it before safetensors."""
    folder = tmp_path / "torch-shards"
    folder.mkdir()
    torch.save({"embed": state["embed"], "tied": state["embed"]}, folder / "1.bin")
    torch.save({"head": state["head"], "steps": state["steps"]}, folder / "2.bin")
    names = {"embed": "1.bin", "tied": "1.bin", "head": "2.bin", "steps": "2.bin"}
    text = json.dumps({"metadata": {}, "weight_map": names})
    (folder / "pytorch_model.bin.index.json").write_text(text)
    torch.save({"args": 3}, folder / "training_args.bin")
    return folder


@pytest.mark.parametrize("way", ["index", "folder"])
def test_shards_of_torch_are_read_as_one_checkpoint(
    torch_shards: Path, state: dict[str, torch.Tensor], way: str
) -> None:
    index = torch_shards / "pytorch_model.bin.index.json"
    checkpoint = open_checkpoint(index if way == "index" else torch_shards)
    assert same_weights(checkpoint.state_dict(), state | {"tied": state["embed"]})
    assert checkpoint.ties == (("embed", "tied"),)
    part = torch.empty(3)
    checkpoint.read_into("embed", 2, part)
    assert part.tolist() == state["embed"].flatten()[2:5].tolist()
    seen: list[int] = []
    checkpoint.check_integrity(seen.append)
    assert sum(seen) == 48 + 10 + 8


def test_a_shard_that_is_a_link_out_of_the_folder_is_refused(shards: Path) -> None:
    (shards / ONE).rename(shards.parent / "elsewhere")
    (shards / ONE).symlink_to(shards.parent / "elsewhere")
    with pytest.raises(CheckpointError, match=f"{ONE} is a link to a file outside of the folder"):
        open_checkpoint(shards / INDEX)


def test_links_within_the_folder_and_those_of_the_hub_cache_are_followed(
    tmp_path: Path, shards: Path, state: dict[str, torch.Tensor]
) -> None:
    (shards / ONE).rename(shards / "blob")
    (shards / ONE).symlink_to("blob")
    assert same_weights(open_checkpoint(shards / INDEX).state_dict(), state)
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, name in enumerate([ONE, TWO, INDEX]):
        (shards / name).resolve().rename(blobs / str(number))
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    assert same_weights(open_checkpoint(snapshot / INDEX).state_dict(), state)


def test_an_index_without_tensors_or_without_end_is_refused(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match="it has no weight_map of tensors and file"):
        open_checkpoint(write_index(shards, {}))
    monkeypatch.setattr(sharded, "LARGEST_INDEX", 10)
    with pytest.raises(CheckpointError, match="is larger than 10 bytes"):
        open_checkpoint(shards / INDEX)


def test_an_index_that_names_another_index_as_a_shard_is_refused(tmp_path: Path) -> None:
    other = "other.safetensors.index.json"
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"w": other}}))
    (tmp_path / other).write_text(json.dumps({"weight_map": {"w": ONE}}))
    with pytest.raises(CheckpointError, match=r"other\.safetensors\.index\.json is an index, not"):
        open_checkpoint(tmp_path / INDEX)
