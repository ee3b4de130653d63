"""Pickles assembled opcode by opcode, and torch files that contain them.

`pickle.dumps` only writes the opcodes that honest objects need. Hostile files need all opcodes
(https://github.com/python/cpython/blob/3.11/Lib/pickletools.py). Every function here returns
opcodes that push one value onto the stack.
"""

import pickle
import pickletools
import shlex
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NUMBERS = struct.pack("<16f", *range(16))  # the honest weights inside the hostile files
PROTOCOL = 4  # the first protocol that resolves dots in names, for any opcode
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
LEGACY_SYSTEM = {
    "protocol_version": LEGACY_PROTOCOL,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def plain(value: Any) -> bytes:
    """An honest value of built-in types."""
    pickled = pickle.dumps(value, 2)
    if isinstance(value, str):  # optimize() is slow for the hundreds of thousands in the corpus
        return pickled[2 : -len(b"q\0.")]
    return pickletools.optimize(pickled)[2:-1]


def reference(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def stack_reference(module: str, name: str) -> bytes:
    """A reference in protocol 4, where a name may have dots."""
    return plain(module) + plain(name) + b"\x93"


def made_tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def made_list(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


def made_dict(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(plain(key) + value for key, value in items.items()) + b"u"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + made_tuple(*arguments) + b"R"


def new(cls: bytes, *arguments: bytes) -> bytes:
    return cls + made_tuple(*arguments) + b"\x81"


def build(made: bytes, state: bytes) -> bytes:
    return made + state + b"b"


def keep(made: bytes, index: int) -> bytes:
    """`made`, stored in the memo under a number, from which `again` gets it."""
    return made + b"r" + struct.pack("<I", index)


def again(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def ordered_dict(items: Mapping[str, bytes]) -> bytes:
    made = call(reference("collections", "OrderedDict"))
    return made + b"(" + b"".join(plain(key) + value for key, value in items.items()) + b"u"


def storage(
    key: bytes = plain("0"), kind: bytes = reference("torch", "FloatStorage"), numel: Any = 16
) -> bytes:
    fields = made_tuple(plain("storage"), kind, key, plain("cpu"), plain(numel))
    return fields + b"Q"


def legacy_storage(key: str = "0", numel: Any = 16, view: Any = None) -> bytes:
    kind = reference("torch", "FloatStorage")
    fields = (plain("storage"), kind, plain(key), plain("cpu"), plain(numel), plain(view))
    return made_tuple(*fields) + b"Q"


def tensor(
    size: Any = (4, 4), stride: Any = (4, 1), offset: Any = 0, stored: bytes | None = None
) -> bytes:
    rebuild = reference("torch._utils", "_rebuild_tensor_v2")
    stored = storage() if stored is None else stored
    geometry = (plain(offset), plain(size), plain(stride), plain(False))
    return call(rebuild, stored, *geometry, ordered_dict({}))


def module(
    parameters: Mapping[str, bytes] | None = None,
    modules: Mapping[str, bytes] | None = None,
    extra: Mapping[str, bytes] | None = None,
) -> bytes:
    """A pickled `nn.Module`, whose parameters may be other values."""
    state = {
        "training": plain(False),
        "_parameters": ordered_dict(parameters or {}),
        "_buffers": ordered_dict({}),
        "_non_persistent_buffers_set": call(reference("builtins", "set"), made_list()),
        "_modules": ordered_dict(modules or {}),
    }
    cls = reference("torch.nn.modules.container", "Sequential")
    return build(new(cls), made_dict(state | dict(extra or {})))


def state(**side: bytes) -> bytes:
    """An honest state dict of one tensor, with values beside it."""
    return made_dict({"w": tensor()} | side)


def pickled(body: bytes, protocol: int = PROTOCOL) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


def write_zip(
    path: Path,
    body: bytes,
    storages: Mapping[str, bytes] | None = None,
    protocol: int = PROTOCOL,
) -> None:
    """Write a torch archive around the opcodes of its pickle."""
    write_records(path, torch_records(pickled(body, protocol), storages))


def write_records(path: Path, records: Mapping[str, bytes], kind: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in records.items():
            archive.writestr(f"archive/{name}", content)


def torch_records(
    data_pickle: bytes, storages: Mapping[str, bytes] | None = None
) -> dict[str, bytes]:
    storages = {"0": NUMBERS} if storages is None else storages
    return {
        "data.pkl": data_pickle,
        "byteorder": b"little",
        **{f"data/{key}": content for key, content in storages.items()},
        "version": b"3\n",
    }


def legacy_state(**side: bytes) -> bytes:
    return made_dict({"w": tensor(stored=legacy_storage())} | side)


def write_legacy(
    path: Path,
    *,
    magic: bytes = plain(LEGACY_MAGIC),
    protocol: bytes = plain(LEGACY_PROTOCOL),
    system: bytes = plain(LEGACY_SYSTEM),
    body: bytes | None = None,
    keys: bytes = plain(["0"]),
    data: bytes = struct.pack("<q", 16) + NUMBERS,
) -> None:
    """Write a file in the format before torch 1.6: five pickles, then the storages."""
    pickles = (magic, protocol, system, legacy_state() if body is None else body, keys)
    path.write_bytes(b"".join(pickled(opcodes) for opcodes in pickles) + data)


def canary_of(path: Path) -> Path:
    """The file that appears when code in the file `path` runs."""
    return path.with_name(f"{path.name}.ran")


def touch(canary: Path) -> bytes:
    """A shell command that creates the canary."""
    return plain(f"touch {shlex.quote(str(canary))}")


def python(canary: Path) -> bytes:
    """Python source that creates the canary."""
    return plain(f"open({str(canary)!r}, 'w').close()")
