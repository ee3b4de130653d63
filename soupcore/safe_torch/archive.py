"""A strict reader of zip archives in the form that torch writes.

Zip readers disagree on which of two records with the same name counts, on whether the central
directory or the local header is right, and on the place of the directory. A malicious file can use
this to show different contents to the reader that checks it and to the reader that loads it. This
reader only accepts archives that all readers read the same way: records, directory and end records
fill the file without gaps or overlaps, and all redundant information agrees.

PyTorch's own writer (miniz in PyTorchStreamWriter) and Python's zipfile, streaming or not, 64-bit
or not, write such archives. Layout: PKWARE APPNOTE.TXT 6.3, sections 4.3 to 4.5.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import BinaryIO

from soupcore.safe_torch.refusal import COPY, INCOMPLETE, Refusal, shown

_MOST_RECORDS = 200_000
_LARGEST_DIRECTORY = 64 << 20  # bytes

_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_DESCRIPTOR, _DESCRIPTOR64 = struct.Struct("<4s3I"), struct.Struct("<4sI2Q")

_STORED, _DEFLATED = 0, 8
_HAS_DESCRIPTOR, _DEFLATE_LEVEL, _UTF8 = 1 << 3, 0b110, 1 << 11
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ZIP64_FIELD, _UNICODE_NAME_FIELD = 0x0001, 0x7075


@dataclass(frozen=True)
class Record:
    """One file of an archive.

    Attributes:
        name: Its name without the root folder, such as `data/0`.
        header_offset: Offset of its local header.
        data_offset: Offset of its bytes.
        stored_size: Number of stored bytes.
        size: Number of bytes when inflated; `stored_size` unless `compressed`.
        crc: CRC-32 of the inflated bytes according to the archive. It is not checked here.
        central_offset: Offset of its entry in the central directory.
        has_descriptor: Whether CRC and sizes are after the data instead of before it.
        compressed: Whether it is deflated.
    """

    name: str
    header_offset: int
    data_offset: int
    stored_size: int
    size: int
    crc: int
    central_offset: int
    has_descriptor: bool
    compressed: bool


@dataclass(frozen=True)
class Archive:
    """The records of an archive.

    Attributes:
        root: The folder of all records.
        records: `{name: Record}` in the order of the central directory.
        size: Size of the file in bytes.
    """

    root: str
    records: dict[str, Record]
    size: int


@dataclass(frozen=True)
class _Entry:
    """One record in the central directory."""

    offset: int
    name: bytes
    flags: int
    method: int
    crc: int
    stored_size: int
    size: int
    header_offset: int

    @property
    def title(self) -> str:
        return f"The record {shown(self.name)}"


def read_archive(file: BinaryIO) -> Archive:
    """Read the directory and the record headers of a zip archive, but not the records.

    Args:
        file: The archive, seekable, at any position.

    Raises:
        Refusal: It is not a zip archive, is damaged, or is ambiguous.
    """
    size = file.seek(0, os.SEEK_END)
    count, directory_offset, directory_size = _read_end(file, size)
    directory = _read_at(file, directory_offset, directory_size, "the central directory")
    entries = list(_entries(directory, directory_offset, count))
    names = [_decode(entry) for entry in entries]
    data_offsets = _check_tiling(file, entries, directory_offset)
    records: dict[str, Record] = {}
    roots: set[str] = set()
    seen: set[bytes] = set()
    for entry, full_name, data_offset in zip(entries, names, data_offsets, strict=True):
        # torch ignores the case of ASCII letters in names.
        if entry.name.lower() in seen:
            raise Refusal(f"{entry.title} occurs twice.")
        seen.add(entry.name.lower())
        root, slash, name = full_name.partition("/")
        if not slash:
            raise Refusal(f"{entry.title} is not in a folder, as the records of torch files are.")
        roots.add(root)
        if full_name.endswith("/"):  # a folder, which zip tools write, but not torch
            if entry.size:
                raise Refusal(f"{entry.title} is a folder but has contents.")
            continue
        records[name] = Record(
            name,
            entry.header_offset,
            data_offset,
            entry.stored_size,
            entry.size,
            entry.crc,
            entry.offset,
            bool(entry.flags & _HAS_DESCRIPTOR),
            entry.method == _DEFLATED,
        )
    if len(roots) > 1:
        one, other = sorted(roots)[:2]
        raise Refusal(
            f"Its records are in several folders ({shown(one)}, {shown(other)}), not in one."
        )
    if not records:
        raise Refusal("The archive holds no records.")
    return Archive(roots.pop(), records, size)


def read_record(file: BinaryIO, record: Record, most: int) -> bytes:
    """Read and inflate a whole record, and check its CRC.

    Args:
        file: The archive.
        record: The record.
        most: The largest accepted size in bytes, which also limits the memory.

    Raises:
        Refusal: It is larger, does not inflate to its size, or its CRC is wrong.
    """
    if max(record.size, record.stored_size) > most:
        raise Refusal(
            f"The record {shown(record.name)} has {record.size} bytes; the limit is {most}."
        )
    content = _read_at(file, record.data_offset, record.stored_size, shown(record.name))
    if record.compressed:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = inflater.decompress(content, record.size + 1)
        except zlib.error as error:
            raise Refusal(f"The record {shown(record.name)} does not inflate ({error}).") from None
        if len(content) != record.size or not inflater.eof or inflater.unused_data:
            raise Refusal(
                f"The record {shown(record.name)} does not inflate to {record.size} bytes."
            )
    if zlib.crc32(content) != record.crc:
        raise Refusal(
            f"The checksum (CRC-32) of the record {shown(record.name)} is wrong: the file is "
            "damaged.",
            "Copy it again. If it was saved with torch.serialization.set_crc32_options(False), "
            "save it again with True.",
        )
    return content


def _read_end(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return the number of records, and the offset and size of the central directory."""
    if size < _END.size:
        raise Refusal("It is too short for a zip archive.", INCOMPLETE)
    end_offset = size - _END.size
    signature, *disks, on_disk, count, length, offset, comment = _END.unpack(
        _read_at(file, end_offset, _END.size, "the end of the archive")
    )
    if signature != b"PK\5\6" or comment:
        raise Refusal(
            "It does not end like a zip archive: it was truncated, or something was appended.",
            INCOMPLETE,
        )
    directory_end = end_offset
    short_form = (on_disk, count, length, offset)
    if end64 := _read_end64(file, end_offset):
        directory_end, *disks64, on_disk, count, length, offset = end64
        limits = (_FULL16, _FULL16, _FULL32, _FULL32)
        for short, long, limit in zip(short_form, end64[3:], limits, strict=True):
            if short not in (long, limit):
                raise Refusal("Its end records (32-bit and 64-bit) contradict each other.")
        disks += disks64
    if any(disks) or on_disk != count:
        raise Refusal("It is one part of a multi-part archive.")
    if count > _MOST_RECORDS:
        raise Refusal(f"It has {count} records; the limit is {_MOST_RECORDS}.")
    if length > _LARGEST_DIRECTORY:
        raise Refusal(
            f"Its central directory has {length} bytes; the limit is {_LARGEST_DIRECTORY}."
        )
    if offset + length != directory_end:
        raise Refusal("Its central directory is not at the offset in its end record.", COPY)
    return count, offset, length


def _read_end64(file: BinaryIO, end_offset: int) -> tuple[int, ...] | None:
    """Return the offset of the 64-bit end record, two disk numbers, and its four sizes, or None."""
    locator_offset = end_offset - _LOCATOR.size
    if locator_offset < _END64.size:
        return None
    signature, disk, offset, disks = _LOCATOR.unpack(
        _read_at(file, locator_offset, _LOCATOR.size, "the 64-bit locator")
    )
    if signature != b"PK\6\7":
        return None
    if disk or disks != 1 or offset + _END64.size != locator_offset:
        raise Refusal("Its 64-bit end record is not at the offset in its locator.")
    signature, length, _, _, *rest = _END64.unpack(
        _read_at(file, offset, _END64.size, "the 64-bit end record")
    )
    if signature != b"PK\6\6" or length != _END64.size - 12:
        raise Refusal("Its 64-bit end record is damaged.", COPY)
    return offset, *rest


def _entries(directory: bytes, directory_offset: int, count: int) -> Iterator[_Entry]:
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(directory):
            raise Refusal("Its central directory has fewer records than its end record says.")
        signature, _, _, flags, method, _, _, crc, stored_size, size, *rest = _CENTRAL.unpack_from(
            directory, at
        )
        name_size, extra_size, comment_size, disk, _, _, header_offset = rest
        start = at
        at += _CENTRAL.size
        name = directory[at : at + name_size]
        at += name_size
        extra = directory[at : at + extra_size]
        at += extra_size + comment_size
        if signature != b"PK\1\2" or at > len(directory):
            raise Refusal("Its central directory is damaged.", COPY)
        if disk:
            raise Refusal("It is one part of a multi-part archive.")
        numbers = [size, stored_size, header_offset]
        wide = _zip64_numbers(extra, name)
        full = [index for index, number in enumerate(numbers) if number == _FULL32]
        if len(wide) != len(full):
            raise Refusal(f"The 64-bit sizes of the record {shown(name)} do not fit its entry.")
        for index, number in zip(full, wide, strict=True):
            numbers[index] = number
        size, stored_size, header_offset = numbers
        entry = _Entry(
            directory_offset + start, name, flags, method, crc, stored_size, size, header_offset
        )
        _check_kind(entry)
        yield entry
    if at != len(directory):
        raise Refusal("Its central directory has unknown bytes after its records.")


def _check_kind(entry: _Entry) -> None:
    if entry.method not in (_STORED, _DEFLATED):
        raise Refusal(f"{entry.title} has a compression method that torch cannot read.")
    known = _HAS_DESCRIPTOR | _UTF8 | (_DEFLATE_LEVEL if entry.method == _DEFLATED else 0)
    if entry.flags & 1:
        raise Refusal(f"{entry.title} is encrypted.")
    if entry.flags & ~known:
        raise Refusal(f"{entry.title} has flags that torch does not write ({entry.flags:#06x}).")
    if entry.method == _STORED and entry.size != entry.stored_size:
        raise Refusal(f"{entry.title} is not compressed, but has two different sizes.")


def _decode(entry: _Entry) -> str:
    try:
        name = entry.name.decode("utf-8" if entry.flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        raise Refusal(f"{entry.title} has a name in an unknown encoding.") from None
    parts = name.removesuffix("/").split("/")
    if not name.isprintable() or "\\" in name or any(part in ("", ".", "..") for part in parts):
        raise Refusal(f"{entry.title} has a name that is not a plain path.")
    return name


def _check_tiling(file: BinaryIO, entries: list[_Entry], directory_offset: int) -> list[int]:
    """Check that local headers agree and records leave no gaps; return their data offsets."""
    order = sorted(range(len(entries)), key=lambda index: entries[index].header_offset)
    data_offsets = [0] * len(entries)
    end = 0
    for index in order:
        entry = entries[index]
        if entry.header_offset < end:
            raise Refusal(f"{entry.title} overlaps the record before it.")
        if entry.header_offset > end:
            raise Refusal(f"{entry.title} has unknown bytes before it.")
        data_offsets[index], end = _check_local(file, entry, directory_offset)
        if end > directory_offset:
            raise Refusal(f"{entry.title} runs past the end of the records.")
    if end != directory_offset:
        raise Refusal("There are unknown bytes between the last record and the central directory.")
    return data_offsets


def _check_local(file: BinaryIO, entry: _Entry, limit: int) -> tuple[int, int]:
    """Compare a local header with its central entry; return data offset and end of the record."""
    data_offset = entry.header_offset + _LOCAL.size
    if data_offset > limit:
        raise Refusal(f"{entry.title} runs past the end of the records.")
    header = _read_at(file, entry.header_offset, _LOCAL.size, entry)
    signature, _, flags, method, _, _, *numbers, name_size, extra_size = _LOCAL.unpack(header)
    data_offset += name_size + extra_size
    end = data_offset + entry.stored_size
    if end > limit:
        raise Refusal(f"{entry.title} runs past the end of the records.")
    names = _read_at(file, entry.header_offset + _LOCAL.size, name_size + extra_size, entry)
    local = (signature, names[:name_size], flags, method)
    if local != (b"PK\3\4", entry.name, entry.flags, entry.method):
        raise Refusal(f"{entry.title} has a local header that contradicts the central directory.")
    wide = _zip64_numbers(names[name_size:], entry.name)
    real = [entry.crc, entry.stored_size, entry.size]
    if flags & _HAS_DESCRIPTOR:
        form = _DESCRIPTOR64 if wide else _DESCRIPTOR
        if end + form.size > limit:
            raise Refusal(f"{entry.title} runs past the end of the records.")
        if form.unpack(_read_at(file, end, form.size, entry)) != (b"PK\7\x08", *real):
            raise Refusal(f"{entry.title} is followed by wrong sizes or a wrong checksum.")
        end += form.size
    _check_local_numbers(entry, numbers, wide, may_be_zero=bool(flags & _HAS_DESCRIPTOR))
    return data_offset, end


def _check_local_numbers(
    entry: _Entry, numbers: list[int], wide: list[int], *, may_be_zero: bool
) -> None:
    # PyTorch writes 0 for all numbers if a descriptor follows. For a large record, it also writes
    # the sizes as 64-bit numbers, and for a record far into the file, its offset. zipfile refers to
    # the 64-bit numbers by the value 2³² − 1 in the 32-bit ones, and writes 0 to a file that it
    # cannot seek.
    expected = [entry.size, entry.stored_size, entry.header_offset][: len(wide)]
    if len(wide) == 1:
        expected = [entry.header_offset]
    pairs = list(zip(numbers, (entry.crc, entry.stored_size, entry.size), strict=True))
    if len(wide) > 1:
        pairs = [pair for pair in pairs if pair[0] != _FULL32]
    for local, real in [*pairs, *zip_longest(wide, expected)]:
        if local != real and not (may_be_zero and local == 0):
            raise Refusal(
                f"{entry.title} has a local header that contradicts the central directory."
            )


def _zip64_numbers(extra: bytes, name: bytes) -> list[int]:
    """Return the numbers in the 64-bit field of the extra fields; empty if there is none."""
    numbers = None
    at = 0
    while at < len(extra):
        if at + 4 > len(extra):
            raise Refusal(f"The extra fields of the record {shown(name)} are damaged.")
        kind, length = struct.unpack_from("<2H", extra, at)
        at += 4
        if at + length > len(extra) or kind == _UNICODE_NAME_FIELD:
            raise Refusal(f"The extra fields of the record {shown(name)} are damaged.")
        if kind == _ZIP64_FIELD:
            if numbers is not None or not length or length % 8:
                raise Refusal(f"The 64-bit sizes of the record {shown(name)} are damaged.")
            numbers = list(struct.unpack_from(f"<{length // 8}Q", extra, at))
        at += length
    return numbers or []


def _read_at(file: BinaryIO, offset: int, size: int, what: "str | _Entry") -> bytes:
    file.seek(offset)
    content = file.read(size)
    if len(content) != size:
        title = what if isinstance(what, str) else what.title
        raise Refusal(f"It ended inside {title}.", COPY)
    return content
