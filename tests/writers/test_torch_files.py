"""Every file is opened with torch itself, with `unzip` and with our own safe reader.

`torch.load` runs code where a file holds a model; the files here are our own, and a process of its
own loads those.
"""

import io
import os
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from soupcore import Cancelled, Checkpoint, CheckpointError, open_checkpoint
from soupcore.checkpoints.dtypes import DTYPES
from soupcore.checkpoints.torch_format import TorchCheckpoint
from soupcore.new_files import NewFile
from soupcore.safe_torch.archive import read_archive
from soupcore.writers.torch_files import Change, rewritten_form, why_not_like, write_like
from tests.helpers import any_tensor, infos, same_bits, same_weights
from tests.toy import Tied

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


pytestmark = pytest.mark.usefixtures("read_in_this_process")


def opened(path: Path, weights: str | None = None) -> TorchCheckpoint:
    checkpoint = open_checkpoint(path, weights)
    assert isinstance(checkpoint, TorchCheckpoint)
    return checkpoint


def save(path: Path, thing: object, *, zipped: bool = True) -> Path:
    torch.save(thing, path, _use_new_zipfile_serialization=zipped)
    return path


def write(
    source: TorchCheckpoint,
    path: Path,
    state: dict[str, Tensor],
    pieces: int = 3,
    recipe: str = "",
    on_bytes: Callable[[int], None] = lambda nbytes: None,
) -> Path:
    with NewFile(path) as new:
        write_like(
            new,
            source,
            state,
            lambda name: iter(
                state[name].detach().resolve_conj().resolve_neg().flatten().tensor_split(pieces)
            ),
            recipe,
            on_bytes,
        )
        new.publish()
    return path


def other_values(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The elements of each tensor the other way round, whatever their dtype."""

    def turned(tensor: Tensor) -> Tensor:
        flat = tensor.detach().resolve_conj().resolve_neg().flatten().contiguous()
        elements = flat.view(torch.uint8).reshape(-1, tensor.itemsize).flip(0).contiguous()
        return elements.flatten().view(tensor.dtype).reshape(tensor.shape)

    return {name: turned(tensor) for name, tensor in state.items()}


def check_archive(written: Path) -> None:
    """The archive is whole for every reader, and its storages lie as torch maps them."""
    with written.open("rb") as file:
        archive = read_archive(file)
    storages = [record for name, record in archive.records.items() if name.startswith("data/")]
    assert all(record.data_offset % 64 == 0 for record in storages)
    assert archive.root == "archive"  # and not the name that the first file once had
    with zipfile.ZipFile(written) as file:
        assert file.testzip() is None
    assert subprocess.run(["unzip", "-tq", written], capture_output=True).returncode == 0


STATES = {
    "contiguous": {"w": torch.arange(600.0).reshape(20, 30), "b": torch.arange(4.0)},
    "tied": {"a": (tied := torch.arange(12.0)), "b": tied, "c": tied.reshape(3, 4)},
    "views of one storage": {"a": (shared := torch.arange(40.0))[30:], "b": shared[2:12]},
    "transposed": {"w": torch.arange(12.0).reshape(3, 4).T, "v": torch.arange(3.0)},
    "channels last": {
        "w": torch.arange(48.0).reshape(2, 3, 2, 4).contiguous(memory_format=torch.channels_last)
    },
    "strided": {"w": torch.arange(40.0)[3:35:4]},
    "scalar and empty": {"s": torch.tensor(3.5), "e": torch.empty(0, 4), "n": torch.tensor(7)},
    "parameters": OrderedDict(nn.Linear(3, 4).state_dict()),
    "every dtype": {str(dtype): any_tensor(dtype, 3, 5) for dtype in DTYPES.values()},
    "conjugate": {"w": any_tensor(torch.complex64, 6).conj()},
    "negative": {"w": any_tensor(torch.complex64, 6).conj().imag},
}


@FORMATS
@pytest.mark.parametrize("kind", STATES)
def test_a_copy_with_other_weights_loads_as_these_weights(
    tmp_path: Path, kind: str, zipped: bool
) -> None:
    state = STATES[kind]
    source = opened(save(tmp_path / "a.pt", state, zipped=zipped))
    new = other_values(state)
    written = write(source, tmp_path / "b.pt", new)
    check_archive(written)
    expected = {name: tensor.resolve_conj().resolve_neg() for name, tensor in new.items()}
    for mmap in (True, False):
        loaded = torch.load(written, weights_only=True, mmap=mmap)
        assert list(loaded) == list(state)
        for name, tensor in loaded.items():
            assert same_bits(tensor.resolve_conj().resolve_neg(), expected[name])
            assert tensor.stride() == state[name].stride()
    assert same_weights(opened(written).state_dict(), expected)
    opened(written).check_integrity()


@FORMATS
def test_a_copy_with_the_same_weights_has_the_digest_of_its_file(
    tmp_path: Path, zipped: bool
) -> None:
    source = opened(save(tmp_path / "a.pt", STATES["contiguous"], zipped=zipped))
    reported: list[int] = []
    written = write(source, tmp_path / "b.pt", source.state_dict(), on_bytes=reported.append)
    assert opened(written).digest == source.digest
    assert rewritten_form(source).nbytes <= sum(reported) < written.stat().st_size
    again = write(source, tmp_path / "c.pt", source.state_dict())
    assert again.read_bytes() == written.read_bytes()


def test_a_copy_of_a_copy_is_the_same_file(tmp_path: Path) -> None:
    save(tmp_path / "a.pt", run_checkpoint(Tied()))
    paths = [tmp_path / name for name in ("a.pt", "b.pt", "c.pt")]
    for path, following in pairwise(paths):
        source = opened(path)
        write(source, following, source.state_dict(), recipe="{}")
    assert paths[2].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("limit", [50, 1_000_000])
def test_large_storages_get_sizes_of_64_bits(
    tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = STATES["contiguous"]
    source = opened(save(tmp_path / "a.pt", state))
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
    written = write(source, tmp_path / "b.pt", other_values(state))
    check_archive(written)
    for mmap in (True, False):
        loaded = torch.load(written, weights_only=True, mmap=mmap)
        assert same_weights(loaded, other_values(state))
    assert same_weights(opened(written).state_dict(), other_values(state))


def test_ties_and_views_stay_what_they_are(tmp_path: Path) -> None:
    whole = torch.arange(10.0)
    state = {"a": whole[:4], "b": whole[:4], "c": whole[6:], "unread": whole}
    source = opened(save(tmp_path / "a.pt", state))
    new = {"a": torch.ones(4), "b": torch.ones(4), "c": torch.full((4,), 2.0)}
    loaded = torch.load(write(source, tmp_path / "b.pt", new), weights_only=True)
    assert loaded["unread"].tolist() == [1, 1, 1, 1, 4, 5, 2, 2, 2, 2]
    loaded["a"][0] = 7
    assert loaded["b"][0] == 7
    assert loaded["a"].untyped_storage().data_ptr() == loaded["c"].untyped_storage().data_ptr()


@FORMATS
@pytest.mark.parametrize(
    ("state", "changes"),
    [
        pytest.param({"a": tied, "b": tied}, {"b": tied + 1}, id="the same"),
        pytest.param({"a": tied, "b": tied.reshape(3, 4)}, {"b": tied + 1}, id="reshaped"),
        pytest.param({"a": tied.view(3, 4), "b": tied.view(3, 4).T}, {"b": tied}, id="turned"),
        pytest.param({"a": tied[:8], "b": tied[4:]}, {"b": tied[:8]}, id="overlapping"),
    ],
)
def test_different_values_for_tensors_that_share_memory_are_refused_by_name(
    tmp_path: Path, state: dict[str, Tensor], changes: dict[str, Tensor], zipped: bool
) -> None:
    source = opened(save(tmp_path / "a.pt", state, zipped=zipped))
    with pytest.raises(CheckpointError, match=r"'a' and 'b' share memory in a\.pt.*safetensors"):
        write(source, tmp_path / "b.pt", state | changes)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


# Files that hold more than a state dict


def run_checkpoint(model: nn.Module) -> dict[str, Any]:
    """What a training run saves."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return {"epoch": 3, "model": model, "optimizer": optimizer.state_dict(), "args": {"lr": 0.1}}


LOADER = """
import sys, torch
for path in sys.argv[1:]:
    for mmap in (True, False):
        run = torch.load(path, weights_only=False, mmap=mmap)
        model = run["model"]
        assert run.keys() == {"epoch", "model", "args", "stockpot"}
        assert (run["epoch"], run["args"], run["stockpot"]) == (-1, {"lr": 0.1}, '{"recipe": "ä"}')
        assert type(model).__name__ == "Tied" and model.head.weight is model.embed.weight
        assert type(model.embed.weight).__name__ == "Parameter"
        assert model.embed.weight.requires_grad and model.cache.tolist() == [5, 5, 5]
    torch.save(model.state_dict(), path + ".loaded")
"""


def test_a_pickled_model_is_found_with_the_new_weights_and_its_arguments(tmp_path: Path) -> None:
    model = Tied()
    model.train()
    run = run_checkpoint(model)
    new = other_values(model.state_dict())
    written = []
    for name in ("zip.pt", "old.pt"):
        source = opened(save(tmp_path / name, run, zipped=name == "zip.pt"))
        written.append(write(source, tmp_path / f"new-{name}", new, recipe='{"recipe": "ä"}'))
        assert rewritten_form(source).changes == (
            Change("epoch", "progress of the run", "reset"),
            Change("optimizer", "training state", "removed"),
        )
        assert rewritten_form(source).kept == ("args",)
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", LOADER, *written], check=True, env=environment)
    for path in written:
        assert same_weights(torch.load(f"{path}.loaded", weights_only=True), new)
        assert opened(path).metadata == {"stockpot": '{"recipe": "ä"}'}


def test_removed_tensors_are_not_in_the_written_file(tmp_path: Path) -> None:
    secret = torch.full((500,), 0.1234567)
    run = {
        "model": {"w": torch.ones(3)},
        "optimizer": {"state": {0: {"exp_avg": secret}}, "param_groups": []},
        "run_name": "anna's laptop",
    }
    source = opened(save(tmp_path / "anna.pt", run))
    content = write(source, tmp_path / "b.pt", source.state_dict()).read_bytes()
    assert b"anna" not in content
    assert bytes(secret.numpy().tobytes()) not in content
    assert len(content) < 4_000


@pytest.mark.parametrize("weights", ["ema", "model"])
def test_all_weight_sets_of_a_copied_file_become_the_opened_one(
    tmp_path: Path, weights: str
) -> None:
    sets = {"model": {"w": torch.ones(3)}, "ema": {"module.w": torch.zeros(3)}, "epoch": 3}
    source = opened(save(tmp_path / "a.pt", sets), weights)
    (name,) = source.tensors
    written = write(source, tmp_path / "b.pt", {name: torch.full((3,), 7.0)})
    loaded = torch.load(written, weights_only=True)
    assert loaded["model"]["w"].tolist() == loaded["ema"]["module.w"].tolist() == [7, 7, 7]
    other = "model" if weights == "ema" else "ema"
    assert Change(other, "weights", "replaced") in rewritten_form(source).changes


OTHER_WEIGHTS: dict[str, Any] = {
    "of another shape": {"w": torch.ones(4)},
    "of other names": {"v": torch.ones(3)},
    "with more": {"w": torch.ones(3), "v": torch.ones(3)},
    "that count their models": {"module.w": torch.ones(3), "n_averaged": torch.tensor(3)},
    "in another dtype": {"w": torch.ones(3).half()},
}


@pytest.mark.parametrize("kind", OTHER_WEIGHTS)
def test_weights_that_cannot_be_the_soup_s_are_removed(tmp_path: Path, kind: str) -> None:
    saved = {"state_dict": {"w": torch.zeros(3)}, "state_dict_ema": OTHER_WEIGHTS[kind]}
    source = opened(save(tmp_path / "a.pt", saved), "state_dict")
    written = write(source, tmp_path / "b.pt", {"w": torch.full((3,), 7.0)})
    loaded = torch.load(written, weights_only=True)
    assert loaded["state_dict"]["w"].tolist() == [7, 7, 7]
    if kind == "in another dtype":  # loaders copy into the dtype of the network
        assert loaded["state_dict_ema"]["w"].tolist() == [7, 7, 7]
    else:
        assert loaded.keys() == {"state_dict"}


def test_tensors_that_are_not_named_stay_as_they_were(tmp_path: Path) -> None:
    source = opened(save(tmp_path / "a.pt", {"w": torch.ones(3), "n_averaged": torch.tensor(4)}))
    loaded = torch.load(write(source, tmp_path / "b.pt", {"w": torch.zeros(3)}), weights_only=True)
    assert (loaded["w"].tolist(), loaded["n_averaged"].item()) == ([0, 0, 0], 4)


def test_a_state_dict_with_more_in_it_stays_one(tmp_path: Path) -> None:
    saved = {
        "w": torch.ones(3),
        "n": torch.tensor(1),
        "epoch": 3,
        "best_acc": 0.5,
        "fp8._extra_state": {"scale": torch.ones(2)},
        "optimizer": {"param_groups": []},
    }
    source = opened(save(tmp_path / "a.pt", saved))
    assert rewritten_form(source).kept == ()
    written = write(source, tmp_path / "b.pt", {"w": torch.zeros(3)}, recipe="{}")
    loaded = torch.load(written, weights_only=True)
    assert loaded.keys() == {"w", "n", "fp8._extra_state"}  # what load_state_dict takes
    assert (loaded["w"].tolist(), loaded["n"].item()) == ([0, 0, 0], 1)


def test_a_form_that_cannot_be_written_again_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {"w": torch.ones(3)}
    source = opened(save(tmp_path / "a.pt", state | {"n": 1}))
    monkeypatch.setattr("soupcore.safe_torch.rewriting.MOST_BYTES", 10)
    reason = str(why_not_like(source, infos(state)))
    assert "a.pt cannot be rewritten" in reason
    assert "pickle is larger" in reason
    with pytest.raises(CheckpointError, match=r"pickle is larger .*safetensors"):
        write(source, tmp_path / "b.pt", state)


# Archives of other writers


def zipped_again(source: Path, target: Path, *, streamed: bool, wide: bool, pickle: int) -> Path:
    """The same records as Python's zipfile writes them."""
    buffer = io.BytesIO()
    if streamed:
        buffer.seekable = lambda: False  # type: ignore[method-assign]
        buffer.tell = lambda: (_ for _ in ()).throw(OSError)  # type: ignore[method-assign]
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = pickle if name.endswith("data.pkl") else zipfile.ZIP_STORED
            with new.open(entry, "w", force_zip64=wide) as file:
                file.write(old.read(name))
    target.write_bytes(buffer.getvalue())
    return target


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("pickle", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_archives_of_other_writers_are_written_as_torch_s(
    tmp_path: Path, streamed: bool, wide: bool, pickle: int
) -> None:
    state = STATES["contiguous"]
    save(tmp_path / "torch.pt", state)
    path = zipped_again(
        tmp_path / "torch.pt", tmp_path / "a.pt", streamed=streamed, wide=wide, pickle=pickle
    )
    source = opened(path)
    new = other_values(state)
    written = write(source, tmp_path / "b.pt", new)
    check_archive(written)
    assert same_weights(torch.load(written, weights_only=True), new)


def test_values_beside_the_weights_are_written_again(tmp_path: Path) -> None:
    held = {"pad": torch.arange(300_000), "model": STATES["contiguous"], "text": "x" * 3_000_000}
    source = opened(save(tmp_path / "a.pt", held))
    loaded = torch.load(write(source, tmp_path / "b.pt", source.state_dict()), weights_only=True)
    assert same_bits(loaded["pad"], torch.arange(300_000))
    assert loaded["text"] == held["text"]
    assert same_weights(loaded["model"], STATES["contiguous"])


# Whatever the layout


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Tensor]:
    """Tensors in a few storages: apart, the same, overlapping, strided, turned."""
    storages = [torch.arange(draw(st.integers(0, 30)), dtype=torch.float32) for _ in range(2)]
    state = {}
    for name in "abcd"[: draw(st.integers(1, 4))]:
        flat = draw(st.sampled_from(storages))
        start = draw(st.integers(0, len(flat)))
        view = flat[start : start + draw(st.integers(0, 12))][:: draw(st.integers(1, 3))]
        if len(view) % 2 == 0 and draw(st.booleans()):
            view = view.reshape(2, -1)
            view = view.T if draw(st.booleans()) else view
        state[name] = view
    return state


@given(layouts(), st.integers(1, 5), st.booleans())
def test_any_layout_is_copied_with_the_same_and_with_other_values(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor], pieces: int, zipped: bool
) -> None:
    folder = tmp_path_factory.mktemp("layout")
    source = opened(save(folder / "a.pt", state, zipped=zipped))
    same = write(source, folder / "b.pt", source.state_dict(), pieces)
    assert opened(same).digest == source.digest
    # What a storage can hold: the same change of every element, wherever it is seen from.
    new = {name: tensor * 2 + 1 for name, tensor in state.items()}
    written = write(source, folder / "c.pt", new, pieces)
    assert same_weights(torch.load(written, weights_only=True), new)
    check_archive(written)


# What cannot be written


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"w": torch.ones(2, 3)}, None),
        (
            {"w": torch.ones(2, 3).half()},
            r"'w' is float32 \[2, 3\] in a.pt but float16 \[2, 3\]",
        ),
        ({"w": torch.ones(3, 2)}, r"'w' is float32 \[2, 3\] in a.pt but float32 \[3, 2\] in"),
        ({"w": torch.ones(2, 3), "v": torch.ones(1)}, r"a\.pt has no tensor 'v'"),
    ],
)
def test_weights_without_a_place_in_the_file_are_named(
    tmp_path: Path, state: dict[str, Tensor], reason: str | None
) -> None:
    source = opened(save(tmp_path / "a.pt", {"w": torch.ones(2, 3)}))
    found = why_not_like(source, infos(state))
    assert found is None if reason is None else re.search(reason, str(found))


def test_only_files_of_torch_are_copied(
    checkpoint_of: Callable[[dict[str, Tensor]], Checkpoint],
) -> None:
    state = {"w": torch.ones(2)}
    assert "was not written by torch.save" in str(why_not_like(checkpoint_of(state), infos(state)))


@pytest.mark.parametrize("given", [0, 3, 5])
@pytest.mark.parametrize("state", [{"w": torch.ones(2, 2)}, {"w": torch.ones(2, 2).T}], ids=str)
def test_chunks_that_are_not_the_tensor_s_elements_are_refused(
    tmp_path: Path, given: int, state: dict[str, Tensor]
) -> None:
    source = opened(save(tmp_path / "a.pt", state))
    with pytest.raises(CheckpointError, match="'w' yielded"):
        write(source, tmp_path / "b.pt", {"w": torch.ones(given)})
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("after", [0, 500, 1500, 2500])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, after: int) -> None:
    source = opened(save(tmp_path / "a.pt", STATES["contiguous"]))
    written = 0

    def stop(nbytes: int) -> None:
        nonlocal written
        written += nbytes
        if written > after:
            raise Cancelled

    with pytest.raises(Cancelled):
        write(source, tmp_path / "b.pt", source.state_dict(), on_bytes=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_a_file_that_changes_while_it_is_copied_is_noticed(tmp_path: Path) -> None:
    source = opened(save(tmp_path / "a.pt", STATES["contiguous"]))

    def touch(nbytes: int) -> None:
        os.utime(source.path, ns=(1, 1))

    with pytest.raises(CheckpointError, match="was changed while it was read"):
        write(source, tmp_path / "b.pt", source.state_dict(), on_bytes=touch)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]
