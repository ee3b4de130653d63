"""Writing a `.pt` that is another one with other weights in it.

Training code loads what it saved: a model object, arguments, the state of an optimizer. So the file
of ingredient 1 is copied byte for byte, and only the storages that hold its weights are replaced,
with their checksums. Nothing is pickled or unpickled; everything else in the file is as it was.
"""

import os
import struct
from collections.abc import Callable, Iterable, Mapping

from isal import isal_zlib

from soupcore.checkpoints.checkpoint import Checkpoint, TensorInfo
from soupcore.checkpoints.contents import View
from soupcore.checkpoints.files import WeightFile
from soupcore.checkpoints.storages import Chunks, new_bytes
from soupcore.checkpoints.torch_format import TorchCheckpoint
from soupcore.errors import CheckpointError
from soupcore.new_files import NewFile
from soupcore.strict.archive import Record, read_archive


def why_not_like(source: Checkpoint, tensors: Mapping[str, TensorInfo]) -> str | None:
    """Return why weights cannot be written in the form of a checkpoint, or None where they can.

    Args:
        source: The checkpoint whose file would be copied.
        tensors: `{name: TensorInfo}` of the weights, under its names.
    """
    if len(source.files) > 1:
        return f"{source.path.name} stands for several files, and a copy is made of one only."
    if not isinstance(source, TorchCheckpoint):
        return f"{source.path.name} was not written by torch.save, so there is none to copy."
    if executes := source.contents.executes:
        names = ", ".join(executes[:3]) + (" and more" if len(executes) > 3 else "")
        return (
            f"Loading {source.path.name} runs or imports more than is known to be harmless "
            f"({names}), and so would loading a copy of it."
        )
    for name, info in tensors.items():
        there = source.tensors.get(name)
        if there is None:
            return f"{source.path.name} has no tensor {name!r}."
        if there != info:
            return (
                f"Tensor {name!r} is {_described(there)} in {source.path.name} and "
                f"{_described(info)} in the soup; a .pt keeps what is there."
            )
    return None


def write_like(
    new: NewFile,
    source: TorchCheckpoint,
    names: Iterable[str],
    chunks: Chunks,
    on_bytes: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Write a copy of a torch file with other values in its weights.

    Ties, views and shared storages stay what they are. Memory does not depend on the size of the
    model, except for a storage whose tensors overlap or are not contiguous: it and one of its
    tensors are in memory at a time.

    Args:
        new: Where to.
        source: The file to copy, for which `why_not_like` returned None.
        names: The tensors that get other values.
        chunks: `chunks(name)` gives the elements of such a tensor in order, as 1-D tensors of its
            dtype; it may be asked for twice.
        on_bytes: Called with the number of bytes written since the last call; it may raise to
            stop.

    Raises:
        CheckpointError: Tensors that share memory in `source` were given different values there,
            or the chunks of a tensor are not as many elements as it has.
    """
    file = source.file
    records = _records(file) if source.contents.format == "zip" else {}
    views_in: dict[str, dict[str, View]] = {}
    for name in names:
        view = source.views[name]
        views_in.setdefault(view.storage, {})[name] = view
    _, _, size, _ = file.identity
    target = new.file.fileno()
    position = 0

    def put(piece: memoryview) -> None:
        nonlocal position
        _write(target, piece, position)
        position += len(piece)
        on_bytes(len(piece))

    checksums: dict[int, int] = {}
    for key in sorted(views_in, key=lambda key: source.contents.storages[key].offset):
        place = source.contents.storages[key]
        for piece in file.pieces(position, place.offset):
            put(piece)
        crc = 0
        for piece in new_bytes(file, place, views_in[key], chunks):
            crc = isal_zlib.crc32(piece, crc)
            put(piece)
        if key in records:
            checksums |= dict.fromkeys(_checksum_offsets(file, records[key]), crc)
    for piece in file.pieces(position, size):
        put(piece)
    for offset, crc in checksums.items():
        _write(target, memoryview(struct.pack("<I", crc)), offset)
    file.check_unchanged()


def _described(info: TensorInfo) -> str:
    return f"{str(info.dtype).removeprefix('torch.')} {list(info.shape)}"


def _records(file: WeightFile) -> dict[str, Record]:
    """Return the records of the storages by their keys."""
    with file.path.open("rb") as opened:
        if not os.path.samestat(os.fstat(opened.fileno()), os.fstat(file.descriptor().number)):
            raise CheckpointError(f"{file.path} was changed after it was opened. Reload the sweep.")
        archive = read_archive(opened)
    return {
        name.removeprefix("data/"): record
        for name, record in archive.records.items()
        if name.startswith("data/")
    }


def _checksum_offsets(file: WeightFile, record: Record) -> list[int]:
    """Return everywhere that the archive gives the CRC-32 of a record."""
    offsets = [record.central_offset + 16]
    in_header = record.header_offset + 14
    if not record.has_descriptor:
        return [*offsets, in_header]
    offsets.append(record.data_offset + record.stored_size + 4)
    said = bytearray(4)
    file.read_into(memoryview(said), in_header)
    return [*offsets, in_header] if any(said) else offsets  # torch leaves it 0


def _write(target: int, piece: memoryview, offset: int) -> None:
    while piece:
        count = os.pwrite(target, piece, offset)
        piece = piece[count:]
        offset += count
