import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from soupcore import Cancelled, CheckpointError, TensorInfo, open_checkpoint
from soupcore.writers.safetensors import MOST_SHARDS, split_into_shards, write_sharded
from tests.helpers import any_tensor, infos, same_weights
from tests.writers.safetensors_files import write

STATE = {
    "embed": any_tensor(torch.float32, 10, 5),
    "tiny": any_tensor(torch.float32, 1),
    "head": any_tensor(torch.bfloat16, 60, seed=1),
    "steps": torch.tensor(9),
}


def load_as_transformers(index: Path) -> dict[str, Tensor]:
    """What `load_sharded_checkpoint` does: read the map, load each shard, and use what is named."""
    weight_map = json.loads(index.read_text())["weight_map"]
    shards = {name: load_file(index.parent / name) for name in set(weight_map.values())}
    assert sorted(weight_map) == sorted(name for shard in shards.values() for name in shard)
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def test_the_files_are_named_and_indexed_as_hugging_face_does(tmp_path: Path) -> None:
    written = write(tmp_path / "model.safetensors", STATE, {"format": "pt"}, shard_size=204)
    assert [path.name for path in written] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    assert sorted(written) == sorted(tmp_path.iterdir())
    assert json.loads(written[-1].read_text()) == {
        "metadata": {"total_size": 200 + 4 + 120 + 8},
        "weight_map": {
            "embed": "model-00001-of-00002.safetensors",
            "tiny": "model-00001-of-00002.safetensors",
            "head": "model-00002-of-00002.safetensors",
            "steps": "model-00002-of-00002.safetensors",
        },
    }
    for shard in written[:2]:
        with safe_open(shard, framework="pt") as file:
            assert file.metadata() == {"format": "pt"}


@given(
    st.dictionaries(
        st.text("abc.é", min_size=1, max_size=6),
        st.tuples(st.sampled_from([torch.float32, torch.bfloat16]), st.integers(0, 40)),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 400),
)
def test_any_model_in_shards_of_any_size_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    layout: dict[str, tuple[torch.dtype, int]],
    shard_size: int,
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    state = {name: any_tensor(dtype, size) for name, (dtype, size) in layout.items()}
    written = write(folder / "model.safetensors", state, shard_size=shard_size)
    for path in (folder, written[-1]):
        assert same_weights(open_checkpoint(path).state_dict(), state)
    if len(written) == 1:
        assert same_weights(load_file(folder / "model.safetensors"), state)
        return
    assert same_weights(load_as_transformers(written[-1]), state)
    for shard in written[:-1]:
        held = load_file(shard)
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= shard_size


def test_weights_that_fit_into_one_shard_are_one_file(tmp_path: Path) -> None:
    assert write(tmp_path / "m.safetensors", STATE, shard_size=332) == [tmp_path / "m.safetensors"]
    assert len(write(tmp_path / "n.safetensors", STATE, shard_size=331)) == 3


def test_too_many_shards_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    state = {str(number): torch.ones(1) for number in range(MOST_SHARDS + 1)}
    with pytest.raises(
        CheckpointError, match=r"4 bytes gives 501 shards; the limit is 500\. .* larger shards"
    ):
        write(tmp_path / "model.safetensors", state, shard_size=4)
    assert not list(tmp_path.iterdir())
    del state["0"]
    assert len(split_into_shards(infos(state), 4)) == MOST_SHARDS


def test_an_earlier_model_of_the_name_is_replaced_whole(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", STATE, shard_size=1)
    other = tmp_path / "model-best.safetensors"
    other.write_bytes(b"mine")
    written = write(tmp_path / "model.safetensors", STATE, shard_size=204)
    assert sorted(tmp_path.iterdir()) == sorted([*written, other])
    assert other.read_bytes() == b"mine"


@pytest.mark.parametrize("error", [Cancelled, KeyboardInterrupt])
@pytest.mark.parametrize("after", [0, 100, 200, 300])
@pytest.mark.parametrize("replacing", [False, True])
def test_an_interrupted_write_leaves_things_as_they_were(
    tmp_path: Path, error: type[BaseException], after: int, replacing: bool
) -> None:
    if replacing:
        write(tmp_path / "model.safetensors", STATE, shard_size=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    written = 0

    def stop(nbytes: int) -> None:
        nonlocal written
        written += nbytes
        if written > after:
            raise error

    changed = {name: tensor + 1 for name, tensor in STATE.items()}
    with pytest.raises(error):
        write(tmp_path / "model.safetensors", changed, shard_size=204, on_bytes=stop)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_shards_get_their_names_when_all_are_complete(tmp_path: Path) -> None:
    seen: list[list[Path]] = []

    def look(nbytes: int) -> None:
        seen.append([path for path in tmp_path.iterdir() if not path.name.startswith(".")])

    write(tmp_path / "model.safetensors", STATE, shard_size=1, on_bytes=look)
    assert seen
    assert not any(seen)


def test_shards_without_index_are_opened_only_where_all_are_there(tmp_path: Path) -> None:
    *shards, index = write(tmp_path / "model.safetensors", STATE, shard_size=1)
    index.unlink()
    assert same_weights(open_checkpoint(tmp_path).state_dict(), STATE)
    for shard in shards[:-1]:
        shard.unlink()
        with pytest.raises(CheckpointError, match=r"no index, but by its name .* one of 4"):
            open_checkpoint(tmp_path)


def test_chunks_that_are_not_the_tensor_s_elements_are_refused(tmp_path: Path) -> None:
    def chunks(name: str) -> Iterator[Tensor]:
        yield torch.ones(3 if name == "b" else 4)

    layout = {name: TensorInfo((4,), torch.float32) for name in "ab"}
    with pytest.raises(CheckpointError, match="'b' yielded 3 elements instead of 4"):
        write_sharded(tmp_path / "model.safetensors", layout, chunks, {}, 16)
    assert not list(tmp_path.iterdir())
