"""Torch archives with an invalid or contradictory zip structure.

Readers disagree on such files: of two records with the same name, torch reads the first and
`zipfile` the last, and torch's memory map ignores sizes and checksums. A scanner may then see other
data than the loader.
"""

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.hostile import assembler as asm
from tests.hostile.assembler import plain, storage, tensor
from tests.hostile.hostile_file import HostileFile
from tests.hostile.zip_forge import FULL_32, Entry, end_record, forge, zip64_sizes

OTHER_NUMBERS = struct.pack("<16f", *([666.0] * 16))
DEFLATED = 8


def entries(
    body: bytes | None = None,
    storages: Mapping[str, bytes] | None = None,
    root: str = "archive/",
) -> dict[str, Entry]:
    """The records of an honest archive."""
    records = asm.torch_records(asm.pickled(asm.state() if body is None else body), storages)
    return {name: Entry(f"{root}{name}".encode(), data) for name, data in records.items()}


def honest(**lies: Any) -> bytes:
    return forge(list(entries().values()), **lies)


def changed(name: str, **lies: Any) -> bytes:
    """The honest archive with one changed record."""
    return with_changed(entries(), name, **lies)


def with_changed(pieces: dict[str, Entry], name: str, **lies: Any) -> bytes:
    return forge([*(pieces | {name: replace(pieces[name], **lies)}).values()])


def without(name: str) -> bytes:
    return forge([entry for key, entry in entries().items() if key != name])


def added(name: str, data: bytes = b"", **lies: Any) -> bytes:
    return forge([*entries().values(), Entry(name.encode(), data, **lies)])


def two_storages(first: bytes = asm.NUMBERS) -> dict[str, Entry]:
    body = asm.state(v=tensor(stored=storage(plain("1"))))
    return entries(body, {"0": first, "1": OTHER_NUMBERS})


def place(archive: bytes, name: bytes) -> int:
    """Return the offset of the record's header."""
    return archive.index(name) - 30


def large(**wrong: int) -> bytes:
    """The honest archive in the form of a large one, with 64-bit sizes and end records."""
    full = {"stored": FULL_32, "size": FULL_32}

    def enlarged(entry: Entry, name: str) -> Entry:
        size = len(entry.data)
        local = zip64_sizes(size, size)
        grown = size + (wrong.get("sizes", 0) if name == "data/0" else 0)
        return replace(
            entry,
            local=full,
            central=full,
            local_extra=local,
            central_extra=zip64_sizes(grown, grown),
        )

    return forge([enlarged(entry, name) for name, entry in entries().items()], end_64=wrong)


def streamed(wrong: int = 0) -> bytes:
    """The honest archive as written to a pipe, with sizes and checksums after the records."""

    def described(entry: Entry) -> Entry:
        size = len(entry.data) + wrong
        return replace(
            entry,
            local={"flags": 8, "crc": 0, "stored": 0, "size": 0},
            central={"flags": 8},
            descriptor=struct.pack("<4s3I", b"PK\7\10", entry.fields({})["crc"], size, size),
        )

    return forge([described(entry) for entry in entries().values()])


def overlap() -> bytes:
    """An archive in which the second storage's record is inside the first one's."""
    inner = two_storages()["data/1"]
    pieces = two_storages(first=inner.local_bytes())
    del pieces["data/1"]
    at = place(forge(list(pieces.values())), inner.name)
    return forge(list(pieces.values()), [*pieces.values(), replace(inner, central={"offset": at})])


def one_record_for_two_names() -> bytes:
    pieces = two_storages()
    twin = pieces.pop("data/1")
    at = place(forge(list(pieces.values())), b"archive/data/0")
    twin = replace(twin, data=asm.NUMBERS, central={"offset": at})
    return forge(list(pieces.values()), [*pieces.values(), twin])


def two_ends() -> bytes:
    other = entries()
    other["data/0"] = replace(other["data/0"], data=OTHER_NUMBERS)
    return honest() + forge(list(other.values()), at=len(honest()))


def two_local_headers() -> bytes:
    """An archive with a record that the central directory does not list."""
    pieces = list(entries().values())
    return forge([*pieces, Entry(b"archive/data/0", OTHER_NUMBERS)], pieces)


def crowd() -> bytes:
    """A directory of 210,000 entries for one record."""
    pieces = list(entries().values())
    at = {"offset": place(honest(), b"archive/data/0")}
    names = (b"archive/data/%d" % number for number in range(1, 210_000))
    more = [Entry(name, asm.NUMBERS, central=at) for name in names]
    return forge(pieces, [*pieces, *more], end_64={})


def deflated_weights() -> bytes:
    packed = zlib.compress(asm.NUMBERS)[2:-4]
    fields = {"method": DEFLATED, "stored": len(packed), "size": 64, "crc": zlib.crc32(asm.NUMBERS)}
    return changed("data/0", data=packed, local=fields, central=fields)


def lie(
    name: str, tries: str, reason: str, make: Callable[[], bytes], *, opens: bool = False
) -> HostileFile:
    def write(path: Path) -> None:
        path.write_bytes(make())

    return HostileFile(f"zip-{name}.pt", tries, reason, write, opens=opens)


FILES = [
    lie("overlap", "has one record inside another", r"overlap", overlap),
    lie("one-for-two", "has two names for one record", r"overlap|header", one_record_for_two_names),
    lie(
        "duplicate",
        "has two records of one name with other weights",
        r"twice",
        lambda: added("archive/data/0", OTHER_NUMBERS),
    ),
    lie(
        "duplicate-pickle",
        "has two pickles of one name",
        r"twice",
        lambda: added("archive/data.pkl", asm.pickled(asm.state(v=tensor()))),
    ),
    lie(
        "unlisted",
        "has a record that its directory does not list",
        r"gap|between|list|director",
        two_local_headers,
    ),
    lie("two-ends", "holds two archives behind each other", r"begin|before|gap|first", two_ends),
    lie(
        "end-in-comment",
        "has an end record in its comment",
        r"comment|end",
        lambda: honest(comment=end_record(0, 0, 0)),
    ),
    lie(
        "leading",
        "has bytes before its first record",
        r"before|something else",
        lambda: b"MZ" + bytes(62) + honest(at=64),
    ),
    lie("trailing", "has bytes after its end", r"end", lambda: honest() + bytes(100)),
    lie(
        "count",
        "promises more records than it lists",
        r"director",
        lambda: honest(end={"count": 1}),
    ),
    lie(
        "directory-size",
        "gives its directory another size",
        r"director",
        lambda: honest(end={"size": -46}),
    ),
    lie(
        "directory-place",
        "gives its directory another place",
        r"director",
        lambda: honest(end={"offset": 4}),
    ),
    lie(
        "directory-beyond",
        "has its directory beyond the end",
        r"director",
        lambda: honest(end={"offset": 1 << 30}),
    ),
    lie("crowd", "lists 210,000 records where there is one", r"overlap|header|records", crowd),
    lie(
        "64-place",
        "points to its 64-bit end record beyond the end",
        r"64|end",
        lambda: large(place=1 << 40),
    ),
    lie("64-count", "promises 2^62 records", r"64|director|records", lambda: large(count=1 << 62)),
    lie("64-size", "has a directory of 2^62 bytes", r"64|director", lambda: large(size=1 << 62)),
    lie("64-offset", "has its directory at 2^62", r"64|director", lambda: large(offset=1 << 62)),
    lie(
        "64-two-truths",
        "gives its directory one place in 32 and another in 64 bits",
        r"64|director",
        lambda: honest(end={"count": 5, "size": 300, "offset": 0}, end_64={}),
    ),
    lie("64-record", "has a record of 2^62 bytes", r"size|end|64", lambda: large(sizes=1 << 62)),
    lie(
        "64-record-agrees-not",
        "gives a record another size in its 64-bit field",
        r"contradicts",
        lambda: large(sizes=-4),
    ),
    lie(
        "64-without-field",
        "marks a size as 64 bits wide and has none",
        r"64|size",
        lambda: changed("data/0", central={"size": FULL_32, "stored": FULL_32}),
    ),
    lie(
        "descriptor",
        "has sizes behind its records that are not theirs",
        r"size|descriptor|disagree",
        lambda: streamed(wrong=4),
    ),
    lie(
        "local-name",
        "has a record of one name listed under another",
        r"contradicts",
        lambda: changed("data/0", local_name=b"archive/data/1"),
    ),
    lie(
        "local-size",
        "has another size in a record's header than in the directory",
        r"size|header|disagree",
        lambda: changed("data/0", local={"size": 32, "stored": 32}),
    ),
    lie(
        "local-method",
        "is compressed by one header and stored by the other",
        r"compress|header|disagree|method",
        lambda: changed("data/0", local={"method": DEFLATED}),
    ),
    lie(
        "method",
        "uses a compression that nobody has",
        r"compress",
        lambda: changed("data/0", local={"method": 99}, central={"method": 99}),
    ),
    lie(
        "encrypted",
        "marks a record as encrypted",
        r"encrypted",
        lambda: changed("data/0", local={"flags": 1}, central={"flags": 1}),
    ),
    lie(
        "stored-size",
        "is stored in fewer bytes than it holds, without compression",
        r"size|bytes",
        lambda: changed("data/0", local={"stored": 60}, central={"stored": 60}),
    ),
    lie(
        "beyond",
        "has a record that runs past the end",
        r"end",
        lambda: changed(
            "version",
            local={"stored": 1 << 20, "size": 1 << 20},
            central={"stored": 1 << 20, "size": 1 << 20},
        ),
    ),
    lie(
        "offset",
        "has a record where there is none",
        r"header|record",
        lambda: changed("data/0", central={"offset": 3}),
    ),
    lie(
        "short",
        "has a storage shorter than its tensor",
        r"bytes",
        lambda: changed("data/0", data=asm.NUMBERS[:32]),
    ),
    lie(
        "long",
        "has a storage longer than it says",
        r"bytes",
        lambda: changed("data/0", data=asm.NUMBERS * 2),
    ),
    lie(
        "crc-pickle",
        "has a pickle whose checksum is wrong",
        r"checksum|CRC",
        lambda: changed("data.pkl", local={"crc": 1}, central={"crc": 1}),
    ),
    lie(
        "crc-weights",
        "has weights whose checksum is wrong",
        r"checksum|CRC",
        lambda: changed("data/0", local={"crc": 1}, central={"crc": 1}),
        opens=True,
    ),
    lie(
        "crc-disagrees",
        "has another checksum in a record's header than in the directory",
        r"checksum|CRC|header|disagree",
        lambda: changed("data/0", local={"crc": 1}),
    ),
    lie(
        "tampered",
        "had a bit of its weights flipped",
        r"checksum|CRC",
        lambda: honest().replace(asm.NUMBERS, asm.NUMBERS[:-1] + b"\x40"),
        opens=True,
    ),
    lie("cut-end", "lacks its last byte", r"end|cut|zip", lambda: honest()[:-1]),
    lie("cut-directory", "ends in its directory", r"end|cut|zip", lambda: honest()[:-80]),
    lie(
        "cut-weights",
        "ends in its weights",
        r"end|cut|zip",
        lambda: honest()[: honest().index(asm.NUMBERS) + 8],
    ),
    lie("cut-header", "ends in its first header", r"end|cut|zip", lambda: honest()[:20]),
    lie("no-pickle", "has no pickle", r"not from torch\.save", lambda: without("data.pkl")),
    lie("no-storage", "lacks a storage", r"storage|data/0", lambda: without("data/0")),
    lie(
        "no-root",
        "has its records is not in a folder",
        r"folder|root",
        lambda: forge(list(entries(root="").values())),
    ),
    lie(
        "two-roots",
        "has two folders",
        r"folder|root",
        lambda: added("other/data.pkl", asm.pickled(asm.state())),
    ),
    lie(
        "absolute-name",
        "has a record named /etc/passwd",
        r"name|folder|root",
        lambda: added("/etc/passwd"),
    ),
    lie(
        "parent-name",
        "has a record that leads out of its folder",
        r"name|folder",
        lambda: added("archive/../../etc/passwd"),
    ),
    lie(
        "long-name",
        "has an encrypted record whose name has 60,000 letters",
        r"encrypted",
        lambda: added("archive/" + "x" * 60_000, local={"flags": 1}, central={"flags": 1}),
    ),
    lie("nul-name", "has a NUL in a name", r"name", lambda: added("archive/data/1\0.txt")),
    lie(
        "name-not-text",
        "has a name that is no text",
        r"name",
        lambda: forge([*entries().values(), Entry(b"archive/\xff\xfe", b"")]),
    ),
    lie(
        "big-endian",
        "says that it is big-endian",
        r"endian|byte order",
        lambda: changed("byteorder", data=b"big"),
    ),
    lie(
        "byteorder-unknown",
        "has an unknown byte order",
        r"endian|byte order",
        lambda: changed("byteorder", data=b"middle"),
    ),
    lie(
        "deflated-weights",
        "has compressed weights, which torch maps as they are",
        r"compressed",
        deflated_weights,
    ),
]
