import argparse
import collections
import enum
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soupcore.safe_torch import machine as machines
from soupcore.safe_torch import values
from soupcore.safe_torch.refusal import Refusal
from soupcore.safe_torch.tensors import CALLS
from soupcore.safe_torch.values import Global, Inert, Ordered
from tests.safe_torch.torch_files import machine, path_of, unpickled

PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3, 4, 5])

keys = st.one_of(
    st.text(), st.integers(-(1 << 59), 1 << 59), st.booleans(), st.none(), st.binary(max_size=8)
)
plain = st.recursive(
    st.one_of(
        keys,
        st.integers(-(1 << 700), 1 << 700),
        st.floats(allow_nan=False),
        st.binary(max_size=300),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(keys | st.tuples(keys, keys), inner, max_size=5),
    ),
    max_leaves=30,
)


in_python = vars(pickle)["_dumps"]  # it uses other opcodes than the one in C here and there


@given(plain, st.sampled_from([2, 3, 4, 5]), st.sampled_from([pickle.dumps, in_python]))
def test_plain_values_are_those_that_were_pickled(
    value: object, protocol: int, dumps: Callable[[object, int], bytes]
) -> None:
    loaded = machine(dumps(value, protocol), CALLS).load()
    assert loaded == value
    assert repr(loaded) == repr(value)  # True is no 1


@given(st.sets(keys) | st.frozensets(keys) | st.sets(st.tuples(keys, keys)), st.integers(2, 5))
def test_sets_are_those_that_were_pickled(value: object, protocol: int) -> None:
    loaded = machine(pickle.dumps(value, protocol), CALLS).load()
    assert (loaded, type(loaded)) == (value, type(value))


def is_read_or_refused(data: bytes) -> bool:
    try:
        machine(data).load()
    except Refusal as refusal:
        return str(refusal).endswith(".")
    return True


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    assert is_read_or_refused(b"\x80\x02" + data)


@given(st.data())
def test_a_pickle_with_a_few_bytes_changed_is_a_value_or_refused(data: st.DataObject) -> None:
    honest = pickle.dumps({"a": [1, (2, "x")], "b": Settings(3), "c": {4}}, 4)
    changed = bytearray(honest)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(honest) - 1))] = data.draw(st.integers(0, 255))
    assert is_read_or_refused(bytes(changed))


@dataclass
class Settings:
    rate: float


class Slotted:
    __slots__ = ("__dict__", "a")

    def __init__(self) -> None:
        self.a, self.b = 1, 2


class Words(list[str]):
    pass


class Named(dict[str, int]):
    pass


class Kind(enum.Enum):
    FIRST = "first"


class Outer:
    class Inner:
        pass


class Called:
    def __reduce__(self) -> Any:
        return print, ("never",), {"x": 1}, iter([2, 3]), iter([("k", 4)])


HERE = __name__


@PROTOCOLS
def test_instances_are_recorded_and_not_made(protocol: int) -> None:
    made = unpickled(Settings(0.5), protocol)
    assert isinstance(made, Inert)
    assert (made.path, made.args, made.attributes) == (f"{HERE}.Settings", (), {"rate": 0.5})
    assert not made.called
    assert unpickled(argparse.Namespace(lr=1), protocol).attributes == {"lr": 1}
    assert unpickled(Slotted(), protocol).attributes == {"a": 1, "b": 2}
    words = unpickled(Words(["x", "y"]), protocol)
    assert (words.path, words.items) == (f"{HERE}.Words", ["x", "y"])
    assert unpickled(Named(a=1), protocol).entries == {"a": 1}
    assert isinstance(unpickled(collections.OrderedDict(a=1), protocol), Inert | Ordered)


@PROTOCOLS
def test_calls_are_recorded_and_not_made(protocol: int, capsys: pytest.CaptureFixture[str]) -> None:
    made = unpickled(Called(), protocol)
    assert (made.path, made.called) == ("builtins.print", True)
    assert (made.args, made.state, made.items) == (("never",), {"x": 1}, [2, 3])
    assert made.entries == {"k": 4}
    assert capsys.readouterr().out == ""
    assert unpickled(Kind.FIRST, protocol).args == ("first",)
    assert unpickled(date(2024, 1, 2), protocol).path == "datetime.date"
    assert unpickled(PurePosixPath("a/b"), protocol).args == ("a", "b")
    factory = unpickled(collections.defaultdict(list, a=[1]), protocol)
    assert (path_of(factory.args[0]), factory.entries) == ("builtins.list", {"a": [1]})


def test_names_are_those_of_python_3_and_each_path_is_one_import() -> None:
    assert path_of(unpickled(int, 2)) == "builtins.int"  # written as __builtin__.int
    assert path_of(unpickled(int, 4)) == "builtins.int"
    assert path_of(machine(b"\x80\x04c__builtin__\nint\n.").load()) == "__builtin__.int"
    assert path_of(unpickled(Outer.Inner, 4)) == f"{HERE}:Outer.Inner"
    assert path_of(machine(b"\x80\x02ca.b\nc.d\n.").load()) == "a.b:c.d"


def test_one_object_in_many_places_stays_one() -> None:
    shared = Settings(1)
    first, second = unpickled([shared, shared])
    assert first is second
    loop: list[Any] = []
    loop.append(loop)
    loaded = unpickled(loop)
    assert loaded[0] is loaded


def test_storages_are_requested_by_their_id() -> None:
    assert machine(b"\x80\x02X\x01\0\0\0kQ.").load() == ("stored", "k")


def test_several_pickles_in_a_row_are_read_one_by_one() -> None:
    two = machine(pickle.dumps([1], 2) + pickle.dumps("x", 4) + b"rest")
    assert (two.load(), two.load()) == ([1], "x")
    assert two.position == len(pickle.dumps([1], 2) + pickle.dumps("x", 4))


@pytest.mark.parametrize(
    ("program", "made"),
    [
        pytest.param(b"U\x02ab.", "ab", id="short text"),
        pytest.param(b"T\x02\0\0\0\xc3\xa9.", "é", id="text"),
        pytest.param(b"U\x01\xff.", "\udcff", id="bytes that are no text"),
        pytest.param(b"I12345678901\n.", 12345678901, id="long integer"),
        pytest.param(b"\x8a\x05\xff\xff\xff\xff\x00.", 0xFFFFFFFF, id="LONG1"),
        pytest.param(b"\x8a\x00.", 0, id="LONG1 of nothing"),
        pytest.param(b"J\xff\xff\xff\xff.", -1, id="BININT"),
    ],
)
def test_pickles_of_python_2_are_read(program: bytes, made: object) -> None:
    assert machine(b"\x80\x02" + program).load() == made


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (b"ios\nsystem\n", "opcode INST"),
        (b"(cos\nsystem\no", "opcode OBJ"),
        (b"\x82\x01", "opcode EXT1"),
        (b"\x83\x01\0", "opcode EXT2"),
        (b"\x84\x01\0\0\0", "opcode EXT4"),
        (b"Pid\n", "opcode PERSID"),
        (b"\x97", "opcode NEXT_BUFFER"),
        (b"\x98", "opcode READONLY_BUFFER"),
        (b"\x8b\x01\0\0\0\1", "opcode LONG4"),
        (b"N2", "opcode DUP"),
        (b"L1L\n", "opcode LONG"),
        (b"F1.0\n", "opcode FLOAT"),
        (b"S'x'\n", "opcode STRING"),
        (b"Vx\n", "opcode UNICODE"),
        (b"(l", "opcode LIST"),
        (b"(d", "opcode DICT"),
        (b"Np0\n", "opcode PUT"),
        (b"g0\n", "opcode GET"),
        (b"\xff", "opcode 0xff"),
        (b"\x80\x01", "protocol 1"),
        (b"\x80\x06", "protocol 6"),
        (b"N)R", "calls something that is not a named"),
        (b"ca\nb\nNR", "calls something that is not a named"),
        (b"ca\nb\n)R)R", "calls something that is not a named"),
        (b"N)\x81", "instance of something that is not a named"),
        (b"ca\nb\n)N\x92", "NEWOBJ_EX with wrong arguments"),
        (b"ca\nb\n}b", "BUILD on an object that is not a new"),
        (b"}}b", "BUILD on an object that is not a new"),
        (b"ca\nb\n)\x81}b}b", "BUILD twice on the same object"),
        (b"ccollections\nOrderedDict\n)\x81}b}b", "BUILD twice on the same object"),
        (b"NNa", "appends to something that is not a list"),
        (b"N(N\x90", "adds to something that is not a set"),
        (b"NNNs", "sets items of something that is not a dict"),
        (b"}(Nu", "a key without a value"),
        (b"}]Ns", "a key, .* that is a list"),
        (b"}))\x86Ns", "a key, .* that is a tuple with more than 16 or other"),
        (b"\x8f(\x8a\x10" + bytes(15) + b"\1\x90", "an integer of more than 60 bits"),
        (b"K\1K\2\x93", "a name that is not a string"),
        (b"c../x\nb\n", "not a Python name"),
        (b"c\n\n", "not a Python name"),
        (b"ca b\nc\n", "not a Python name"),
        (b"ca\xff\nb\n", "damaged"),
        (b"c" + b"a" * 600 + b"\nb\n", "a name longer than the limit"),
        (b"I" + b"1" * 30 + b"\n", "an integer .INT. longer than the limit"),
        (b"Ix\n", "damaged .INT"),
        (b"h\0", "its memo has no such index"),
        (b"Nr\xff\xff\xff\xff", "memo index above the limit"),
        (b"t", "damaged .TUPLE finds nothing"),
        (b"\x87", "damaged .TUPLE3 finds nothing"),
        (b"a", "damaged .APPEND finds nothing"),
        (b"\x8c\x02\xff\xff", "damaged .SHORT_BINUNICODE"),
    ],
)
def test_opcodes_that_torch_never_writes_are_refused_by_name(program: bytes, problem: str) -> None:
    with pytest.raises(Refusal, match=problem):
        machine(b"\x80\x02" + program + b".").load()


@pytest.mark.parametrize(
    "promise",
    [
        pytest.param(b"\x96" + struct.pack("<Q", 1 << 40), id="BYTEARRAY8"),
        pytest.param(b"\x8e" + struct.pack("<Q", 1 << 62), id="BINBYTES8"),
        pytest.param(b"\x8d" + struct.pack("<Q", (1 << 64) - 1), id="BINUNICODE8"),
        pytest.param(b"T\xff\xff\xff\xff", id="BINSTRING"),
        pytest.param(b"\x95" + struct.pack("<Q", 1 << 60), id="FRAME"),
        pytest.param(b"X\4\0\0", id="BINUNICODE"),
        pytest.param(b"N", id="NONE"),
    ],
)
def test_a_value_longer_than_the_pickle_is_refused_by_its_opcode(
    promise: bytes, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(Refusal, match=f"ends in the middle, at {request.node.callspec.id}"):
        machine(b"\x80\x04" + promise).load()


# Two objects and for both of them one state of two entries: 13 opcodes.
_BUILT_WITH_ONE_STATE = b"}(K\1NK\2Nuq\0ca\nb\n)\x81h\0bca\nb\n)\x81h\0b"


@pytest.mark.parametrize(
    ("module", "limit", "most", "program", "problem"),
    [
        (machines, "MOST_OPERATIONS", 9, b"N0" * 5, "more operations than the limit of 9"),
        (machines, "MOST_OPERATIONS", 13, _BUILT_WITH_ONE_STATE, "more operations than"),
        (machines, "DEEPEST_MARK", 3, b"((((", "nested deeper than the limit of 3"),
        (machines, "MOST_GLOBALS", 2, b"ca\nb\nca\nc\nca\nd\n", "more classes than the limit of 2"),
        (values, "MOST_TUPLE_KEYS", 1, b"}))s))s", "a tuple, more than 1 times"),
    ],
)
def test_the_memory_of_values_is_limited(
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    limit: str,
    most: int,
    program: bytes,
    problem: str,
) -> None:
    machine(b"\x80\x02N.").load()
    monkeypatch.setattr(module, limit, most)
    with pytest.raises(Refusal, match=problem):
        machine(b"\x80\x02" + program + b".").load()


def test_the_memory_of_emulated_calls_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "MOST_ALLOCATED", 99)
    greedy = machine(b"\x80\x02ca\nb\n)R.", {"a.b": lambda machine, args: machine.allocate(100)})
    with pytest.raises(Refusal, match="expands to more than the limit of 99 bytes"):
        greedy.load()


def test_wrong_arguments_of_an_emulated_call_are_refused_by_its_name() -> None:
    def two(machine: object, args: tuple[Any, ...]) -> object:
        one, other = args
        return one, other

    with pytest.raises(Refusal, match=r"calls a\.b with wrong arguments"):
        machine(b"\x80\x02ca\nb\n)R.", {"a.b": two}).load()


def test_a_callback_may_refuse_names() -> None:
    def refuse(path: str) -> None:
        raise Refusal(f"{path}!")

    with pytest.raises(Refusal, match=r"a\.b!"):
        machines.Machine(b"\x80\x02ca\nb\n.", {}, lambda pid: None, refuse).load()


def test_values_of_the_machine_have_no_attributes() -> None:
    loaded = machine(b"\x80\x02ca\nb\n.").load()
    assert isinstance(loaded, Global)
    assert not hasattr(loaded, "__dict__")


def test_values_are_distinguished_from_classes_and_calls() -> None:
    program = (
        b"\x80\x02](ca\nMade\nq\0)\x81h\0)\x81ca\nCalled\n)Rca\nValue\nca\nBoth\nq\1h\1)\x81e."
    )
    loaded = machine(program)
    loaded.load()
    assert loaded.values == {"a.Value", "a.Both"}
    assert set(loaded.named) == {"a.Made", "a.Called", "a.Value", "a.Both"}


def test_called_values_stay_values() -> None:
    def call_first(machine: machines.Machine, args: tuple[Any, ...]) -> Any:
        return machine.call(*args)

    calls: dict[str, machines.Call] = {"a.call": call_first}
    value_in_a_tuple = b"\x80\x02](ca\nValue\n)\x86q\0"
    again = b"ca\ncall\nh\0R"
    by_call = machine(value_in_a_tuple + again + again + b"e.", calls)
    by_call.load()
    assert by_call.values == {"a.Value"}
    by_id = machines.Machine(value_in_a_tuple + b"h\0Q)R" * 2 + b"e.", {}, lambda pid: pid[0])
    by_id.load()
    assert by_id.values == {"a.Value"}


def test_attributes_that_python_looks_up_are_reported() -> None:
    loaded = machine(pickle.dumps([Settings(1), Slotted()], 4))
    loaded.load()
    assert loaded.hidden == set()
    odd = Settings(1)
    odd.__dict__["__setstate__"] = 1
    loaded = machine(pickle.dumps(odd, 4))
    loaded.load()
    assert loaded.hidden == {"__setstate__"}
