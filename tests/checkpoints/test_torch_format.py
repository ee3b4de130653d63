import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from soupcore import CheckpointError, TensorInfo, open_checkpoint
from soupcore.checkpoints.checkpoint import WeightSet
from soupcore.checkpoints.dtypes import DTYPES
from soupcore.checkpoints.torch_format import TorchCheckpoint
from tests.helpers import any_tensor, same_bits, same_weights
from tests.safe_torch import foreign
from tests.toy import build_model

pytestmark = pytest.mark.usefixtures("read_in_this_process")

TIED = torch.arange(6.0)
PATTERN = torch.arange(2 * 3 * 4 * 5, dtype=torch.int32)

ZIPPED = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
# torch cannot load the others from the format of before torch 1.6
OLD_DTYPES = [dtype for name, dtype in DTYPES.items() if not name.startswith(("F8", "U"))]


@ZIPPED
@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"w": torch.arange(6.0).reshape(2, 3)}, id="contiguous"),
        pytest.param({"w": torch.arange(6.0).reshape(2, 3).T}, id="transposed"),
        pytest.param({"w": torch.arange(20.0)[3:15:4]}, id="strided view"),
        pytest.param({"w": PATTERN.reshape(2, 3, 4, 5).permute(0, 3, 1, 2)}, id="channels last"),
        pytest.param({"w": PATTERN.reshape(4, 30)[1:3, 5:25:3]}, id="box"),
        pytest.param({"b": TIED[2:4], "a": TIED, "c": TIED.reshape(3, 2).T}, id="tied"),
        pytest.param({"w": torch.ones(6)[:3].expand(2, 3)}, id="repeated within its storage"),
        pytest.param({"w": torch.tensor(3.5), "n": torch.tensor(7)}, id="0-dim"),
        pytest.param({"w": torch.empty(0), "v": torch.empty(3, 0, 2)}, id="empty tensors"),
        pytest.param(build_model().state_dict(), id="state dict"),
        pytest.param(dict(build_model().named_parameters()), id="parameters"),
        pytest.param(OrderedDict(z=torch.ones(1), a=torch.ones(2)), id="ordered dict"),
        pytest.param({"w": torch.ones(3, requires_grad=True) * 2}, id="part of a graph"),
        pytest.param(
            {"w": torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).conj()}, id="conjugate view"
        ),
        pytest.param(
            {"w": torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).conj().imag},
            id="negative view",
        ),
        pytest.param({"模型.β": torch.ones(2)}, id="names in other scripts"),
    ],
)
def test_a_state_dict_is_read_as_it_was_saved(
    tmp_path: Path, state: dict[str, Tensor], zipped: bool
) -> None:
    path = tmp_path / "a.pt"
    plain = {name: tensor.detach() for name, tensor in state.items()}
    torch.save(
        state if isinstance(state, OrderedDict) else plain,
        path,
        _use_new_zipfile_serialization=zipped,
    )
    checkpoint = open_checkpoint(path)
    assert list(checkpoint.tensors.items()) == [
        (name, TensorInfo(tuple(tensor.shape), tensor.dtype)) for name, tensor in state.items()
    ]
    resolved = {name: tensor.resolve_conj().resolve_neg() for name, tensor in plain.items()}
    assert same_weights(checkpoint.state_dict(), resolved)
    for name, tensor in resolved.items():
        stop = tensor.numel()
        start = min(1, stop)
        assert same_bits(checkpoint.read_elements(name, start, stop), tensor.flatten()[start:stop])
    assert len(checkpoint.digest) == 64


@pytest.mark.parametrize(
    ("dtype", "zipped"),
    [
        *(pytest.param(dtype, True, id=f"zip, {dtype}") for dtype in DTYPES.values()),
        *(pytest.param(dtype, False, id=f"legacy, {dtype}") for dtype in OLD_DTYPES),
    ],
)
def test_every_dtype_is_read(tmp_path: Path, dtype: torch.dtype, zipped: bool) -> None:
    tensor = any_tensor(dtype, 3, 5)
    state = {"w": tensor, "t": tensor.T}
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert same_weights(
        open_checkpoint(tmp_path / "a.pt").state_dict(), {"w": tensor, "t": tensor.T.contiguous()}
    )


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    base = torch.arange(4 * 5 * 6 * 7, dtype=torch.int16)
    box = base.reshape(4, 5, 6, 7)
    return {
        "plain": box,
        "reversed": box.permute(3, 2, 1, 0),
        "channels last": box.permute(0, 3, 1, 2),
        "sliced": box[1:, ::2, 1:5, ::3],
        "mixed": box[:, 1:, :, 2:4].permute(2, 0, 3, 1),
        "diagonal": base[:49].reshape(7, 7).diagonal(),
        "overlapping": base.as_strided((10, 8), (3, 1)),
    }


@given(data=st.data())
def test_any_part_of_any_view_is_read_in_the_views_own_order(
    views: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "views.pt"
    if not path.exists():
        torch.save(views, path)
    checkpoint = open_checkpoint(path)
    name = data.draw(st.sampled_from(sorted(views)))
    flat = views[name].flatten()
    start = data.draw(st.integers(0, flat.numel() - 1))
    stop = data.draw(st.integers(start + 1, flat.numel()))
    assert torch.equal(checkpoint.read_elements(name, start, stop), flat[start:stop])


def test_a_large_transposed_tensor_is_read_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = torch.arange(1400 * 900.0).reshape(1400, 900).T
    torch.save({"w": tensor}, tmp_path / "a.pt")
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    made: list[int] = []
    empty = torch.empty

    def counted(*size: int, dtype: torch.dtype) -> Tensor:
        tensor = empty(*size, dtype=dtype)
        made.append(tensor.nbytes)
        return tensor

    monkeypatch.setattr(torch, "empty", counted)
    read = checkpoint.read_elements("w", 1000, 3000)
    assert same_bits(read, tensor.flatten()[1000:3000])
    assert max(made) <= 2 << 20
    assert same_bits(checkpoint.read("w"), tensor)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_every_usual_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / f"a{suffix}")
    assert open_checkpoint(tmp_path / f"a{suffix}").read("w").tolist() == [1, 1]


def test_reading_whole_gives_tensors_that_carry_no_graph(tmp_path: Path) -> None:
    torch.save({"w": nn.Parameter(torch.ones(2))}, tmp_path / "a.pt")
    assert not open_checkpoint(tmp_path / "a.pt").read("w").requires_grad


class Net(nn.Module):
    """Nested, with tied weights, an LSTM, BatchNorm, and buffers that are not saved."""

    pickled_as = "a_package_that_nobody_has.models.Net"

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.rnn = nn.LSTM(2, 3, bidirectional=True)
        self.embed, self.head = nn.Embedding(4, 3), nn.Linear(3, 4, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("mask", torch.ones(2, dtype=torch.bool))
        self.register_buffer("cache", torch.ones(5), persistent=False)
        self.to(dtype)


CONTAINERS: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "bare": (lambda net: net.state_dict(), ""),
    "module": (lambda net: net, ""),
    "Lightning": (lambda net: {"state_dict": net.state_dict(), "epoch": 3}, ""),
    "timm": (lambda net: {"state_dict": {}, "state_dict_ema": net.state_dict()}, ""),
    "torchvision": (
        lambda net: {"model": Net(torch.float32).state_dict(), "model_ema": net.state_dict()},
        "model_ema",
    ),
    "YOLO": (lambda net: {"model": Net(torch.float16), "ema": net, "epoch": -1}, "ema"),
    "YOLO, stripped": (lambda net: {"model": net, "ema": None}, ""),
    "DINO": (lambda net: {"teacher": net.state_dict(), "student": net.state_dict()}, "teacher"),
    "DeepSpeed": (lambda net: {"module": net.state_dict(), "ds_version": "0.14"}, ""),
    "Lightning's average": (
        lambda net: {"state_dict": net.state_dict(), "current_model_state": net.state_dict()},
        "state_dict",
    ),
    "mmengine": (
        lambda net: {
            "meta": {},
            "message_hub": {},
            "ema_state_dict": {f"module.{k}": v for k, v in net.state_dict().items()},
            "state_dict": net.state_dict(),
        },
        "state_dict",
    ),
    "own": (lambda net: {"my_network": net, "my_epoch": 3}, ""),
}


@pytest.mark.parametrize(
    ("protocol", "zipped", "dtype"),
    [
        (2, True, torch.float32),
        (4, True, torch.bfloat16),
        (5, True, torch.float16),
        (2, False, torch.float64),
        (3, False, torch.float16),
    ],
    ids=str,
)
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code:UserWarning")
def test_every_container_gives_the_models_own_state_dict(
    tmp_path: Path, container: str, protocol: int, zipped: bool, dtype: torch.dtype
) -> None:
    wrap, weights = CONTAINERS[container]
    net = Net(dtype)
    torch.save(
        wrap(net),
        tmp_path / "a.pt",
        pickle_module=foreign,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=zipped,
    )
    checkpoint = open_checkpoint(tmp_path / "a.pt")
    assert checkpoint.weights == weights
    assert list(checkpoint.tensors) == list(net.state_dict())
    assert same_weights(checkpoint.state_dict(), dict(net.state_dict()))
    assert checkpoint.ties == (("embed.weight", "head.weight"),)


def test_another_set_of_weights_is_opened_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"model": {"w": torch.ones(2)}, "ema": {"w": torch.zeros(2)}, "epoch": 3}, path)
    chosen, raw = open_checkpoint(path), open_checkpoint(path, weights="model")
    sets = (WeightSet("ema", "EMA weights"), WeightSet("model", "raw weights"))
    assert (chosen.weights, chosen.weight_sets) == ("ema", sets)
    assert (raw.weights, raw.weight_sets) == ("model", sets)
    assert (chosen.read("w").tolist(), raw.read("w").tolist()) == ([0, 0], [1, 1])
    assert "it was opened and not 'model'" in chosen.notes[0]
    assert raw.notes == ()
    assert chosen.details == raw.details == {"epoch": 3}
    with pytest.raises(CheckpointError, match=r"a\.pt has no weights 'x'; it has 'ema', 'model'"):
        open_checkpoint(path, weights="x")


def test_sets_of_weights_that_share_tensors_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    shared = torch.ones(2)
    model, ema = {"w": torch.ones(2), "v": shared}, {"w": torch.zeros(2), "v": shared}
    torch.save({"model": model, "ema": ema}, path)
    assert open_checkpoint(path).notes[1:] == (
        "'model' (raw weights) shares tensors with 'ema' in memory: if a soup is written as "
        ".pt, both change.",
    )
    assert "'ema' (EMA weights) shares" in open_checkpoint(path, weights="model").notes[0]


def test_if_one_set_cannot_be_read_the_others_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"model": {"w": torch.ones(2)}, "ema": {"w": torch.eye(2).to_sparse()}}, path)
    with pytest.raises(CheckpointError, match=r"'w' is sparse .* open .* 'model'"):
        open_checkpoint(path)
    assert open_checkpoint(path, weights="model").read("w").tolist() == [1, 1]


def test_tied_tensors_are_listed(tmp_path: Path) -> None:
    one, other = torch.ones(4), torch.ones(4)
    state = {"a": one, "b": other, "c": one, "d": one[:2], "e": other, "f": one.view(2, 2)}
    torch.save(state, tmp_path / "a.pt")
    assert open_checkpoint(tmp_path / "a.pt").ties == (("a", "c"), ("b", "e"))


class RunsACommand:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        import os

        return os.system, (self.command,)


class WritesAFile:
    """Calls a class of pathlib's rather than a function that is known to harm."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@ZIPPED
@pytest.mark.parametrize("kind", ["command", "method"])
def test_nothing_in_a_pickle_is_executed(tmp_path: Path, zipped: bool, kind: str) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "hostile.pt"
    payload = RunsACommand(f"touch {canary}") if kind == "command" else WritesAFile(canary)
    torch.save({"w": torch.ones(2), "extra": payload}, path, _use_new_zipfile_serialization=zipped)
    if kind == "command":
        with pytest.raises(CheckpointError, match=r"hostile\.pt cannot .* names posix\.system"):
            open_checkpoint(path)
    else:
        assert open_checkpoint(path).read("w").tolist() == [1, 1]
    assert not canary.exists()
    torch.load(path, weights_only=False)  # the trap was armed
    assert canary.exists()


@pytest.mark.parametrize(
    ("saved", "problem"),
    [
        pytest.param([torch.ones(2)], "holds an object of type list", id="list"),
        pytest.param({}, "holds no tensors", id="empty dict"),
        pytest.param({"w": torch.eye(3).to_sparse()}, "Tensor 'w' is sparse", id="sparse"),
        pytest.param({"w": torch.ones(1).expand(1 << 40)}, "'w' expands 4", id="expanded to 4 TB"),
        pytest.param(
            {"w": torch.ones(2, dtype=torch.complex128)},
            "tensor 'w' has dtype complex128, which cannot be averaged",
            id="unknown dtype",
        ),
        pytest.param({"w": torch.ones(2, device="meta")}, "'w' has no values", id="on meta"),
    ],
)
def test_files_without_weights_are_refused_with_the_file_and_the_reason(
    tmp_path: Path, saved: object, problem: str
) -> None:
    torch.save(saved, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match=problem) as caught:
        open_checkpoint(tmp_path / "bad.pt")
    assert str(tmp_path / "bad.pt") in str(caught.value)
    assert str(caught.value).isprintable()


@ZIPPED
@pytest.mark.parametrize("kept", [1, 10, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, zipped: bool, kept: int) -> None:
    path = tmp_path / "bad.pt"
    torch.save({"w": torch.ones(100)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"bad\.pt cannot be opened"):
        open_checkpoint(path)


def tampered(path: Path) -> None:
    """Change a byte of the first tensor, and no checksum."""
    with zipfile.ZipFile(path) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
    data = bytearray(path.read_bytes())
    start = data.index(b"\0\0\x80?", entry.header_offset + 30)  # 1.0
    data[start] ^= 1
    path.write_bytes(data)


def test_tampered_weights_are_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.ones(5), "v": torch.zeros(5), "n": torch.empty(0)}, path)
    seen: list[int] = []
    open_checkpoint(path).check_integrity(seen.append)
    assert sum(seen) == 40
    tampered(path)
    with pytest.raises(CheckpointError, match=r"a\.pt: the checksum of the record 'data/0'"):
        open_checkpoint(path).check_integrity()


@pytest.mark.parametrize("in_record", ["w", "tied", "part", "turned"])
def test_a_scan_compares_checksums_and_reads_each_record_once(
    tmp_path: Path, in_record: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pt"
    ones = torch.ones(40, 50)
    state = {
        "w": {"w": ones},
        "tied": {"w": ones, "v": ones},
        "part": {"w": ones[:10], "v": ones[20:]},
        "turned": {"w": ones.T},
    }[in_record]
    torch.save(state, path)
    checkpoint = open_checkpoint(path)
    assert checkpoint.checksummed == (set(state) if in_record in ("w", "tied") else set())
    again: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(TorchCheckpoint, "_checksum", lambda *_: again.append(1))
        with suppress(CheckpointError):
            checkpoint.scan()
    assert bool(again) == (not checkpoint.checksummed)
    tampered(path)
    with pytest.raises(CheckpointError, match=r"a\.pt: the checksum of the record 'data/0'"):
        open_checkpoint(path).scan()


def test_only_records_with_weights_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"optimizer": {0: torch.ones(5)}, "model": {"w": torch.zeros(5)}}, path)
    tampered(path)
    seen: list[int] = []
    open_checkpoint(path).check_integrity(seen.append)
    assert sum(seen) == 20


def test_the_older_format_has_no_checksums(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(5)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    seen: list[int] = []
    open_checkpoint(tmp_path / "a.pt").check_integrity(seen.append)
    assert seen == []


def test_a_file_written_without_checksums_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(5)}, path)
    finally:
        torch.serialization.set_crc32_options(before)
    with pytest.raises(CheckpointError, match=r"a\.pt cannot .*set_crc32_options\(False\)"):
        open_checkpoint(path)
