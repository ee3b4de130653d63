import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from soupcore import Cancelled, Checkpoint, CheckpointError, open_checkpoint
from soupcore.checkpoints import files
from soupcore.checkpoints.dtypes import DTYPES
from soupcore.sweeps.folder import folder_signature
from soupcore.writers import write_safetensors
from tests.helpers import any_tensor, infos

pytestmark = pytest.mark.usefixtures("read_in_this_process")

STATE = {"a": torch.tensor([1.0, 2.0, 3.0, 4.0]), "b": torch.tensor([5, 6]), "c": torch.zeros(0)}

CheckpointOf = Callable[[Mapping[str, Tensor]], Checkpoint]


def save_streamed(state: Mapping[str, Tensor], path: Path) -> None:
    write_safetensors(path, infos(state), lambda name: [state[name].flatten()], {"note": "other"})


OLD_DTYPES = {name: dtype for name, dtype in DTYPES.items() if not name.startswith(("F8", "U"))}


def save_legacy(state: Mapping[str, Tensor], path: Path) -> None:
    torch.save(dict(state), path, _use_new_zipfile_serialization=False)


def save_folder(state: Mapping[str, Tensor], path: Path) -> None:
    path.mkdir()
    for number, (name, tensor) in enumerate(state.items()):
        save_file({name: tensor}, path / f"part-{number}.safetensors")


@pytest.mark.parametrize(
    ("name", "save", "dtypes"),
    [
        ("x.safetensors", save_streamed, DTYPES),
        ("x.pt", lambda state, path: torch.save(dict(state), path), DTYPES),
        ("x.ckpt", save_legacy, OLD_DTYPES),  # torch cannot load the others from this format
        ("folder", save_folder, DTYPES),
    ],
    ids=["streamed safetensors", "zip", "legacy", "shards"],
)
def test_equal_weights_have_the_same_digest_in_every_format_and_order(
    tmp_path: Path,
    checkpoint_of: CheckpointOf,
    name: str,
    save: Callable[[Mapping[str, Tensor], Path], None],
    dtypes: dict[str, torch.dtype],
) -> None:
    state = {dtype: any_tensor(dtypes[dtype], 3, 2) for dtype in dtypes} | STATE
    save(dict(reversed(state.items())), tmp_path / name)
    assert open_checkpoint(tmp_path / name).digest == checkpoint_of(state).digest


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(STATE | {"a": torch.tensor([1.0, 2.0, 3.0, 4.0000005])}, id="a bit"),
        pytest.param(STATE | {"a": -STATE["a"].flip(0).neg()}, id="order of elements"),
        pytest.param(STATE | {"a": STATE["a"].reshape(2, 2)}, id="shape"),
        pytest.param(STATE | {"a": STATE["a"].view(torch.int32)}, id="dtype of the same bytes"),
        pytest.param(STATE | {"c": torch.zeros(0, 2)}, id="shape of nothing"),
        pytest.param(STATE | {"d": torch.zeros(0)}, id="one more"),
        pytest.param({"a": STATE["a"], "b": STATE["b"]}, id="one less"),
        pytest.param({"A": STATE["a"], "b": STATE["b"], "c": STATE["c"]}, id="name"),
        pytest.param(STATE | {"a": STATE["a"][:2], "c": STATE["a"][2:]}, id="border moved"),
    ],
)
def test_different_weights_have_different_digests(
    checkpoint_of: CheckpointOf, other: dict[str, Tensor]
) -> None:
    assert checkpoint_of(other).digest != checkpoint_of(STATE).digest


def test_minus_zero_differs_from_zero(checkpoint_of: CheckpointOf) -> None:
    zeros = {"w": torch.zeros(2)}
    assert checkpoint_of({"w": -zeros["w"]}).digest != checkpoint_of(zeros).digest


@pytest.mark.parametrize("position", [0, (1 << 20) - 1, 1 << 20, (1 << 21) + 4])
def test_every_block_of_a_large_tensor_determines_the_digest(
    checkpoint_of: CheckpointOf, position: int
) -> None:
    tensor = torch.zeros((1 << 21) + 5, dtype=torch.int8)
    before = checkpoint_of({"w": tensor}).digest
    tensor[position] = 1
    assert checkpoint_of({"w": tensor}).digest != before


def test_reopening_a_file_finds_the_digest_without_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    first = open_checkpoint(path)
    assert not first.is_scanned
    digest = first.digest
    second = open_checkpoint(path)
    read: list[int] = []
    assert second.is_scanned
    second.scan(read.append)
    assert read == []
    assert second.digest == digest


def test_a_changed_file_has_a_new_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.tensor([1.0])}, path)
    before = open_checkpoint(path).digest
    save_file({"w": torch.tensor([2.0])}, path)  # as many bytes
    touch(path)
    again = open_checkpoint(path)
    assert not again.is_scanned
    assert again.digest != before


def test_digests_are_cached_by_file_and_not_by_name(tmp_path: Path) -> None:
    one, two = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    save_file({"w": torch.tensor([1.0])}, one)
    save_file({"w": torch.tensor([2.0])}, two)
    os.utime(one, (0, 0))
    os.utime(two, (0, 0))  # as after unpacking an archive
    digests = open_checkpoint(one).digest, open_checkpoint(two).digest
    one.rename(tmp_path / "3")
    two.rename(one)
    assert open_checkpoint(one).digest == digests[1]


@pytest.mark.parametrize(
    "dtype", [dtype for dtype in DTYPES.values() if dtype.is_floating_point], ids=str
)
def test_values_that_are_not_finite_are_counted_by_tensor(
    checkpoint_of: CheckpointOf, dtype: torch.dtype
) -> None:
    infinite = [] if dtype is torch.float8_e4m3fn else [float("inf"), float("-inf")]
    bad = torch.tensor([1.0, float("nan"), 0.0, *infinite]).to(dtype)
    checkpoint = checkpoint_of(
        {"bad": bad, "good": torch.ones(3, dtype=dtype), "ids": torch.tensor([1 << 62])}
    )
    assert checkpoint.nonfinite == {"bad": 1 + len(infinite)}
    assert open_checkpoint(checkpoint.path).nonfinite == {"bad": 1 + len(infinite)}


def test_digests_do_not_depend_on_a_usable_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    expected = open_checkpoint(tmp_path / "a.safetensors").digest
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "scans.sqlite").write_bytes(b"no database" * 100)
    for folder in (damaged, tmp_path / "a.safetensors" / "below a file"):
        monkeypatch.setenv("STOCKPOT_WORKSPACE", str(folder))
        assert open_checkpoint(tmp_path / "a.safetensors").digest == expected


def test_weight_sets_of_one_file_have_their_own_digests(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    raw, averaged = open_checkpoint(path), open_checkpoint(path)
    averaged.weights = "ema"
    assert raw.digest
    assert not averaged.is_scanned
    averaged.scan()
    assert open_checkpoint(path).is_scanned


def test_a_cached_scan_of_other_tensors_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(STATE, path)
    open_checkpoint(path).scan()
    again = open_checkpoint(path)
    del again.tensors["c"]  # as where another version reads less of the file
    assert not again.is_scanned


def test_a_file_with_wrong_checksums_gets_no_digest(
    checkpoint_of: CheckpointOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def damaged(
        checkpoint: Checkpoint, on_bytes: Callable[[int], None], checksums: Mapping[str, int]
    ) -> None:
        on_bytes(1000)
        raise CheckpointError(f"{checkpoint.path} is damaged.")

    checkpoint = checkpoint_of(STATE)
    with monkeypatch.context() as patch:
        patch.setattr(type(checkpoint), "check_integrity", damaged)
        with pytest.raises(CheckpointError, match="is damaged"):
            checkpoint.scan(read.append)
    assert sum(read) == checkpoint.nbytes  # a look at checksums may be stopped, but is no progress
    again = open_checkpoint(checkpoint.path)
    assert again.is_scanned  # it need not be read again to know that
    with pytest.raises(CheckpointError, match="is damaged"):
        _ = again.digest
    touch(checkpoint.path)
    assert not open_checkpoint(checkpoint.path).is_scanned


@pytest.mark.parametrize("shape", [(3, 5), (16, 64), (1024, 1024), (300, 7, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2], ids=str)
def test_samples_show_whether_two_matrices_are_related(
    checkpoint_of: CheckpointOf, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    one = any_tensor(torch.float32, *shape) * 1e-4
    state = {"one": one, "close": 50 * (one + any_tensor(torch.float32, *shape, seed=1) * 1e-6)}
    found = checkpoint_of({name: tensor.to(dtype) for name, tensor in state.items()}).scan()
    samples = [found[name].values for name in state]
    assert len(samples[0]) in range(min(one.numel(), 60), 130)
    assert torch.cosine_similarity(samples[0], samples[1], dim=0) > 0.9


def test_samples_of_a_matrix_come_from_all_its_columns(checkpoint_of: CheckpointOf) -> None:
    column = torch.arange(1, 1025) / 1024 * 127
    values = checkpoint_of({"w": column.expand(1024, 1024).contiguous()}).scan()["w"].values
    assert len({*values.tolist()}) > 40


@pytest.mark.parametrize(
    "tensor",
    [torch.ones(5), torch.tensor(1.0), torch.ones(2, 2, dtype=torch.int8), torch.zeros(0, 3)],
    ids=["vector", "number", "integers", "nothing"],
)
def test_only_matrices_of_floats_are_sampled(checkpoint_of: CheckpointOf, tensor: Tensor) -> None:
    assert checkpoint_of({"w": tensor}).scan()["w"].sample == ""


def test_a_sample_of_a_matrix_with_nan_is_finite(checkpoint_of: CheckpointOf) -> None:
    odd = torch.tensor([[1.0, float("nan")], [float("-inf"), -2.0]])
    found = checkpoint_of({"odd": odd, "zero": torch.zeros(2, 2)}).scan()
    assert found["odd"].values.tolist() == [64, 0, 0, -127]
    assert found["zero"].values.tolist() == [0, 0, 0, 0]


def test_a_scan_reports_every_byte(checkpoint_of: CheckpointOf) -> None:
    read: list[int] = []
    checkpoint_of({"w": torch.zeros((1 << 20) + 5), "n": torch.tensor(3)}).scan(read.append)
    assert sum(read) == 4 * ((1 << 20) + 5) + 8


def test_many_scans_at_once_do_not_disturb_each_other(
    checkpoint_of: CheckpointOf,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = [checkpoint_of({"w": torch.tensor([float(i)])}) for i in range(8)]
    with ThreadPoolExecutor(len(made)) as threads:
        for _ in range(3):  # each time the first ones in a new workspace
            monkeypatch.setenv("STOCKPOT_WORKSPACE", str(tmp_path_factory.mktemp("new")))
            opened = [open_checkpoint(checkpoint.path) for checkpoint in made]
            digests = [*threads.map(lambda checkpoint: checkpoint.digest, opened)]
            assert len(set(digests)) == len(made)
            assert all(open_checkpoint(checkpoint.path).is_scanned for checkpoint in made)


def test_a_scan_that_is_stopped_is_not_remembered(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")

    def stop(nbytes: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        open_checkpoint(tmp_path / "a.safetensors").scan(stop)
    assert not open_checkpoint(tmp_path / "a.safetensors").is_scanned


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def grow(path: Path) -> None:
    status = path.stat()
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("change", [touch, grow, Path.unlink], ids=["time", "size", "removed"])
def test_a_file_changed_after_it_was_opened_is_refused(
    checkpoint_of: CheckpointOf, change: Callable[[Path], None]
) -> None:
    checkpoint = checkpoint_of(STATE)
    checkpoint.check_unchanged()
    change(checkpoint.path)
    with pytest.raises(CheckpointError, match="was changed after it was opened") as caught:
        checkpoint.check_unchanged()
    assert str(checkpoint.path) in str(caught.value)


def test_a_file_changed_while_it_is_scanned_gets_no_digest(checkpoint_of: CheckpointOf) -> None:
    checkpoint = checkpoint_of(STATE)
    with pytest.raises(CheckpointError, match="was changed after it was opened"):
        checkpoint.scan(lambda nbytes: touch(checkpoint.path))
    assert not open_checkpoint(checkpoint.path).is_scanned


def rewritten_in_place(path: Path, content: bytes) -> None:
    """Other bytes under the same path, inode, size and modification time."""
    status = path.stat()
    assert len(content) == status.st_size
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


SAVERS: dict[str, Callable[[dict[str, Tensor], Path], None]] = {
    ".safetensors": lambda state, path: save_file(state, path),
    ".pt": lambda state, path: torch.save(state, path),
    ".ckpt": save_legacy,
}


@pytest.mark.parametrize("lies", [False, True], ids=["true ctime", "false ctime"])
@pytest.mark.parametrize("suffix", SAVERS)
@pytest.mark.parametrize("count", [3, 100_000])
def test_a_digest_belongs_to_the_bytes_and_not_to_the_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, count: int, lies: bool
) -> None:
    if lies:
        monkeypatch.setattr(
            files,
            "_as_identity",
            lambda status: files.Identity(status.st_dev, status.st_ino, status.st_size, 1, 1),
        )
    save = SAVERS[suffix]
    path, other = tmp_path / f"a{suffix}", tmp_path / "b" / f"a{suffix}"
    other.parent.mkdir()
    save({"w": torch.zeros(count)}, path)
    save({"v": torch.ones(count)}, other)
    before, signature = open_checkpoint(path), folder_signature(tmp_path)
    assert before.state_dict()["w"].sum() == 0
    digest = before.digest
    rewritten_in_place(path, other.read_bytes())
    after = open_checkpoint(path)
    assert folder_signature(tmp_path) != signature
    assert list(after.tensors) == ["v"]
    assert after.digest != digest
    assert after.digest == open_checkpoint(other).digest
    with pytest.raises(CheckpointError, match="was changed after it was opened"):
        before.check_unchanged()
