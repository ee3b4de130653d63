"""What is written again is compared with what Python's own pickle makes of both."""

import io
import pickle
import pickletools
from collections import Counter, OrderedDict, defaultdict, deque
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from soupcore.safe_torch import rewriting
from soupcore.safe_torch.formats import read_tree
from soupcore.safe_torch.refusal import Refusal
from soupcore.safe_torch.values import Global, Inert, Ordered
from soupcore.safe_torch.writer import Stored, are_alike, pickled
from tests.safe_torch.torch_files import machine

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3, 4, 5])


def read(data: bytes) -> Any:
    return rewriting.read_plainly(data).tree


def again(value: object, protocol: int = 2) -> Any:
    written = pickled(read(pickle.dumps(value, protocol)))
    assert are_alike(read(written), read(pickle.dumps(value, protocol)))
    assert pickled(read(written)) == written
    return pickle.loads(written)  # noqa: S301 - of our own making


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.sets(st.text() | st.integers(-9, 9))
    | st.frozensets(st.text()),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner, inner, inner)
        | st.dictionaries(st.text() | st.integers(-9, 9), inner)
    ),
    max_leaves=20,
)


@given(plain, st.integers(2, 5))
def test_plain_values_round_trip(value: object, protocol: int) -> None:
    assert again(value, protocol) == value


@PROTOCOLS
@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(b=1, a=OrderedDict()),
        defaultdict(list, a=[1]),
        Counter("aab"),
        deque([1, 2], maxlen=3),
        bytearray(b"\x00\xff"),
        b"",
        1 << 100,
        -(1 << 31) - 1,
        1 + 2j,
        PurePosixPath("/a/b"),
        slice(1, None),
        float("inf"),
        -0.0,
        "\ud800",
        list(range(300)) + [f"text {n}" for n in range(300)],
        {"class": int, "dtype": torch.float16},
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_round_trip(value: object, protocol: int) -> None:
    found = again(value, protocol)
    assert (type(found), repr(found)) == (type(value), repr(value))


@PROTOCOLS
def test_objects_round_trip_with_their_attributes(protocol: int) -> None:
    found = again(SimpleNamespace(a=1, b=[2]), protocol)
    assert found == SimpleNamespace(a=1, b=[2])
    ordered = OrderedDict(a=1)
    ordered.note = "x"  # type: ignore[attr-defined]
    assert again(ordered, protocol).note == "x"
    layer = again(nn.ReLU(), protocol)
    assert type(layer) is nn.ReLU
    assert layer.__dict__.keys() == nn.ReLU().__dict__.keys()


@PROTOCOLS
def test_shared_and_recursive_values_round_trip(protocol: int) -> None:
    part: list[Any] = [1]
    whole: dict[str, Any] = {"a": part, "b": part, "other": [1]}
    whole["whole"] = whole
    pair = (part, whole)
    part.append(pair)
    found = again((whole, pair), protocol)
    assert found[0]["a"] is found[0]["b"] is found[1][0]
    assert found[0]["other"] is not found[0]["a"]
    assert found[0]["whole"] is found[0] is found[1][1]
    assert found[1][0][1] is found[1]


def test_repeated_texts_and_classes_are_written_once() -> None:
    text = "a rather long text " * 9
    namespaces = [SimpleNamespace(key=text) for _ in range(50)]
    written = pickled(read(pickle.dumps(namespaces, 2)))
    assert written.count(text.encode()) == 1
    assert written.count(b"SimpleNamespace") == 1
    assert {opcode.name for opcode, *_ in pickletools.genops(written)} <= {
        *("PROTO", "EMPTY_LIST", "BINPUT", "MARK", "GLOBAL", "EMPTY_TUPLE", "REDUCE", "EMPTY_DICT"),
        *("BINUNICODE", "SETITEMS", "BUILD", "BINGET", "APPENDS", "STOP"),
    }


def test_a_large_memo_is_written() -> None:
    lists = [[n] for n in range(70_000)]
    found = again([*lists, lists[-1]])
    assert found[-1] is found[-2]
    assert found[:-1] == lists


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (Global("module:Outer.Inner"), "cannot name"),
        (Global("möbius.Class"), "cannot name"),
        (1 << 3_000, "more than 2,039 bits"),
        (object(), "holds a object"),
        ({frozenset("a")}, "set with elements that are not plain"),
    ],
)
def test_values_that_protocol_2_cannot_represent_are_refused(value: object, problem: str) -> None:
    with pytest.raises(Refusal, match=problem):
        pickled([value])


SHARED: list[Any] = [1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1], [2]),
        ([1], [1, 1]),
        ([1], (1,)),
        ([True], [1]),
        ([0.0], [-0.0]),
        ({"a": 1}, {"b": 1}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ([SHARED, SHARED], [[1], [1]]),
        ([[1], [1]], [SHARED, SHARED]),
        (Global("a.b"), Global("a.c")),
        (Stored(1), Stored(2)),
        (Inert("a", (), True), Inert("a", (), False)),
        (Inert("a", (), True), Inert("a", (), True, state={})),
        ({1}, {2}),
        (Ordered(), {}),
    ],
)
def test_different_trees_are_not_alike(one: object, other: object) -> None:
    assert not are_alike([one], [other])
    assert are_alike([one], [one])


def test_storages_are_named_as_before() -> None:
    saved = io.BytesIO()
    torch.save({"w": torch.ones(3), "p": nn.Parameter(torch.ones(2))}, saved)
    tree = machine(pickled(read_of(saved))).load()
    assert tree["w"].args[0] == ("stored", tree["w"].args[0][1])
    assert tree["w"].args[0][1][1:] != tree["p"].args[0].args[0][1][1:]


def read_of(saved: io.BytesIO) -> Any:
    runs: list[Any] = []

    def run(*arguments: Any) -> Any:
        runs.append(rewriting.Recorder(*arguments))
        return runs[-1]

    read_tree(saved, run)
    return read(runs[0].data)
