import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from soupcore.safe_torch.archive import Archive, read_archive, read_record
from soupcore.safe_torch.refusal import Refusal

STATE = {"w": torch.arange(5.0), "none": torch.empty(0), "b": torch.ones(1000)}
LOCAL, CENTRAL, END, LOCATOR, END64 = 30, 46, 22, 20, 56


def saved(alignment: int = 64) -> bytes:
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer, True, alignment)
    source = io.BytesIO()
    torch.save(STATE, source)
    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            if name.partition("/")[2] not in ("version", ".data/serialization_id"):
                writer.write_record(name.partition("/")[2], content, len(content))
    writer.write_end_of_file()
    return buffer.getvalue()


def zipped(*, streamed: bool = False, wide: bool = False, method: int = 0) -> bytes:
    """Records as torch names them, but written by Python's zipfile."""
    buffer = io.BytesIO()
    if streamed:
        buffer.seekable = lambda: False  # type: ignore[method-assign]
        buffer.tell = lambda: (_ for _ in ()).throw(OSError)  # type: ignore[method-assign]
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in (("data.pkl", b"pickle" * 50), ("data/0", bytes(80))):
            entry = zipfile.ZipInfo(f"root/{name}")
            entry.compress_type = method
            with archive.open(entry, "w", force_zip64=wide) as file:
                file.write(content)
    return buffer.getvalue()


def read(content: bytes) -> Archive:
    return read_archive(io.BytesIO(content))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(saved(), id="torch"),
        pytest.param(saved(alignment=4096), id="torch, pages"),
        pytest.param(saved(alignment=1), id="torch, not aligned"),
        *(
            pytest.param(
                zipped(streamed=streamed, wide=wide, method=method),
                id=f"zipfile, streamed={streamed}, wide={wide}, method={method}",
            )
            for streamed in (False, True)
            for wide in (False, True)
            for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        ),
    ],
)
def test_records_of_an_archive_are_those_that_zipfile_finds(content: bytes) -> None:
    archive = read(content)
    file = io.BytesIO(content)
    with zipfile.ZipFile(file) as oracle:
        entries = oracle.infolist()
        assert [f"{archive.root}/{name}" for name in archive.records] == oracle.namelist()
        for entry, record in zip(entries, archive.records.values(), strict=True):
            assert (record.size, record.stored_size) == (entry.file_size, entry.compress_size)
            assert (record.crc, record.header_offset) == (entry.CRC, entry.header_offset)
            assert record.compressed == (entry.compress_type == zipfile.ZIP_DEFLATED)
            assert record.has_descriptor == bool(entry.flag_bits & 8)
            assert read_record(file, record, 10_000) == oracle.read(entry)
            assert struct.unpack_from("<I", content, record.central_offset + 16)[0] == record.crc
    assert archive.size == len(content)


def test_a_file_saved_with_a_path_has_its_name_as_root(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "名.pt")
    torch.save(STATE, tmp_path / "best.pt")
    with (tmp_path / "best.pt").open("rb") as file, (tmp_path / "名.pt").open("rb") as other:
        assert read_archive(file).root == "best"
        assert read_archive(other).records.keys() == read_archive(file).records.keys()


def test_folder_entries_of_other_zip_tools_are_no_records() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("root/", b"")
        archive.writestr("root/data/", b"")
        archive.writestr("root/data/0", b"abc")
    assert list(read(buffer.getvalue()).records) == ["data/0"]


def as_torch_writes_past_4_gib(path: Path, large: int) -> None:
    """The layout that torch.save gives a file with a tensor of more than 4 GiB, with holes."""
    central = b""
    with path.open("wb") as file:
        for name, size in ((b"a/data.pkl", 9), (b"a/data/0", large), (b"a/version", 2)):
            offset = file.tell()
            wide = size >= 1 << 32
            sizes = struct.pack("<2Q", size, 0) if wide else b""
            place = struct.pack("<Q", offset) if offset >= 1 << 32 else b""
            extra = struct.pack("<2H", 1, len(sizes + place)) + sizes + place
            extra = (extra if sizes + place else b"") + b"FB\x02\x00ZZ"
            fixed = struct.pack("<5H", 0, 0x808, 0, 0, 0)
            file.write(b"PK\3\4" + fixed + struct.pack("<3I2H", 0, 0, 0, len(name), len(extra)))
            file.write(name + extra)
            if name == b"a/version":
                file.write(b"3\n")
            else:
                file.seek(size, io.SEEK_CUR)
            crc = 0x12345678
            form = "<4sI2Q" if sizes + place else "<4sI2I"
            file.write(struct.pack(form, b"PK\7\x08", crc, size, size))
            declared = min(size, 0xFFFFFFFF)
            sizes = struct.pack("<2Q", size, size) if wide else b""
            extra = struct.pack("<2H", 1, len(sizes + place)) + sizes + place
            extra = extra if sizes + place else b""
            central += b"PK\1\2\0\0" + fixed + struct.pack("<3I", crc, declared, declared)
            central += struct.pack(
                "<5H2I", len(name), len(extra), 0, 0, 0, 0, min(offset, 2**32 - 1)
            )
            central += name + extra
        start = file.tell()
        file.write(central)
        end = file.tell()
        file.write(
            struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 798, 45, 0, 0, 3, 3, end - start, start)
        )
        file.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        short = min(start, 0xFFFFFFFF)
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 3, 3, end - start, short, 0))


def test_an_archive_of_more_than_4_gib_is_read_as_torch_writes_it(tmp_path: Path) -> None:
    as_torch_writes_past_4_gib(tmp_path / "a.pt", 5 << 30)
    with (tmp_path / "a.pt").open("rb") as file:
        archive = read_archive(file)
    assert [record.size for record in archive.records.values()] == [9, 5 << 30, 2]
    assert archive.records["version"].header_offset > 5 << 30
    reader: Any = torch._C.PyTorchFileReader(str(tmp_path / "a.pt"))
    for name, record in archive.records.items():
        assert reader.get_record_offset(name) == record.data_offset


def test_wrong_64_bit_sizes_are_refused(tmp_path: Path) -> None:
    as_torch_writes_past_4_gib(tmp_path / "a.pt", 5 << 30)
    with (tmp_path / "a.pt").open("r+b") as file:
        archive = read_archive(file)
        file.seek(archive.records["data/0"].header_offset + LOCAL + len("a/data/0") + 4)
        file.write(struct.pack("<Q", (5 << 30) - 1))
        with pytest.raises(Refusal, match="'a/data/0' has a local header that contradicts"):
            read_archive(file)


Lie = Callable[[bytearray, Archive], bytes]


def put(where: Callable[[Archive], int], form: str, *values: int | bytes) -> Lie:
    def lie(content: bytearray, archive: Archive) -> bytes:
        struct.pack_into(form, content, where(archive), *values)
        return bytes(content)

    return lie


def renamed(old: bytes, new: bytes) -> Lie:
    return lambda content, archive: bytes(content).replace(old, new)


def both(at: int, form: str, value: int) -> Lie:
    """Say the same in the local header and in the central directory."""

    def lie(content: bytearray, archive: Archive) -> bytes:
        record = archive.records["data/0"]
        struct.pack_into(form, content, record.header_offset + at, value)
        struct.pack_into(form, content, record.central_offset + at + 2, value)
        return bytes(content)

    return lie


def more_records(count: int) -> Lie:
    def lie(content: bytearray, archive: Archive) -> bytes:
        struct.pack_into("<2H", content, len(content) - END + 8, 65535, 65535)
        at = len(content) - END - LOCATOR - END64
        struct.pack_into("<2Q", content, at + 24, count, count)
        return bytes(content)

    return lie


def junk_before_the_directory(content: bytearray, archive: Archive) -> bytes:
    at = min(record.central_offset for record in archive.records.values())
    content[at:at] = b"junk"
    end64 = len(content) - END - LOCATOR - END64
    struct.pack_into("<Q", content, end64 + 48, at + 4)
    struct.pack_into("<Q", content, len(content) - END - LOCATOR + 8, end64)
    struct.pack_into("<I", content, len(content) - END + 16, at + 4)
    return bytes(content)


def first(archive: Archive) -> int:
    return archive.records["data/0"].header_offset


def entry(archive: Archive) -> int:
    return archive.records["data/0"].central_offset


def descriptor(archive: Archive) -> int:
    return archive.records["data/0"].data_offset + archive.records["data/0"].size


def end(archive: Archive) -> int:
    return archive.size - END


def end64(archive: Archive) -> int:
    return archive.size - END - LOCATOR - END64


@pytest.mark.parametrize(
    ("lie", "problem"),
    [
        pytest.param(lambda c, a: b"", "too short", id="empty"),
        pytest.param(lambda c, a: b"<html>" * 10, "does not end like", id="no zip"),
        pytest.param(lambda c, a: bytes(c[:-1]), "does not end like", id="truncated"),
        pytest.param(lambda c, a: bytes(c) + b"x", "does not end like", id="something after it"),
        pytest.param(lambda c, a: b"x" + bytes(c), "not at the offset", id="something before it"),
        pytest.param(lambda c, a: bytes(c) * 2, "not at the offset", id="two archives"),
        pytest.param(lambda c, a: bytes(c[:-2]) + b"\1\0x", "does not end like", id="comment"),
        pytest.param(
            lambda c, a: bytes(c[a.size // 2 :]), "not at the offset", id="first half missing"
        ),
        pytest.param(junk_before_the_directory, "between the last record and", id="junk"),
        pytest.param(renamed(b"archive/data/2", b"archive/data/0"), "occurs twice", id="twice"),
        pytest.param(renamed(b"archive/byteorder", b"archive/DATA.PKL\0"), "plain path", id="NUL"),
        pytest.param(renamed(b"archive/data/2", b"archive/DATA/0"), "occurs twice", id="case"),
        pytest.param(renamed(b"archive/data/2", b"archive/../222"), "plain path", id=".."),
        pytest.param(renamed(b"archive/data/2", b"/rchive/data/2"), "plain path", id="absolute"),
        pytest.param(renamed(b"archive/data/2", b"archive//ata/2"), "plain path", id="empty part"),
        pytest.param(renamed(b"archive/data/2", b"archive\\data\\2"), "plain path", id="backslash"),
        pytest.param(renamed(b"archive/data/2", b"archive/dat\xff/2"), "encoding", id="no UTF-8"),
        pytest.param(renamed(b"archive/data/2", b"brchive/data/2"), "several folders", id="roots"),
        pytest.param(
            renamed(b"archive/data/2", b"archive.data.2"), "is not in a folder", id="no root"
        ),
        pytest.param(renamed(b"archive/data/2", b"archive/data2/"), "has contents", id="folder"),
        pytest.param(both(6, "<H", 0x809), "encrypted", id="encrypted"),
        pytest.param(both(6, "<H", 0x828), "flags", id="patch data"),
        pytest.param(both(8, "<H", 12), "compression method that torch cannot", id="bzip2"),
        pytest.param(put(first, "<4s", b"PK\3\5"), "local header", id="local signature"),
        pytest.param(put(lambda a: first(a) + 6, "<H", 8), "local header", id="local flags"),
        pytest.param(put(lambda a: first(a) + 8, "<H", 8), "local header", id="local method"),
        pytest.param(put(lambda a: first(a) + 14, "<I", 1), "local header", id="local CRC"),
        pytest.param(put(lambda a: first(a) + 18, "<I", 19), "local header", id="local size"),
        pytest.param(
            put(lambda a: first(a) + 18, "<I", 2**32 - 1), "local header", id="no 64-bit size"
        ),
        pytest.param(put(lambda a: first(a) + 26, "<H", 9), "local header", id="name size"),
        pytest.param(put(lambda a: first(a) + 28, "<H", 60000), "runs past", id="long extra"),
        pytest.param(put(lambda a: first(a) + LOCAL, "B", 66), "local header", id="local name"),
        pytest.param(
            put(lambda a: first(a) + LOCAL + 16, "<H", 60000), "extra fields", id="extra size"
        ),
        pytest.param(
            put(lambda a: first(a) + LOCAL + 14, "<H", 0x7075), "extra fields", id="second name"
        ),
        pytest.param(
            put(lambda a: first(a) + LOCAL + 14, "<H", 1), "64-bit sizes", id="padding as sizes"
        ),
        pytest.param(put(descriptor, "<4s", b"PK\7\7"), "followed by", id="no descriptor"),
        pytest.param(put(lambda a: descriptor(a) + 4, "<I", 1), "followed by", id="its CRC"),
        pytest.param(put(lambda a: descriptor(a) + 8, "<I", 1), "followed by", id="its size"),
        pytest.param(put(entry, "<4s", b"PK\1\3"), "is damaged", id="central signature"),
        pytest.param(put(lambda a: entry(a) + 8, "<H", 0x800), "contradicts", id="central flags"),
        pytest.param(put(lambda a: entry(a) + 16, "<I", 1), "followed by", id="central CRC"),
        pytest.param(put(lambda a: entry(a) + 20, "<2I", 24, 24), "followed by", id="longer"),
        pytest.param(put(lambda a: entry(a) + 20, "<I", 21), "two different sizes", id="two sizes"),
        pytest.param(
            put(lambda a: entry(a) + 20, "<2I", 2**31, 2**31), "runs past", id="past the end"
        ),
        pytest.param(
            put(lambda a: entry(a) + 24, "<I", 2**32 - 1), "64-bit sizes", id="no central 64-bit"
        ),
        pytest.param(put(lambda a: entry(a) + 28, "<H", 65000), "is damaged", id="name length"),
        pytest.param(put(lambda a: entry(a) + 30, "<H", 4), "extra fields|damaged", id="extra"),
        pytest.param(put(lambda a: entry(a) + 34, "<H", 1), "multi-part archive", id="disk"),
        pytest.param(put(lambda a: entry(a) + 42, "<I", 0), "overlaps", id="same offset"),
        pytest.param(put(lambda a: entry(a) + 42, "<I", 2**31), "before it", id="far offset"),
        pytest.param(more_records(200_001), "200001 records", id="too many"),
        pytest.param(more_records(20), "fewer records", id="more records than there are"),
        pytest.param(more_records(3), "unknown bytes after", id="fewer records than there are"),
        pytest.param(put(lambda a: end(a) + 10, "<H", 3), "contradict", id="end count"),
        pytest.param(put(lambda a: end(a) + 16, "<I", 3), "contradict", id="end offset"),
        pytest.param(put(lambda a: end(a) + 4, "<H", 3), "multi-part archive", id="end disk"),
        pytest.param(put(end64, "<4s", b"PK\6\5"), "is damaged", id="no 64-bit end"),
        pytest.param(put(lambda a: end64(a) + 4, "<Q", 45), "is damaged", id="64-bit end size"),
        pytest.param(put(lambda a: end64(a) + 16, "<I", 1), "multi-part archive", id="64-bit disk"),
        pytest.param(put(lambda a: end64(a) + 24, "<Q", 3), "contradict", id="64-bit count"),
        pytest.param(put(lambda a: end64(a) + 40, "<Q", 1 << 40), "contradict", id="64-bit size"),
        pytest.param(put(lambda a: end(a) - 12, "<Q", 3), "locator", id="locator"),
        pytest.param(put(lambda a: end(a) - 4, "<I", 2), "locator", id="number of disks"),
        pytest.param(put(lambda a: end(a) - 20, "<I", 2), "not at the offset", id="locator erased"),
    ],
)
def test_ambiguous_archives_are_refused(lie: Lie, problem: str) -> None:
    content = saved()
    with pytest.raises(Refusal, match=problem):
        read(lie(bytearray(content), read(content)))


def test_a_too_large_directory_is_refused(tmp_path: Path) -> None:
    length = 1 << 31
    with (tmp_path / "a.pt").open("wb") as file:
        file.seek(length)
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 9, 9, length, 0, 0))
    with (tmp_path / "a.pt").open("rb") as file, pytest.raises(Refusal, match="the limit is"):
        read_archive(file)


@given(st.data())
def test_flipped_bytes_never_change_a_record_silently(data: st.DataObject) -> None:
    content = bytearray(saved())
    archive = read(bytes(content))
    for _ in range(data.draw(st.integers(1, 3))):
        # Headers and directory are most of so small a file; the end is drawn more often.
        at = data.draw(st.integers(0, len(content) - 1) | st.integers(-900, -1))
        content[at] ^= data.draw(st.integers(1, 255))
    try:
        found = read(bytes(content))
    except Refusal:
        return
    assert found == archive


def changed_record(content: bytes, name: str, at: int) -> tuple[BinaryIO, Archive]:
    archive = read(content)
    damaged = bytearray(content)
    damaged[archive.records[name].data_offset + at] ^= 1
    return io.BytesIO(damaged), archive


@pytest.mark.parametrize(
    ("content", "name"),
    [
        pytest.param(saved(), "data/0", id="stored"),
        pytest.param(zipped(method=zipfile.ZIP_DEFLATED), "data.pkl", id="deflated"),
    ],
)
def test_a_damaged_record_is_refused_when_it_is_read(content: bytes, name: str) -> None:
    for at in range(read(content).records[name].stored_size):
        file, archive = changed_record(content, name, at)
        with pytest.raises(Refusal, match=f"{name}"):
            read_record(file, archive.records[name], 10_000)


def test_a_record_is_read_up_to_a_limit_however_small_it_lies_in_the_file() -> None:
    squeezed = zlib.compress(bytes(100 << 20), 9, -15)
    name = b"a/data.pkl"
    numbers = struct.pack("<3I", 0, len(squeezed), 100)
    local = b"PK\3\4" + struct.pack("<5H", 0, 0, 8, 0, 0) + numbers
    local += struct.pack("<2H", len(name), 0) + name + squeezed
    central = b"PK\1\2" + struct.pack("<6H", 0, 0, 0, 8, 0, 0) + numbers
    central += struct.pack("<5H2I", len(name), 0, 0, 0, 0, 0, 0) + name
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0)
    file = io.BytesIO(local + central + tail)
    record = read_archive(file).records["data.pkl"]
    with pytest.raises(Refusal, match="100 bytes; the limit is 99"):
        read_record(file, record, 99)
    with pytest.raises(Refusal, match="does not inflate to 100 bytes"):
        read_record(file, record, 1 << 20)
