"""Placeholders of remote checkpoints that hold only their headers, from a few range requests.

A placeholder is a sparse file of the full size. It opens like the checkpoint and has the names,
shapes and dtypes of its tensors, but its weights are zeros and must not be used.

- safetensors: the beginning of the file, by one request if the header has 128 KiB or less.
- `.pt` files of torch 1.6 and later are zip archives: the beginning, with the pickle, and the end,
  with the directory. The headers between the records follow from the directory.
- `.pt` files from before torch 1.6: the beginning, with the pickles. The numbers before the
  storages follow from these.
- Other files, such as pickles, cannot be opened without all of their bytes.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile, ZipInfo

from soupcore.checkpoints.recognition import BEGINNING, is_legacy, is_safetensors
from soupcore.checkpoints.sandbox import legacy_prefixes
from soupcore.errors import CheckpointError

FIRST = 128 << 10  # bytes of the first request
_LAST = 64 << 10  # bytes of the request for a zip's directory
_LARGEST_HEADER = 100 << 20  # bytes, the limit of safetensors
_LARGEST_PICKLE = 16 << 20  # bytes, the limit of `soupcore.safe_torch`
_LONGER = (2 << 20, _LARGEST_PICKLE)  # bytes of the beginning, if the first are too few
_COUNT = struct.Struct("<q")

_ZIP = b"PK\3\4"
_END, _END64 = b"PK\5\6", b"PK\6\6"
_LOCAL = struct.Struct("<4s5H3I2H")
_HAS_DESCRIPTOR = 1 << 3
_DESCRIPTOR_SIZES = (16, 24)
_ALIGNMENT = 64  # of the data in torch's archives
_PADDING = 0x4246  # "FB", the extra field with which torch aligns data

Read = Callable[[int, int], bytes]
"""Returns the bytes from a start to a stop, by one request."""


def write_placeholder(path: Path, size: int, read: Read) -> bool:
    """Write a placeholder of a checkpoint.

    Args:
        path: The placeholder.
        size: Size of the checkpoint in bytes.
        read: Reads a range of it.

    Returns:
        Whether it can be opened like the checkpoint.
    """
    beginning = read(0, min(FIRST, size))
    with path.open("wb") as file:
        file.truncate(size)
        file.write(beginning)
        if len(beginning) == size:
            return True
        if is_safetensors(beginning[:BEGINNING], size):
            stop = 8 + int.from_bytes(beginning[:8], "little")
            if stop > 8 + _LARGEST_HEADER:
                return False
            if stop > len(beginning):
                file.write(read(len(beginning), stop))
            return True
        if is_legacy(beginning):
            return _write_legacy(file, path, len(beginning), size, read)
        return beginning.startswith(_ZIP) and _write_archive(file, path, size, read)


def _write_archive(file: BinaryIO, path: Path, size: int, read: Read) -> bool:
    last = max(size - _LAST, FIRST)
    end = read(last, size)
    file.seek(last)
    file.write(end)
    start = _directory_offset(end)
    if start is None or not 0 < start < size:
        return False
    if start < last:
        file.seek(start)
        file.write(read(start, last))
    file.flush()
    try:
        with ZipFile(path) as archive:
            records = sorted(archive.infolist(), key=lambda record: record.header_offset)
    except (BadZipFile, ValueError, OverflowError, struct.error):
        return False
    for record, stop in zip(
        records, [*(other.header_offset for other in records[1:]), start], strict=True
    ):
        if not _write_headers(file, record, stop, known=(FIRST, last)):
            return False
    pickle = next((r for r in records if r.filename.endswith("/data.pkl")), None)
    if pickle is None or pickle.compress_size > _LARGEST_PICKLE:
        return False
    stop = pickle.header_offset + _LOCAL.size + len(pickle.orig_filename) + pickle.compress_size
    stop = min(stop + 2 * _ALIGNMENT, size)
    if stop > FIRST and pickle.header_offset < last:
        begin = max(pickle.header_offset, FIRST)
        file.seek(begin)
        file.write(read(begin, stop))
    return True


def _write_legacy(file: BinaryIO, path: Path, known: int, size: int, read: Read) -> bool:
    for stop in (known, *_LONGER):
        stop = min(stop, size)
        if stop > known:
            file.seek(known)
            file.write(read(known, stop))
            known = stop
        file.flush()
        with path.open("rb") as written:
            try:
                prefixes = legacy_prefixes(written.fileno(), path)
            except CheckpointError:
                return False
        if prefixes is not None:
            for at, count in prefixes:
                _write_unknown(file, at, _COUNT.pack(count), (known, size))
            return True
    return False


def _directory_offset(end: bytes) -> int | None:
    at = end.rfind(_END)
    if at < 0 or len(end) < at + 22:
        return None
    offset: int = struct.unpack_from("<I", end, at + 16)[0]
    at64 = end.rfind(_END64, 0, at)
    if at64 >= 0 and len(end) >= at64 + 56:
        offset = struct.unpack_from("<Q", end, at64 + 48)[0]
    return offset


def _write_headers(file: BinaryIO, record: ZipInfo, stop: int, known: tuple[int, int]) -> bool:
    """Write the local header of a record, and the descriptor after its data, as torch writes them.

    Args:
        file: The placeholder.
        record: The record.
        stop: Where the next record begins.
        known: Where the known beginning of the file ends, and where its known end begins.
    """
    name = record.orig_filename.encode()
    fixed = record.header_offset + _LOCAL.size + len(name)
    descriptors = _DESCRIPTOR_SIZES if record.flag_bits & _HAS_DESCRIPTOR else (0,)
    fits = []
    for descriptor in descriptors:
        data = stop - descriptor - record.compress_size
        extra = data - fixed
        if extra == 0 or 4 <= extra < 4 * _ALIGNMENT:
            fits.append((data % _ALIGNMENT != 0, extra, data, descriptor))
    if not fits:
        return False
    _, extra, data, descriptor = min(fits)
    numbers = [0, 0, 0] if descriptor else [record.CRC, record.compress_size, record.file_size]
    if descriptor == _DESCRIPTOR_SIZES[1]:  # its sizes have 64 bits, and so does the extra field
        return known[0] >= stop or known[1] <= record.header_offset
    header = _LOCAL.pack(
        _ZIP, 0, record.flag_bits, record.compress_type, 0, 0, *numbers, len(name), extra
    )
    padding = struct.pack("<2H", _PADDING, extra - 4).ljust(extra, b"Z") if extra else b""
    if descriptor:
        end = struct.pack("<4s3I", b"PK\7\x08", record.CRC, record.compress_size, record.file_size)
        _write_unknown(file, data + record.compress_size, end, known)
    _write_unknown(file, record.header_offset, header + name + padding, known)
    return True


def _write_unknown(file: BinaryIO, at: int, content: bytes, known: tuple[int, int]) -> None:
    """Write bytes except those that are known, which are those of the checkpoint itself."""
    start, stop = max(at, known[0]), min(at + len(content), known[1])
    if start < stop:
        file.seek(start)
        file.write(content[start - at : stop - at])
