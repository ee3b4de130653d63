"""Torch files with invalid tensors and storages, in the zip and the legacy format."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile import assembler as asm
from tests.hostile.assembler import (
    call,
    legacy_storage,
    made_dict,
    plain,
    reference,
    storage,
    tensor,
)
from tests.hostile.hostile_file import HostileFile


def geometry(
    name: str, tries: str, reason: str, size: Any, stride: Any, offset: Any = 0
) -> HostileFile:
    return body(name, tries, reason, lambda: made_dict({"w": tensor(size, stride, offset)}))


def body(name: str, tries: str, reason: str, make: Callable[[], bytes]) -> HostileFile:
    return HostileFile(f"tensor-{name}.pt", tries, reason, lambda path: asm.write_zip(path, make()))


def stored(name: str, tries: str, reason: str, **lies: Any) -> HostileFile:
    return body(name, tries, reason, lambda: made_dict({"w": tensor(stored=storage(**lies))}))


def legacy(name: str, tries: str, reason: str, **lies: Any) -> HostileFile:
    return HostileFile(
        f"legacy-{name}.pth", tries, reason, lambda path: asm.write_legacy(path, **lies)
    )


def legacy_with(stored_bytes: bytes) -> bytes:
    return made_dict({"w": tensor(stored=stored_bytes)})


def cut(path: Path) -> None:
    asm.write_legacy(path)
    path.write_bytes(path.read_bytes()[:-8])


def raw(count: int, data: bytes = asm.NUMBERS) -> bytes:
    return struct.pack("<q", count) + data


FILES = [
    geometry("expanded", "repeats 4 bytes 2^40 times", r"'w'", (1 << 40,), (0,)),
    geometry("expanded-once", "repeats 16 numbers twice", r"'w'", (2, 16), (0, 1)),
    geometry("overlapping", "has rows that overlap", r"'w'", (8, 8), (1, 1)),
    geometry("beyond", "reaches past its storage", r"'w'", (4, 5), (5, 1)),
    geometry("beyond-by-offset", "starts past its storage", r"'w'", (1,), (1,), 16),
    geometry("enormous", "has 2^60 elements", r"'w'", (1 << 60,), (1,)),
    geometry(
        "overflowing", "has 2^66 elements, none in 64 bits", r"'w'", (1 << 33, 1 << 33), (0, 0)
    ),
    geometry("beyond-64-bits", "has a size of 2^200", r"'w'", (1 << 200,), (0,)),
    geometry("none-of-many", "has no elements, 2^63 times", r"'w'", (0, 1 << 63), (1, 1)),
    geometry("negative-size", "has a size of -4", r"'w'", (-4, 4), (4, 1)),
    geometry("negative-sizes", "has two sizes of -4", r"'w'", (-4, -4), (4, 1)),
    geometry("negative-stride", "walks backwards", r"'w'", (4, 4), (-4, 1), 12),
    geometry("negative-offset", "starts before its storage", r"'w'", (4, 4), (4, 1), -1),
    geometry("offset-beyond-64-bits", "starts at 2^64", r"'w'", (4, 4), (4, 1), 1 << 64),
    geometry("sizes-and-strides", "has more strides than sizes", r"'w'", (16,), (4, 1)),
    geometry("float-size", "has a size of 4.0", r"'w'", (4.0, 4), (4, 1)),
    geometry("bool-size", "has a size of True", r"'w'", (True, 16), (16, 1)),
    geometry("text-size", "has a text for its sizes", r"shape", "44", (4, 1)),
    geometry("none-size", "has None for its sizes", r"shape", None, (4, 1)),
    geometry("dimensions", "has 100,000 dimensions", r"'w'", (1,) * 100_000, (1,) * 100_000),
    stored("negative-storage", "has a storage of -16 elements", r"storage", numel=-16),
    stored("large-storage", "has a storage of 2^40 elements", r"storage", numel=1 << 40),
    stored("float-storage", "has a storage of 16.0 elements", r"storage", numel=16.0),
    stored(
        "storage-path", "names a storage outside the archive", r"storage", key=plain("../version")
    ),
    stored("long-storage", "has a storage of a long name", r"storage", key=plain("0" * 1_000_000)),
    stored("storage-number", "names a storage by a number", r"storage", key=plain(0)),
    stored(
        "storage-kind",
        "has a class of its own for the kind of a storage",
        r"storage",
        kind=reference("storages", "FloatStorage"),
    ),
    body(
        "storage-twice",
        "has contradictory descriptions of one storage",
        r"storage",
        lambda: asm.state(
            v=tensor((2, 4), stored=storage(kind=reference("torch", "DoubleStorage"), numel=8))
        ),
    ),
    body(
        "not-of-a-storage",
        "makes a tensor of a text",
        r"storage|tensor",
        lambda: asm.state(v=tensor(stored=plain("0"))),
    ),
    body(
        "few-arguments",
        "makes a tensor of nothing",
        r"tensor",
        lambda: asm.state(v=call(reference("torch._utils", "_rebuild_tensor_v2"))),
    ),
    body(
        "pickled-id",
        "has a list for the name of a storage",
        r"storage",
        lambda: asm.state(v=tensor(stored=plain(["storage", "x"]) + b"Q")),
    ),
    body(
        "name-a-number",
        "has tensors named by numbers",
        r"name|tensors|weights",
        lambda: b"}" + plain(3) + tensor() + b"s",
    ),
    body(
        "empty-stack",
        "takes more from the stack than there is",
        r"pickle|stack|damaged",
        lambda: b"00",
    ),
    body("no-such-opcode", "has an unknown opcode", r"opcode|pickle", lambda: b"\xff"),
    body("no-such-memory", "gets an empty place of the memo", r"memo|pickle", lambda: asm.again(7)),
    legacy("negative-count", "has a storage of -16 elements", r"storage", data=raw(-16)),
    legacy("large-count", "has a storage of 2^62 elements", r"storage", data=raw(1 << 62)),
    legacy("other-count", "has another number of elements than it says", r"storage", data=raw(15)),
    legacy("missing", "lacks a storage", r"storage", keys=plain([]), data=b""),
    legacy("more", "has a storage of no tensor", r"storage", keys=plain(["0", "1"])),
    legacy("twice", "has a storage twice", r"storage", keys=plain(["0", "0"]), data=raw(16) * 2),
    legacy("keys-a-number", "has a number for its storages", r"storage", keys=plain(3)),
    legacy("wrong-magic", "has another magic number", r"magic|legacy|torch", magic=plain(7)),
    legacy("wrong-protocol", "is of another version", r"version|protocol", protocol=plain(1002)),
    legacy(
        "big-endian",
        "is big-endian",
        r"endian|byte order",
        system=plain(asm.LEGACY_SYSTEM | {"little_endian": False}),
    ),
    legacy(
        "no-system",
        "has a list for a description of its machine",
        r"endian|byte order|legacy",
        system=plain([]),
    ),
    legacy("no-weights", "is a number", r"tensors|weights|number|int", body=plain(3)),
    legacy("trailing", "has bytes after its weights", r"after|end", data=raw(16) + bytes(8)),
    legacy(
        "view",
        "has a view of a storage past its end",
        r"storage|view",
        body=legacy_with(legacy_storage(view=("1", 8, 16))),
    ),
    HostileFile("legacy-cut.pth", "ends in its weights", r"storage|end|cut", cut),
]
