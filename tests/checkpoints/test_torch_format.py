import os
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from soupcore import CheckpointError, TensorInfo, open_checkpoint
from soupcore.checkpoints.dtypes import DTYPES
from tests.helpers import any_tensor, build_model, same_bits, same_weights

TIED = torch.arange(6.0)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "state",
    [
        pytest.param({"w": torch.arange(6.0).reshape(2, 3)}, id="contiguous"),
        pytest.param({"w": torch.arange(6.0).reshape(2, 3).T}, id="transposed"),
        pytest.param({"w": torch.arange(20.0)[3:15:4]}, id="strided view"),
        pytest.param({"b": TIED[2:4], "a": TIED, "c": TIED.reshape(3, 2).T}, id="tied"),
        pytest.param({"w": torch.tensor(3.5), "n": torch.tensor(7)}, id="0-dim"),
        pytest.param({"w": torch.empty(0), "v": torch.empty(3, 0, 2)}, id="empty tensors"),
        pytest.param(build_model().state_dict(), id="state dict"),
        pytest.param(dict(build_model().named_parameters()), id="parameters"),
        pytest.param(OrderedDict(z=torch.ones(1), a=torch.ones(2)), id="ordered dict"),
        pytest.param({"w": torch.ones(3, requires_grad=True) * 2}, id="part of a graph"),
        pytest.param(
            {"w": torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).conj()}, id="conjugate view"
        ),
        pytest.param({"模型.β": torch.ones(2)}, id="names in other scripts"),
    ],
)
def test_a_state_dict_is_read_as_it_was_saved(
    tmp_path: Path, state: dict[str, torch.Tensor], zipped: bool
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
    resolved = {name: tensor.resolve_conj() for name, tensor in plain.items()}
    assert same_weights(checkpoint.state_dict(), resolved)
    for name, tensor in resolved.items():
        stop = tensor.numel()
        start = min(1, stop)
        assert same_bits(checkpoint.read_elements(name, start, stop), tensor.flatten()[start:stop])
    assert len(checkpoint.digest) == 64


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_every_dtype_is_read(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = any_tensor(dtype, 3, 5)
    torch.save({"w": tensor}, tmp_path / "a.pt")
    assert same_bits(open_checkpoint(tmp_path / "a.pt").read("w"), tensor)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_every_usual_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / f"a{suffix}")
    assert open_checkpoint(tmp_path / f"a{suffix}").read("w").tolist() == [1, 1]


def test_reading_whole_gives_tensors_that_carry_no_graph(tmp_path: Path) -> None:
    torch.save({"w": nn.Parameter(torch.ones(2))}, tmp_path / "a.pt")
    assert not open_checkpoint(tmp_path / "a.pt").read("w").requires_grad


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_a_file_zipped_again_is_read_right_or_refused(tmp_path: Path, compression: int) -> None:
    tensor = torch.randint(0, 256, (5000,), dtype=torch.uint8)  # does not compress: grows a little
    torch.save({"w": tensor}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as source,
        zipfile.ZipFile(tmp_path / "b.pt", "w", compression) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    try:
        read = open_checkpoint(tmp_path / "b.pt").read("w")
    except CheckpointError as error:
        assert "b.pt" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert same_bits(read, tensor)


class RunsACommand:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_nothing_in_a_pickle_is_executed(tmp_path: Path, zipped: bool) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "hostile.pt"
    hostile = {"w": torch.ones(2), "extra": RunsACommand(f"touch {canary}")}
    torch.save(hostile, path, _use_new_zipfile_serialization=zipped)
    assert open_checkpoint(path).read("w").tolist() == [1, 1]
    assert not canary.exists()
    torch.load(path, weights_only=False)  # the trap was armed
    assert canary.exists()


@pytest.mark.parametrize(
    ("saved", "problem"),
    [
        pytest.param([torch.ones(2)], "holds a thing of the kind list", id="list"),
        pytest.param(torch.ones(2), "holds one tensor without a name", id="one tensor"),
        pytest.param({}, "holds no tensors", id="empty dict"),
        pytest.param({0: torch.ones(2)}, "tensors have no names", id="name a number"),
        pytest.param({"w": torch.eye(3).to_sparse()}, "'w' is sparse", id="sparse"),
        pytest.param({"w": torch.ones(1).expand(1 << 40)}, "'w' repeats 4", id="expanded to 4 TB"),
        pytest.param({"w": torch.ones(2, 1).expand(2, 3)}, "'w' repeats 8", id="expanded"),
        pytest.param({"w": torch.ones(2, dtype=torch.complex128)}, "'w' has", id="unknown dtype"),
        pytest.param({"w": torch.ones(2, device="meta")}, "'w' has no values", id="on meta"),
    ],
)
def test_what_is_not_a_plain_state_dict_is_refused_with_the_reason(
    tmp_path: Path, saved: object, problem: str
) -> None:
    torch.save(saved, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match=problem) as caught:
        open_checkpoint(tmp_path / "bad.pt")
    assert str(tmp_path / "bad.pt") in str(caught.value)


@pytest.mark.filterwarnings(
    "ignore:torch.quantize_per_tensor:UserWarning", "ignore:TypedStorage is deprecated:UserWarning"
)
def test_quantized_tensors_are_refused(tmp_path: Path) -> None:
    quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    torch.save({"w": quantized}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match=r"bad\.pt: Tensor 'w' is quantized"):
        open_checkpoint(tmp_path / "bad.pt")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [1, 10, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, zipped: bool, kept: int) -> None:
    path = tmp_path / "bad.pt"
    torch.save({"w": torch.ones(100)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"bad\.pt cannot be opened"):
        open_checkpoint(path)
