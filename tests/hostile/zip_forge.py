"""Zip files with wrong values (https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT).

Without wrong values, the result is a valid zip file.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
END_64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR_64 = struct.Struct("<4sIQI")
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF


@dataclass(frozen=True)
class Entry:
    """A record. Fields that are None have the correct value.

    `local` and `central` replace fields of the two headers by name: version, flags, method, crc,
    stored, size, and offset in the central header.
    """

    name: bytes
    data: bytes
    local_name: bytes | None = None
    local: dict[str, int] = field(default_factory=dict)
    central: dict[str, int] = field(default_factory=dict)
    local_extra: bytes = b""
    central_extra: bytes = b""
    descriptor: bytes = b""

    def fields(self, lies: dict[str, int]) -> dict[str, int]:
        size = len(self.data)
        honest = {"version": 20, "flags": 0, "method": 0, "crc": zlib.crc32(self.data)}
        return honest | {"stored": size, "size": size} | lies

    def local_bytes(self) -> bytes:
        name = self.name if self.local_name is None else self.local_name
        f = self.fields(self.local)
        header = LOCAL.pack(
            *(b"PK\3\4", f["version"], f["flags"], f["method"], 0, 0x21, f["crc"]),
            *(f["stored"], f["size"], len(name), len(self.local_extra)),
        )
        return header + name + self.local_extra + self.data + self.descriptor

    def central_bytes(self, offset: int) -> bytes:
        f = self.fields({"offset": offset} | self.central)
        header = CENTRAL.pack(
            *(b"PK\1\2", 20, f["version"], f["flags"], f["method"], 0, 0x21, f["crc"]),
            *(f["stored"], f["size"], len(self.name), len(self.central_extra)),
            *(0, 0, 0, 0, f["offset"]),
        )
        return header + self.name + self.central_extra


def forge(
    entries: Sequence[Entry],
    directory: Sequence[Entry] | None = None,
    *,
    at: int = 0,
    comment: bytes = b"",
    end: Mapping[str, int] | None = None,
    end_64: Mapping[str, int] | None = None,
) -> bytes:
    """Return records, central directory and end record as bytes.

    Args:
        entries: The records in the file.
        directory: Entries of the central directory if they differ. An entry that is not in the file
            needs an offset.
        at: Offset of the result in the file.
        comment: The comment in the end record.
        end: Numbers added to the true count, size and offset in the end record. With `end_64`, they
            replace the marks that refer to the 64-bit end record.
        end_64: Numbers added to the true count, size, offset and place in the 64-bit end records,
            which are written only if this is not None.
    """
    content, offsets = b"", {}
    for entry in entries:
        offsets[id(entry)] = at + len(content)
        content += entry.local_bytes()
    listed = entries if directory is None else directory
    central = b"".join(entry.central_bytes(offsets.get(id(entry), 0)) for entry in listed)
    true = {"count": len(listed), "size": len(central), "offset": at + len(content)}
    body = content + central
    if end_64 is None:
        return body + end_record(**_plus(true, end), comment=comment)
    stated = _plus(true | {"place": at + len(body)}, end_64)
    numbers = (stated["count"], stated["count"], stated["size"], stated["offset"])
    record = END_64.pack(b"PK\6\6", END_64.size - 12, 45, 45, 0, 0, *numbers)
    locator = LOCATOR_64.pack(b"PK\6\7", 0, stated["place"], 1)
    full = {"count": FULL_16, "size": FULL_32, "offset": FULL_32}
    return body + record + locator + end_record(**full | dict(end or {}), comment=comment)


def _plus(numbers: dict[str, int], more: Mapping[str, int] | None) -> dict[str, int]:
    return {key: number + (more or {}).get(key, 0) for key, number in numbers.items()}


def end_record(count: int, size: int, offset: int, *, disk: int = 0, comment: bytes = b"") -> bytes:
    return END.pack(b"PK\5\6", disk, disk, count, count, size, offset, len(comment)) + comment


def zip64_sizes(size: int, stored: int) -> bytes:
    """Return the extra field with the sizes of a record over 4 GiB."""
    return struct.pack("<HH2Q", 1, 16, size, stored)
