"""A pickle machine that only builds inert values.

A pickle is a program for a small stack machine. Python's own machine imports every name in the
program, and calls it if the program says so. This one only implements the opcodes that `torch.save`
writes (pickle protocols 2 to 5, and Python 2's variant of protocol 2). A name becomes a `Global`,
which does nothing. A call or a new instance becomes an `Inert`, a record of it. Only the few calls
that describe tensors are replaced by functions of this package (see `tensors`).

The machine is not derived from `pickle._Unpickler`, so that it inherits no opcode: an opcode that
is not in this file is refused. Every value that a short program could make large is counted.

Opcodes: Lib/pickletools.py of CPython.
"""

import os
import struct
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from soupcore.safe_torch.refusal import COPY, INCOMPLETE, Refusal
from soupcore.safe_torch.values import Blob, Global, Inert, Keys, Ordered

MOST_BYTES = 16 << 20
MOST_OPERATIONS = 2_000_000
MOST_ALLOCATED = 256 << 20  # bytes that replaced calls may allocate, beside the pickle's own values
MOST_GLOBALS = 10_000
_LONGEST_GLOBAL = 512
_LONGEST_INT = 20  # digits of an integer given as text
DEEPEST_MARK = 1_000
_LONG = 4_096  # bytes; a run of at least this length becomes a `Blob`
_DEFAULT_PROTOCOL = "Save it again with torch.save and its default pickle_protocol."

Call = Callable[["Machine", tuple[Any, ...]], Any]


class Window:
    """A file as a sequence of bytes, read in pieces; long runs of bytes are skipped.

    Args:
        file: The file, seekable.
    """

    _PIECE = 1 << 16

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        self._start = 0
        self._piece = b""
        self._given = 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, where: Any) -> Any:
        if isinstance(where, slice):
            start, stop, _ = where.indices(self._size)
            self._given += stop - start
            if self._given > MOST_BYTES:
                raise Refusal(f"Its pickle has more than {MOST_BYTES} bytes beside its arrays.")
            self._file.seek(start)
            return self._file.read(stop - start)
        if not self._start <= where < self._start + len(self._piece):
            self._file.seek(where)
            self._start, self._piece = where, self._file.read(self._PIECE)
        return self._piece[where - self._start]

    def find(self, mark: bytes, start: int, stop: int) -> int:
        """Return the first position of `mark` between two positions, or -1."""
        at: int = self[start:stop].find(mark)
        return at if at < 0 else start + at


class Machine:
    """Reads one or more pickles of a file.

    Args:
        data: Bytes with the pickles, or a `Window` of a file with them.
        calls: Replacements for calls of globals, by path. All other calls make an `Inert`.
        persistent: Returns the object for a persistent id, that is, for data outside the pickle.
        on_name: Called with the path of each global when it is first named; may raise.

    Attributes:
        position: Start of the next pickle.
        start: Offset of the data in the file; None if it is compressed in the file.
        named: All globals that the pickles name, by path.
        instances: All records of calls and new instances, in order.
        hidden: Assigned attributes that Python itself looks up, such as `__setstate__`.
    """

    def __init__(
        self,
        data: "bytes | Window",
        calls: Mapping[str, Call],
        persistent: Callable[[Any], Any],
        on_name: Callable[[str], None] = lambda path: None,
    ) -> None:
        self.position = 0
        self.start: int | None = None
        self.named: dict[str, Global] = {}
        self.instances: list[Inert] = []
        self.hidden: set[str] = set()
        self._spare: Counter[str] = Counter()
        self._data = data
        self._calls = calls
        self._persistent = persistent
        self._on_name = on_name
        self._keys = Keys()
        self._operations = 0
        self._allocated = 0
        self._extents: dict[int, tuple[Any, int, int]] = {}

    @property
    def values(self) -> set[str]:
        """Paths of globals that are used as values, and not only called or instantiated."""
        return {path for path, count in self._spare.items() if count > 0}

    def load(self) -> Any:
        """Run the pickle at `position` and return its object.

        Raises:
            Refusal: The pickle is damaged, too large, or not one that `torch.save` writes.
        """
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._protocol = 0
        name = "its first opcode"
        data, opcode_of = self._data, _OPCODES.get
        try:
            # This loop and `_number` take most of the time of opening a file.
            while True:
                code = data[self.position]
                self.position += 1
                self._operations += 1
                if self._operations > MOST_OPERATIONS:
                    self.spend(0)
                if code == _STOP:
                    return self._stack.pop()
                name, run = opcode_of(code) or _refuse(code)
                run(self)
        except (IndexError, struct.error):
            raise Refusal(
                f"Its pickle ends in the middle, at {name}: the file is damaged or truncated."
                if self.position >= len(self._data)
                else f"Its pickle is damaged ({name} finds nothing on the stack).",
                INCOMPLETE,
            ) from None
        except (ValueError, TypeError, RecursionError) as error:  # bad text, numbers, arguments
            raise Refusal(f"Its pickle is damaged ({name}: {error}).", COPY) from None

    def spend(self, operations: int) -> None:
        """Count operations.

        Raises:
            Refusal: The sum is more than any checkpoint needs.
        """
        self._operations += operations
        if self._operations > MOST_OPERATIONS:
            raise Refusal(f"Its pickle has more operations than the limit of {MOST_OPERATIONS:,}.")

    def allocate(self, nbytes: int) -> None:
        """Count memory beside the bytes of the pickle itself.

        Raises:
            Refusal: The sum is more than any checkpoint needs.
        """
        self._allocated += nbytes
        if self._allocated > MOST_ALLOCATED:
            raise Refusal(f"Its pickle expands to more than the limit of {MOST_ALLOCATED} bytes.")

    def key(self, key: Any) -> Any:
        """Check and return a key of a dict or an element of a set.

        Raises:
            Refusal: It could take long to hash.
        """
        return self._keys.checked(key)

    def named_global(self, path: str) -> Global:
        """Return the global with a path, and record that it was named.

        Raises:
            Refusal: It is not a Python name, or there are too many, or `on_name` refuses it.
        """
        if known := self.named.get(path):
            return known
        parts = path.replace(":", ".").split(".")
        if len(path) > _LONGEST_GLOBAL or not all(
            part and part.isprintable() and not any(mark in part for mark in " /\\")
            for part in parts
        ):
            raise Refusal(f"Its pickle names {path[:80]!r}, which is not a Python name.")
        if len(self.named) >= MOST_GLOBALS:
            raise Refusal(f"Its pickle names more classes than the limit of {MOST_GLOBALS:,}.")
        self._on_name(path)
        self.named[path] = Global(path)
        return self.named[path]

    def place_of(self, value: Any) -> tuple[int, int] | None:
        """Return the offset in the file and the size of the bytes of an object, or None."""
        pushed, position, size = self._extents.get(id(value), (None, 0, 0))
        if pushed is not value or self.start is None:
            return None
        return self.start + position, size

    def call(self, function: Any, args: Any) -> Any:
        """Return the value in place of `function(*args)`.

        Raises:
            Refusal: `function` is not a named global, or a replaced call has wrong arguments.
        """
        if type(function) is not Global or type(args) is not tuple:
            raise Refusal("Its pickle calls something that is not a named class or function.")
        self.spend(1)
        replacement = self._calls.get(function.path)
        if replacement is None:
            return self.inert(function.path, args, called=True)
        try:
            return replacement(self, args)
        except (ValueError, TypeError, AttributeError):
            raise Refusal(f"Its pickle calls {function.path} with wrong arguments.") from None

    def make(self, cls: Any, args: Any) -> Any:
        """Return the value in place of `cls.__new__(cls, *args)`.

        Raises:
            Refusal: `cls` is not a named global.
        """
        if type(cls) is not Global or type(args) is not tuple:
            raise Refusal("Its pickle makes an instance of something that is not a named class.")
        if cls.path == "collections.OrderedDict":
            return Ordered()
        return self.inert(cls.path, args, called=False)

    def inert(self, path: str, args: tuple[Any, ...], *, called: bool) -> Inert:
        """Record a call or a new instance, and return the record."""
        made = Inert(path, args, called)
        self.instances.append(made)
        return made

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
        if type(self._data) is not bytes:
            (number,) = form.unpack(self._take(form.size))
            return number
        try:
            (number,) = form.unpack_from(self._data, self.position)
        except struct.error:
            self.position = len(self._data)
            raise
        self.position += form.size
        return number

    def _byte(self) -> int:
        byte: int = self._data[self.position]
        self.position += 1
        return byte

    def _line(self, longest: int, what: str) -> str:
        end = self._data.find(b"\n", self.position, self.position + longest + 1)
        if end < 0 and len(self._data) - self.position <= longest:
            self.position = len(self._data)
            raise IndexError
        if end < 0:
            raise Refusal(f"Its pickle has {what} longer than the limit of {longest}.")
        line = self._data[self.position : end]
        self.position = end + 1
        return line.decode()

    # A pushed global counts as a value until it is popped to be called or instantiated.

    def _push(self, value: Any) -> None:
        self._stack.append(value)
        if type(value) is Global:
            self._spare[value.path] += 1

    def _pop_used(self) -> Any:
        used = self._stack.pop()
        if type(used) is Global:
            self._spare[used.path] -= 1
        return used

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    # A method for each opcode that does more than push the value it reads.

    def _proto(self) -> None:
        self._protocol = self._number(_U8)
        if not 2 <= self._protocol <= 5:
            raise Refusal(
                f"Its pickle has protocol {self._protocol}; only 2 to 5 are supported.",
                _DEFAULT_PROTOCOL,
            )

    def _frame(self) -> None:
        if self._number(_U64) > len(self._data) - self.position:
            self.position = len(self._data)
            raise IndexError

    def _mark(self) -> None:
        if len(self._marks) >= DEEPEST_MARK:
            raise Refusal(f"Its pickle is nested deeper than the limit of {DEEPEST_MARK}.")
        self._marks.append(self._stack)
        self._stack = []

    def _long(self) -> None:
        self._stack.append(int.from_bytes(self._take(self._number(_U8)), "little", signed=True))

    def _python2_int(self) -> None:
        self._stack.append(int(self._line(_LONGEST_INT, "an integer (INT)")))

    def _pop(self) -> None:
        self._stack.pop()

    def _pop_mark_away(self) -> None:
        self._pop_mark()

    def _tuple(self, size: int) -> None:
        if len(self._stack) < size:
            raise IndexError
        self._stack[-size:] = [tuple(self._stack[-size:])]

    def _marked_tuple(self) -> None:
        items = self._pop_mark()
        self._stack.append(tuple(items))

    def _frozenset(self) -> None:
        items = self._pop_mark()
        self._stack.append(frozenset(map(self.key, items)))

    def _append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is Inert:
            target = target.items
        elif type(target) is not list:
            raise Refusal("Its pickle appends to something that is not a list.")
        target.extend(items)

    def _append_one(self) -> None:
        self._append([self._stack.pop()])

    def _appends(self) -> None:
        self._append(self._pop_mark())

    def _add_items(self) -> None:
        items = self._pop_mark()
        target = self._stack[-1]
        if type(target) is Inert:
            target.items.extend(items)
        elif type(target) is set:
            target.update(map(self.key, items))
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
            target[self.key(items[index])] = items[index + 1]

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set_items([key, value])

    def _set_marked_items(self) -> None:
        self._set_items(self._pop_mark())

    def _push_global(self, module: str, name: str) -> None:
        if self._protocol < 3:  # Python maps the names of Python 2, too
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[module, name]
            else:
                module = IMPORT_MAPPING.get(module, module)
        self._push(self.named_global(f"{module}{':' if '.' in name else '.'}{name}"))

    def _global(self) -> None:
        module = self._line(_LONGEST_GLOBAL, "a name")
        self._push_global(module, self._line(_LONGEST_GLOBAL, "a name"))

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise Refusal("Its pickle has a name that is not a string.")
        self._push_global(module, name)

    def _reduce(self) -> None:
        args, function = self._stack.pop(), self._pop_used()
        self._push(self.call(function, args))

    def _new_object(self) -> None:
        args, cls = self._stack.pop(), self._pop_used()
        self._stack.append(self.make(cls, args))

    def _new_object_with_keywords(self) -> None:
        keywords, args, cls = self._stack.pop(), self._stack.pop(), self._pop_used()
        made = self.make(cls, args)
        if type(made) is not Inert or type(keywords) is not dict:
            raise Refusal("Its pickle makes an object by NEWOBJ_EX with wrong arguments.")
        made.entries.update(keywords)
        self._stack.append(made)

    def _build(self) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if not isinstance(target, Inert | Ordered):
            raise Refusal("Its pickle uses BUILD on an object that is not a new instance.")
        if target.state is not None:
            raise Refusal("Its pickle uses BUILD twice on the same object.")
        target.state = state
        for part in state[:2] if type(state) is tuple else (state,):
            if isinstance(part, dict):
                self.spend(len(part))  # many objects may share it
                self.hidden.update(key for key in part if str(key).startswith("__"))

    def _persistent_id(self) -> None:
        self._push(self._persistent(self._stack.pop()))

    def _put(self, index: int) -> None:
        if index > MOST_OPERATIONS:
            raise Refusal(f"Its pickle has a memo index above the limit of {MOST_OPERATIONS:,}.")
        self._memo[index] = self._stack[-1]

    def _memoize(self) -> None:
        self._put(len(self._memo))

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise Refusal("Its pickle is damaged (its memo has no such index).")
        self._push(self._memo[index])

    # Factories for opcodes that push a value, some of which have several widths.

    @staticmethod
    def _pushing(make: Callable[[], Any]) -> Callable[["Machine"], None]:
        return lambda machine: machine._stack.append(make())

    @staticmethod
    def _pushing_number(form: struct.Struct) -> Callable[["Machine"], None]:
        return lambda machine: machine._stack.append(machine._number(form))

    @staticmethod
    def _pushing_bytes(
        size: struct.Struct, decode: Callable[[bytes], Any] = bytes
    ) -> Callable[["Machine"], None]:
        return lambda machine: machine._stack.append(decode(machine._take(machine._number(size))))

    @staticmethod
    def _pushing_raw(
        size: struct.Struct, decode: Callable[[bytes], Any] = bytes
    ) -> Callable[["Machine"], None]:
        return lambda machine: machine._push_raw(machine._number(size), decode)

    def _push_raw(self, size: int, decode: Callable[[bytes], Any]) -> None:
        # The place in the file is recorded for NumPy arrays, which are read from there. Of a
        # `Window`, long arrays are not loaded into memory.
        position = self.position
        if size < _LONG or not isinstance(self._data, Window):
            value = decode(self._take(size))
        elif position + size > len(self._data):
            self.position = len(self._data)
            raise IndexError
        else:
            value = Blob(size)
            self.position += size
        self._extents[id(value)] = (value, position, size)
        self._stack.append(value)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _python2_text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def _refuse(code: int) -> Any:
    name = _NOT_OF_TORCH.get(code, f"{code:#04x}")
    raise Refusal(
        f"Its pickle uses the opcode {name}, which torch.save does not write in protocols 2 to 5.",
        _DEFAULT_PROTOCOL,
    )


_U8, _U16, _U32, _U64 = (struct.Struct(form) for form in ("<B", "<H", "<I", "<Q"))
_I32, _F64 = struct.Struct("<i"), struct.Struct(">d")

_STOP = ord(".")
_OPCODES: dict[int, tuple[str, Callable[[Machine], None]]] = {
    0x80: ("PROTO", Machine._proto),
    0x95: ("FRAME", Machine._frame),
    ord("("): ("MARK", Machine._mark),
    ord("0"): ("POP", Machine._pop),
    ord("1"): ("POP_MARK", Machine._pop_mark_away),
    ord("N"): ("NONE", Machine._pushing(lambda: None)),
    0x88: ("NEWTRUE", Machine._pushing(lambda: True)),
    0x89: ("NEWFALSE", Machine._pushing(lambda: False)),
    ord("K"): ("BININT1", lambda machine: machine._stack.append(machine._byte())),
    ord("M"): ("BININT2", Machine._pushing_number(_U16)),
    ord("J"): ("BININT", Machine._pushing_number(_I32)),
    ord("I"): ("INT", Machine._python2_int),
    0x8A: ("LONG1", Machine._long),
    ord("G"): ("BINFLOAT", Machine._pushing_number(_F64)),
    0x8C: ("SHORT_BINUNICODE", Machine._pushing_bytes(_U8, _text)),
    ord("X"): ("BINUNICODE", Machine._pushing_bytes(_U32, _text)),
    0x8D: ("BINUNICODE8", Machine._pushing_bytes(_U64, _text)),
    ord("U"): ("SHORT_BINSTRING", Machine._pushing_raw(_U8, _python2_text)),
    ord("T"): ("BINSTRING", Machine._pushing_raw(_U32, _python2_text)),
    ord("C"): ("SHORT_BINBYTES", Machine._pushing_raw(_U8)),
    ord("B"): ("BINBYTES", Machine._pushing_raw(_U32)),
    0x8E: ("BINBYTES8", Machine._pushing_raw(_U64)),
    0x96: ("BYTEARRAY8", Machine._pushing_raw(_U64, bytearray)),
    ord(")"): ("EMPTY_TUPLE", Machine._pushing(tuple)),
    0x85: ("TUPLE1", lambda machine: machine._tuple(1)),
    0x86: ("TUPLE2", lambda machine: machine._tuple(2)),
    0x87: ("TUPLE3", lambda machine: machine._tuple(3)),
    ord("t"): ("TUPLE", Machine._marked_tuple),
    ord("]"): ("EMPTY_LIST", Machine._pushing(list)),
    ord("a"): ("APPEND", Machine._append_one),
    ord("e"): ("APPENDS", Machine._appends),
    ord("}"): ("EMPTY_DICT", Machine._pushing(dict)),
    ord("s"): ("SETITEM", Machine._set_item),
    ord("u"): ("SETITEMS", Machine._set_marked_items),
    0x8F: ("EMPTY_SET", Machine._pushing(set)),
    0x90: ("ADDITEMS", Machine._add_items),
    0x91: ("FROZENSET", Machine._frozenset),
    ord("c"): ("GLOBAL", Machine._global),
    0x93: ("STACK_GLOBAL", Machine._stack_global),
    ord("R"): ("REDUCE", Machine._reduce),
    0x81: ("NEWOBJ", Machine._new_object),
    0x92: ("NEWOBJ_EX", Machine._new_object_with_keywords),
    ord("b"): ("BUILD", Machine._build),
    ord("Q"): ("BINPERSID", Machine._persistent_id),
    ord("q"): ("BINPUT", lambda machine: machine._put(machine._byte())),
    ord("r"): ("LONG_BINPUT", lambda machine: machine._put(machine._number(_U32))),
    0x94: ("MEMOIZE", Machine._memoize),
    ord("h"): ("BINGET", lambda machine: machine._get(machine._byte())),
    ord("j"): ("LONG_BINGET", lambda machine: machine._get(machine._number(_U32))),
}
# Names of other opcodes, for refusals.
_NOT_OF_TORCH = {
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
