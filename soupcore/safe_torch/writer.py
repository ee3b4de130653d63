"""Writing of pickles from inert values: the inverse of `machine`.

A pickle has protocol 2 and only opcodes that `torch.save` writes. Unpickling it gives equal objects
that share the same parts. Writing imports and calls nothing.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from soupcore.safe_torch.refusal import Refusal
from soupcore.safe_torch.values import Global, Inert, Ordered

_ORDERED = Global("collections.OrderedDict")
_ENCODE, _BYTES = Global("_codecs.encode"), Global("builtins.bytes")
_BYTEARRAY = Global("builtins.bytearray")
_SET, _FROZENSET = Global("builtins.set"), Global("builtins.frozenset")
_TUPLES = {1: b"\x85", 2: b"\x86", 3: b"\x87"}


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """Data outside the pickle.

    Attributes:
        pid: Its persistent id in the pickle.
    """

    pid: Any


def pickled(tree: Any) -> bytes:
    """Return a pickle of `tree`.

    Args:
        tree: Plain values, `Global`, `Inert`, `Ordered` and `Stored`. They may share parts and
            contain themselves.

    Raises:
        Refusal: It contains a value that protocol 2 cannot represent.
    """
    return _Writer().written(tree)


def are_alike(one: Any, other: Any) -> bool:
    """Return whether two trees are equal, and share the same parts."""
    pairs = [(one, other)]
    counterparts: dict[int, Any] = {}
    taken: set[int] = set()
    while pairs:
        left, right = pairs.pop()
        if type(left) is not type(right):
            return False
        if isinstance(left, dict | list | tuple | Inert | Stored) and left != ():
            if id(left) in counterparts:
                if counterparts[id(left)] is not right:
                    return False
                continue
            # Equal tuples may or may not be the same object, since tuples are immutable.
            if type(left) is not tuple and id(right) in taken:
                return False
            counterparts[id(left)] = right
            taken.add(id(right))
            parts, others = _parts(left), _parts(right)
            if len(parts) != len(others):
                return False
            pairs += zip(parts, others, strict=True)
        elif isinstance(left, set | frozenset):
            if _sorted(left) != _sorted(right):
                return False
        elif not _same_plain(left, right):
            return False
    return True


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        state = [value.state] if type(value) is Ordered else []
        return [*value.keys(), *value.values(), *state]
    if type(value) is Inert:
        return [value.path, value.called, value.args, value.items, value.entries, value.state]
    return [value.pid] if type(value) is Stored else list(value)


def _same_plain(one: Any, other: Any) -> bool:
    if type(one) is Global:
        return bool(one.path == other.path)
    if type(one) is float:
        return struct.pack(">d", one) == struct.pack(">d", other)  # NaN equals NaN, not -0.0 0.0
    return bool(one == other)


def _sorted(values: Any) -> list[str]:
    """Return the elements of a set as strings, in an order that does not depend on their hashes."""
    return sorted(map(_as_text, values))


def _as_text(value: Any) -> str:
    if type(value) is Global:
        return value.path
    if type(value) is Inert or type(value) is frozenset:
        raise Refusal("It holds a set with elements that are not plain values.")
    return repr(value)


@dataclass(frozen=True, slots=True)
class _Then:
    """A step to run after the parts of a value are written."""

    run: Callable[[], object]


class _Writer:
    def __init__(self) -> None:
        self._out = bytearray(b"\x80\x02")
        self._memo: dict[int, int] = {}
        self._texts: dict[str, int] = {}
        self._kept: list[Any] = []  # keeps the memo's objects alive, so that ids stay unique
        self._todo: list[Any] = []
        self._classes: dict[str, Global] = {}  # by path, so that each is named once

    def written(self, tree: Any) -> bytes:
        self._todo = [tree]
        while self._todo:
            step = self._todo.pop()
            if type(step) is _Then:
                step.run()
            else:
                self._write(step)
        return bytes(self._out + b".")

    def _next(self, *steps: Any) -> None:
        self._todo += reversed(steps)

    def _emit(self, code: bytes) -> _Then:
        return _Then(lambda: self._out.extend(code))

    def _remember(self, value: Any) -> None:
        self._memo[id(value)] = self._put()
        self._kept.append(value)

    def _put(self) -> int:
        place = len(self._memo) + len(self._texts)
        self._out += b"q" + bytes([place]) if place < 256 else b"r" + struct.pack("<I", place)
        return place

    def _get(self, place: int) -> None:
        self._out += b"h" + bytes([place]) if place < 256 else b"j" + struct.pack("<I", place)

    def _write(self, value: Any) -> None:
        if id(value) in self._memo:
            self._get(self._memo[id(value)])
            return
        kind = type(value)
        if value is None or kind is bool:
            self._out += {None: b"N", True: b"\x88", False: b"\x89"}[value]
        elif kind is int:
            self._int(value)
        elif kind is float:
            self._out += b"G" + struct.pack(">d", value)
        elif kind is str:
            self._text(value)
        elif kind is tuple:
            self._tuple(value)
        elif kind is list:
            self._out += b"]"
            self._remember(value)
            self._items(value)
        elif kind is dict:
            self._out += b"}"
            self._remember(value)
            self._entries(value)
        elif kind is Ordered:
            self._next(_ORDERED, _Then(lambda: self._fill(value, b")R", [], value, value.state)))
        elif kind is Inert:
            self._inert(value)
        elif kind is Global:
            self._global(value)
        elif kind is Stored:
            self._next(value.pid, self._emit(b"Q"))
        else:
            self._other(value)

    def _other(self, value: Any) -> None:
        """Write a value for which protocol 2 has no opcode as a call, as Python does."""
        call: tuple[Global, tuple[Any, ...]]
        if type(value) is bytes and value:
            call = _ENCODE, (value.decode("latin1"), "latin1")
        elif type(value) is bytes:
            call = _BYTES, ()
        elif type(value) is bytearray:
            call = _BYTEARRAY, (value.decode("latin1"), "latin-1")
        elif isinstance(value, set | frozenset):
            ordered = sorted(value, key=_as_text)
            call = _SET if type(value) is set else _FROZENSET, (ordered,)
        else:
            raise Refusal(f"It holds a {type(value).__name__}, which cannot be written.")
        self._kept.append(call)
        self._next(*call, self._emit(b"R"), _Then(lambda: self._remember(value)))

    def _int(self, value: int) -> None:
        if 0 <= value < 1 << 8:
            self._out += b"K" + bytes([value])
        elif 0 <= value < 1 << 16:
            self._out += b"M" + struct.pack("<H", value)
        elif -(1 << 31) <= value < 1 << 31:
            self._out += b"J" + struct.pack("<i", value)
        else:
            content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            if len(content) > 255:
                raise Refusal("It holds an integer of more than 2,039 bits.")
            self._out += b"\x8a" + bytes([len(content)]) + content

    def _text(self, value: str) -> None:
        if value in self._texts:
            self._get(self._texts[value])
            return
        content = value.encode("utf-8", "surrogatepass")
        self._out += b"X" + struct.pack("<I", len(content)) + content
        self._texts[value] = self._put()

    def _global(self, value: Global) -> None:
        if (known := self._classes.setdefault(value.path, value)) is not value:
            self._write(known)
            return
        module, _, name = value.path.rpartition(".")
        if ":" in value.path or not module or not value.path.isascii():
            raise Refusal(f"It names {value.path}, which protocol 2 cannot name.")
        self._out += b"c" + f"{module}\n{name}\n".encode()
        self._remember(value)

    def _tuple(self, value: tuple[Any, ...]) -> None:
        if not value:
            self._out += b")"
        elif (code := _TUPLES.get(len(value))) is not None:
            self._next(*value, _Then(lambda: self._made(value, code, b"0" * len(value))))
        else:
            self._out += b"("
            self._next(*value, _Then(lambda: self._made(value, b"t", b"1")))

    def _inert(self, value: Inert) -> None:
        code = b"R" if value.called else b"\x81"
        self._next(
            self._classes.setdefault(value.path, Global(value.path)),
            value.args,
            _Then(lambda: self._fill(value, code, value.items, value.entries, value.state)),
        )

    def _made(self, value: Any, code: bytes, drop: bytes) -> bool:
        """Finish a value made of parts; return False if it exists already."""
        if id(value) in self._memo:  # a part contains the whole
            self._out += drop
            self._get(self._memo[id(value)])
            return False
        self._out += code
        self._remember(value)
        return True

    def _fill(
        self, value: Any, code: bytes, items: list[Any], entries: dict[Any, Any], state: Any
    ) -> None:
        drop = b"0" if code == b")R" else b"00"
        if not self._made(value, code, drop):
            return
        if state is not None:
            self._next(state, self._emit(b"b"))
        self._entries(entries)
        self._items(items)

    def _items(self, items: list[Any]) -> None:
        if items:
            self._next(self._emit(b"("), *items, self._emit(b"e"))

    def _entries(self, entries: dict[Any, Any]) -> None:
        if entries:
            flat = [part for pair in entries.items() for part in pair]
            self._next(self._emit(b"("), *flat, self._emit(b"u"))
