"""Weights as NumPy arrays inside the pickle."""

import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from soupcore.safe_torch.contents import read_contents
from soupcore.safe_torch.refusal import Refusal
from tests.safe_torch.torch_files import saved

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "conv.bias": np.array([1.5], np.float32),
    "half": np.arange(6, dtype=np.float16).reshape(3, 2),
    "double": np.arange(3.0),
    "long": np.arange(5000, dtype=np.float32).reshape(50, 100),
    "columns": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "counter": np.array(7),
    "flags": np.array([True, False, True]),
}


def pickled(value: object, protocol: int) -> io.BytesIO:
    return io.BytesIO(pickle.dumps(value, protocol))


def values(file: io.BytesIO) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays as the contents say where they are."""
    read = read_contents(file)
    (found,) = read["sets"]
    data = file.getvalue()
    made = {}
    for name, (key, dtype, offset, shape, stride, *_) in found["tensors"].items():
        start, nbytes, crc = read["storages"][key]
        assert (offset, crc) == (0, None)
        flat = torch.frombuffer(
            bytearray(data[start : start + nbytes]), dtype=getattr(torch, dtype)
        )
        made[name] = flat.as_strided(shape, stride).numpy()
    return made


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_arrays_are_read_in_place(protocol: int, zipped: bool) -> None:
    value = {"model": ARRAYS, "__author__": "a model zoo"}
    file = saved(value, protocol) if zipped else pickled(value, protocol)
    found = values(file)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype


def test_arrays_of_python_2_are_read_too() -> None:
    # What Python 2 and NumPy 1 wrote with protocol 2: the bytes as a text of single bytes.
    array = np.array([1.0, -2.5, 3e30], np.float32)
    content = array.tobytes()
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    head = b"\x80\x02}U\x01w" + made
    minus_one = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNN" + 2 * minus_one + b"K\x00tb"
    state = b"(K\x01K\x03\x85" + dtype + b"\x89U" + bytes([len(content)]) + content + b"tb"
    found = values(io.BytesIO(head + state + b"s."))
    np.testing.assert_array_equal(found["w"], array)


@pytest.mark.parametrize(
    ("array", "protocol", "problem"),
    [
        (np.ones((3, 3), np.float32), 2, "bytes are pickled as text"),
        (np.ones(3, ">f4"), 4, "with an unusual dtype"),
    ],
    ids=["protocol 2", "big-endian"],
)
def test_an_array_that_cannot_be_read_is_named_with_the_reason(
    array: np.ndarray[Any, Any], protocol: int, problem: str
) -> None:
    (found,) = read_contents(pickled({"model": {"w": array}}, protocol))["sets"]
    assert found["name"] == "model"
    assert found["problem"].startswith("Tensor 'w' is a NumPy array")
    assert problem in found["problem"]
    assert "torch.from_numpy" in found["way_out"]


def test_an_array_of_another_size_than_its_shape_is_damaged() -> None:
    data = pickle.dumps({"w": np.arange(3, dtype=np.float32)}, 4).replace(
        b"K\x03\x85", b"K\x04\x85"
    )
    (found,) = read_contents(io.BytesIO(data))["sets"]
    assert "has a size that contradicts its shape" in found["problem"]


def test_a_pickle_larger_than_the_limit_is_read_where_its_bulk_is_arrays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("soupcore.safe_torch.formats.MOST_BYTES", 5_000)
    monkeypatch.setattr("soupcore.safe_torch.machine.MOST_BYTES", 5_000)
    large = {f"layer{n}.weight": np.full((40, 50), n, np.float32) for n in range(5)}
    found = values(pickled({"model": large}, 4))
    assert [array[0, 0] for array in found.values()] == [0, 1, 2, 3, 4]
    with pytest.raises(Refusal, match="more than 5000 bytes beside its arrays"):
        read_contents(pickled({"names": [f"{n:0100}" for n in range(100)]}, 4))


def test_a_too_large_pickle_is_refused_as_other_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("soupcore.safe_torch.formats.MOST_BYTES", 5_000)
    with pytest.raises(Refusal, match="it contains other data, such as NumPy arrays"):
        read_contents(saved({"model": ARRAYS}, 4))


@pytest.mark.parametrize("value", [{"lr": 0.1}, [1, 2], np.ones(3)], ids=str)
def test_a_pickle_without_weights_is_refused(value: object) -> None:
    with pytest.raises(Refusal, match=r"no tensors|no named weights"):
        read_contents(pickled(value, 4))
