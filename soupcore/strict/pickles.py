"""A pickle machine that builds inert values and nothing else.

A pickle is a program for a small stack machine. Python's own machine imports what the program names
and calls what it likes. This one knows only the opcodes that `torch.save` writes (pickle protocols
2 to 5); whatever a program names from outside becomes a `Global`, an object that does nothing, and
whatever it calls or makes becomes an `Inert`, a note of what was to be made out of what. The few
calls that say where weights are come as functions of ours (see `soupcore.strict.tensors`).

It is written out, rather than derived from `pickle._Unpickler`, so that no opcode is inherited:
what is not in this file is refused. Everything that a program can make large is counted.

Opcodes: Lib/pickletools.py of CPython.
"""

import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from soupcore.strict.refusal import Refusal

MOST_BYTES = 16 << 20
MOST_OPERATIONS = 4_000_000
MOST_ALLOCATED = 256 << 20  # bytes that calls of ours may make, beside the values in the pickle
MOST_GLOBALS = 10_000
LONGEST_GLOBAL = 512
DEEPEST_MARK = 1_000
MOST_IN_A_KEY = 16


class Global:
    """Something that the pickle names: a class, a function. It is neither imported nor called.

    Attributes:
        path: Module and name. A dot joins them, or a colon where the name itself has dots, so that
            each path stands for one import only.
    """

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path


@dataclass(eq=False, slots=True)
class Inert:
    """What the pickle wanted to make by a call or from a class, as a note of how.

    Attributes:
        path: Path of the class or function.
        args: What it was to be given.
        called: Whether it was to be called, or, being a class, only to make an empty instance.
        state: What the object was to be set to, most often its `__dict__`.
        items: What was to be appended or added to it.
        entries: What was to be set in it by key.
    """

    path: str
    args: tuple[Any, ...]
    called: bool
    state: Any = None
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)

    @property
    def attributes(self) -> dict[Any, Any]:
        """The object's attributes, as Python would have set them from `state`."""
        parts = self.state if isinstance(self.state, tuple) else (self.state,)
        found: dict[Any, Any] = {}
        for part in parts[:2]:  # the second one of a pair holds the slots
            if isinstance(part, dict):
                found.update(part)
        return found


class Ordered(dict[Any, Any]):
    """A `collections.OrderedDict`: unlike a dict it may be given attributes, which we drop."""


Call = Callable[["Machine", tuple[Any, ...]], Any]


class Machine:
    """One run over pickles that belong together.

    Args:
        data: Bytes that hold pickles.
        calls: What to do instead of calling a global, by path. All others make an `Inert`.
        persistent: What an object that is stored outside the pickle stands for, by its id.

    Attributes:
        position: Where the next pickle starts.
        named: Paths of all globals that the pickles name.
        instances: All that they would make, in the order of making.
    """

    def __init__(
        self,
        data: bytes,
        calls: Mapping[str, Call],
        persistent: Callable[[Any], Any],
    ) -> None:
        self.position = 0
        self.named: dict[str, Global] = {}
        self.instances: list[Inert] = []
        self._data = data
        self._calls = calls
        self._persistent = persistent
        self._operations = 0
        self._allocated = 0

    def load(self) -> Any:
        """Run the pickle at `position` and return what it makes.

        Raises:
            Refusal: It is damaged, or not what `torch.save` writes, or too much.
        """
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._protocol = 0
        data = self._data
        try:
            while True:
                code = data[self.position]
                self.position += 1
                self.spend(1)
                if code == _STOP:
                    return self._stack.pop()
                run = _OPCODES.get(code)
                if run is None:
                    name = _REFUSED.get(code, f"{code:#04x}")
                    raise Refusal(
                        f"Its pickle uses the opcode {name}, which torch.save never writes."
                    )
                run(self)
        except (IndexError, struct.error):
            raise Refusal(
                "Its pickle breaks off in the middle; the file is damaged or cut short."
                if self.position >= len(data)
                else "Its pickle is damaged (it takes from an empty stack)."
            ) from None
        except (ValueError, TypeError, RecursionError) as error:  # bad text, numbers, arguments
            raise Refusal(f"Its pickle is damaged ({error}).") from None

    def spend(self, operations: int) -> None:
        """Count work.

        Raises:
            Refusal: It is more than any checkpoint takes.
        """
        self._operations += operations
        if self._operations > MOST_OPERATIONS:
            raise Refusal(f"Its pickle takes more than {MOST_OPERATIONS:,} steps.")

    def allocate(self, nbytes: int) -> None:
        """Count memory that does not lie in the pickle itself.

        Raises:
            Refusal: It is more than any checkpoint takes.
        """
        self._allocated += nbytes
        if self._allocated > MOST_ALLOCATED:
            raise Refusal(f"Its pickle unfolds to more than {MOST_ALLOCATED >> 20} MiB.")

    # Reading the program.

    def _take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self._data):
            self.position = len(self._data)
            raise IndexError
        taken = self._data[self.position : end]
        self.position = end
        return taken

    def _number(self, form: struct.Struct) -> Any:
        (number,) = form.unpack_from(self._data, self.position)
        self.position += form.size
        return number

    def _line(self) -> bytes:
        end = self._data.find(b"\n", self.position, self.position + LONGEST_GLOBAL)
        if end < 0:
            raise Refusal(f"Its pickle has a name of more than {LONGEST_GLOBAL} bytes.")
        line = self._data[self.position : end]
        self.position = end + 1
        return line

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _pop_mark_away(self) -> None:
        self._pop_mark()

    # One method for each opcode that does more than push what it reads.

    def _proto(self) -> None:
        self._protocol = self._take(1)[0]
        if not 2 <= self._protocol <= 5:
            raise Refusal(f"Its pickle has protocol {self._protocol}; torch.save writes 2 to 5.")

    def _frame(self) -> None:
        if self._number(_U64) > len(self._data) - self.position:
            raise Refusal("Its pickle breaks off in the middle; the file is damaged or cut short.")

    def _mark(self) -> None:
        if len(self._marks) >= DEEPEST_MARK:
            raise Refusal(f"Its pickle is nested more than {DEEPEST_MARK} deep.")
        self._marks.append(self._stack)
        self._stack = []

    def _long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._take(1)[0]), "little", signed=True))

    def _python2_int(self) -> None:
        self._stack.append(int(self._line()))

    def _tuple(self, size: int) -> None:
        if len(self._stack) < size:
            raise IndexError
        self._stack[-size:] = [tuple(self._stack[-size:])]

    def _marked_tuple(self) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def _frozenset(self) -> None:
        items = self._pop_mark()
        self._stack.append(frozenset(plain_key(item) for item in items))

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is Inert:
            target.items.extend(items)
        else:
            raise Refusal("Its pickle appends to something that is not a list.")

    def _append_one(self) -> None:
        self._append([self._stack.pop()])

    def _appends(self) -> None:
        self._append(self._pop_mark())

    def _add_items(self) -> None:
        items = self._pop_mark()
        target = self._stack[-1]
        if type(target) is set:
            target.update(plain_key(item) for item in items)
        elif type(target) is Inert:
            target.items.extend(items)
        else:
            raise Refusal("Its pickle adds to something that is not a set.")

    def _set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is Inert:
            target = target.entries
        elif not isinstance(target, dict):
            raise Refusal("Its pickle sets items of something that is not a dict.")
        if len(items) % 2:
            raise Refusal("Its pickle is damaged (a key without a value).")
        for index in range(0, len(items), 2):
            target[plain_key(items[index])] = items[index + 1]

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _set_marked_items(self) -> None:
        self._set_items(self._pop_mark())

    def _push_global(self, module: str, name: str) -> None:
        if self._protocol < 3:  # as Python does with what Python 2 wrote
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[module, name]
            else:
                module = IMPORT_MAPPING.get(module, module)
        path = f"{module}{':' if '.' in name else '.'}{name}"
        self._stack.append(self.named_global(path))

    def named_global(self, path: str) -> Global:
        """Return the global of a path, and remember that it was named.

        Raises:
            Refusal: It is no Python name, or there are too many.
        """
        parts = path.replace(":", ".").split(".")
        if len(path) > LONGEST_GLOBAL or not all(
            part and part.isprintable() and not any(mark in part for mark in " /\\")
            for part in parts
        ):
            raise Refusal(f"Its pickle names {path[:80]!r}, which is not a Python name.")
        if path not in self.named:
            if len(self.named) >= MOST_GLOBALS:
                raise Refusal(f"Its pickle names more than {MOST_GLOBALS:,} classes or functions.")
            self.named[path] = Global(path)
        return self.named[path]

    def _global(self) -> None:
        module = self._line().decode()
        self._push_global(module, self._line().decode())

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise Refusal("Its pickle names something by what is not text.")
        self._push_global(module, name)

    def _reduce(self) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self.call(function, args))

    def call(self, function: Any, args: Any) -> Any:
        """Return what stands for `function(*args)`.

        Raises:
            Refusal: It is not a call of something named, or one of ours with wrong arguments.
        """
        if type(function) is not Global or type(args) is not tuple:
            raise Refusal("Its pickle calls something that is not a named class or function.")
        self.spend(1)
        if handler := self._calls.get(function.path):
            return handler(self, args)
        return self.inert(function.path, args, called=True)

    def make(self, cls: Any, args: Any) -> Any:
        """Return what stands for an instance of `cls` made by `cls.__new__(cls, *args)`.

        Raises:
            Refusal: `cls` is not something named.
        """
        if type(cls) is not Global or type(args) is not tuple:
            raise Refusal("Its pickle makes an instance of something that is not a named class.")
        if cls.path == "collections.OrderedDict":
            return Ordered()
        return self.inert(cls.path, args, called=False)

    def inert(self, path: str, args: tuple[Any, ...], *, called: bool) -> Inert:
        """Return a note of something that the pickle would make, and remember it."""
        made = Inert(path, args, called)
        self.instances.append(made)
        return made

    def _new_object(self) -> None:
        args, cls = self._stack.pop(), self._stack.pop()
        self._stack.append(self.make(cls, args))

    def _new_object_with_keywords(self) -> None:
        keywords, args, cls = self._stack.pop(), self._stack.pop(), self._stack.pop()
        made = self.make(cls, args)
        if type(keywords) is not dict:
            raise Refusal("Its pickle is damaged (keywords that are not a dict).")
        if type(made) is Inert:
            made.entries.update(keywords)
        self._stack.append(made)

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if type(target) is Ordered:
            return
        if type(target) is not Inert:
            raise Refusal("Its pickle changes something that is not an instance of its making.")
        if target.state is not None:
            raise Refusal("Its pickle sets one object twice.")
        target.state = state

    def _persistent_id(self) -> None:
        self._stack.append(self._persistent(self._stack.pop()))

    def _put(self, index: int) -> None:
        if index > MOST_OPERATIONS:
            raise Refusal(f"Its pickle has a memo of more than {MOST_OPERATIONS:,} places.")
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise Refusal("Its pickle is damaged (it takes from the memo what is not there).")
        self._stack.append(self._memo[index])


_PLAIN = (str, int, float, bool, bytes, type(None))


def plain_key(key: Any) -> Any:
    """Return `key`, which is to be hashed.

    Raises:
        Refusal: It is a tuple of tuples or the like.
    """
    # A tuple that holds another twice, and so on n times, takes 2ⁿ steps to hash.
    if type(key) in (tuple, frozenset):
        flat = len(key) <= MOST_IN_A_KEY and all(type(part) in _PLAIN for part in key)
    else:
        flat = type(key) in _PLAIN or isinstance(key, Global | Inert)  # these hash by identity
    if not flat:
        raise Refusal(f"Its pickle has a key that is a {type(key).__name__} of other things.")
    return key


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _python2_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


_U16, _I32, _U32, _U64 = (struct.Struct(form) for form in ("<H", "<i", "<I", "<Q"))
_F64 = struct.Struct(">d")
_U8 = struct.Struct("<B")


def _push(make: Callable[[], Any]) -> Callable[[Machine], None]:
    return lambda machine: machine._stack.append(make())


def _push_number(form: struct.Struct) -> Callable[[Machine], None]:
    return lambda machine: machine._stack.append(machine._number(form))


def _push_bytes(
    size: struct.Struct, decode: Callable[[bytes], Any] = bytes
) -> Callable[[Machine], None]:
    return lambda machine: machine._stack.append(decode(machine._take(machine._number(size))))


_STOP = ord(".")
_OPCODES: dict[int, Callable[[Machine], None]] = {
    0x80: Machine._proto,
    0x95: Machine._frame,
    ord("("): Machine._mark,
    ord("0"): lambda machine: machine._stack.pop(),
    ord("1"): Machine._pop_mark_away,
    ord("N"): _push(lambda: None),
    0x88: _push(lambda: True),
    0x89: _push(lambda: False),
    ord("K"): _push_number(_U8),
    ord("M"): _push_number(_U16),
    ord("J"): _push_number(_I32),
    0x8A: Machine._long,
    ord("I"): Machine._python2_int,
    ord("G"): _push_number(_F64),
    0x8C: _push_bytes(_U8, _text),
    ord("X"): _push_bytes(_U32, _text),
    0x8D: _push_bytes(_U64, _text),
    ord("U"): _push_bytes(_U8, _python2_text),
    ord("T"): _push_bytes(_U32, _python2_text),
    ord("C"): _push_bytes(_U8),
    ord("B"): _push_bytes(_U32),
    0x8E: _push_bytes(_U64),
    0x96: _push_bytes(_U64),  # a bytearray; we never change it
    ord(")"): _push(tuple),
    0x85: lambda machine: machine._tuple(1),
    0x86: lambda machine: machine._tuple(2),
    0x87: lambda machine: machine._tuple(3),
    ord("t"): Machine._marked_tuple,
    ord("]"): _push(list),
    ord("a"): Machine._append_one,
    ord("e"): Machine._appends,
    ord("}"): _push(dict),
    ord("s"): Machine._set_item,
    ord("u"): Machine._set_marked_items,
    0x8F: _push(set),
    0x90: Machine._add_items,
    0x91: Machine._frozenset,
    ord("c"): Machine._global,
    0x93: Machine._stack_global,
    ord("R"): Machine._reduce,
    0x81: Machine._new_object,
    0x92: Machine._new_object_with_keywords,
    ord("b"): Machine._build,
    ord("Q"): Machine._persistent_id,
    ord("q"): lambda machine: machine._put(machine._number(_U8)),
    ord("r"): lambda machine: machine._put(machine._number(_U32)),
    0x94: lambda machine: machine._put(len(machine._memo)),
    ord("h"): lambda machine: machine._get(machine._number(_U8)),
    ord("j"): lambda machine: machine._get(machine._number(_U32)),
}
# Named in the refusal; any other byte is no opcode at all.
_REFUSED = {
    ord("i"): "INST",
    ord("o"): "OBJ",
    0x82: "EXT1",
    0x83: "EXT2",
    0x84: "EXT4",
    ord("P"): "PERSID",
    0x97: "NEXT_BUFFER",
    0x98: "READONLY_BUFFER",
    0x8B: "LONG4",
    ord("2"): "DUP",
    ord("L"): "LONG",
    ord("F"): "FLOAT",
    ord("S"): "STRING",
    ord("V"): "UNICODE",
    ord("l"): "LIST",
    ord("d"): "DICT",
    ord("p"): "PUT",
    ord("g"): "GET",
}
