"""The three layouts of a torch file: the places of its pickle and its storages.

- Since torch 1.6: a zip archive with the records `data.pkl` and `data/KEY`.
- Before torch 1.6: five pickles (magic number, protocol version, facts about the machine, the
  object, the keys of the storages), then for each storage a 64-bit count of elements and its bytes,
  in the order of the keys (`_legacy_save` in torch/serialization.py).
- Written without torch: a single pickle with NumPy arrays.
"""

import os
import struct
from collections.abc import Callable
from typing import Any, BinaryIO

from soupcore.safe_torch.archive import Archive, read_archive, read_record
from soupcore.safe_torch.execution import check_name
from soupcore.safe_torch.machine import MOST_BYTES, Machine, Window
from soupcore.safe_torch.refusal import COPY, INCOMPLETE, Refusal
from soupcore.safe_torch.tensors import CALLS, ITEM_SIZES, Storage, storage_of
from soupcore.safe_torch.values import Global

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_COUNT = struct.Struct("<q")
_SAVE = "Save it again with torch.save."

Places = dict[str, tuple[int, int, int | None]]
Run = Callable[..., Machine]  # creates a machine from its arguments


def read_tree(file: BinaryIO, run: Run = Machine) -> tuple[str, Any, Machine, Places]:
    """Read the pickle of a torch file.

    Args:
        file: The file, seekable.
        run: Creates the machine that reads the pickle.

    Returns:
        "zip", "legacy" or "pickle"; the unpickled object; the machine that read it; and the places
        of the storages, `{key: (offset in the file, bytes, CRC-32 or None)}`.

    Raises:
        Refusal: The file is not one of torch.save, or is damaged.
    """
    file.seek(0)
    beginning = file.read(64)
    if beginning.startswith(b"PK\3\4"):
        tree, machine, places = _read_zip(file, run)
        kind = "zip"
    elif _ends_as_zip(file):
        raise Refusal("It is a zip archive with something before its first record.", COPY)
    elif not beginning.startswith(b"\x80"):  # as pickles do
        raise Refusal(
            "It is damaged, or not a torch.save file: its first bytes are neither those of a zip "
            "archive nor of a pickle.",
            "Copy or download it again, or save it with torch.save.",
        )
    elif _is_legacy(beginning):
        tree, machine, legacy_places = read_legacy(file, run)
        places = {key: (offset, size, None) for key, (offset, size) in legacy_places.items()}
        kind = "legacy"
    else:
        tree, machine = _read_plain(file, run)
        kind, places = "pickle", {}
    return kind, tree, machine, places


def read_legacy(
    file: BinaryIO, run: Run = Machine
) -> tuple[Any, Machine, dict[str, tuple[int, int]]]:
    """Read a file from before torch 1.6, and find its storages without reading them.

    Args:
        file: The file, seekable.
        run: Creates the machine that reads the pickles.

    Returns:
        The object, the machine that read it, and `{key: (offset, nbytes)}` of the storages.

    Raises:
        Refusal: The file has another format, or is damaged.
    """
    size = file.seek(0, os.SEEK_END)
    tree, machine, storages = _read_legacy_pickles(file, run)
    places = {}
    position = machine.position
    for key, storage in storages.items():
        file.seek(position)
        prefix = file.read(_COUNT.size)
        if len(prefix) != _COUNT.size:
            raise Refusal(f"It ended before the storage {key!r}: it was truncated.", INCOMPLETE)
        position += _COUNT.size
        if _COUNT.unpack(prefix)[0] * ITEM_SIZES[storage.dtype] != storage.nbytes:
            raise Refusal(f"The size of its storage {key!r} contradicts its tensors.", COPY)
        if position + storage.nbytes > size:
            raise Refusal(f"It ended inside the storage {key!r}: it was truncated.", INCOMPLETE)
        places[key] = (position, storage.nbytes)
        position += storage.nbytes
    if position != size:
        raise Refusal(f"It has {size - position} unknown bytes after its last storage.", COPY)
    return tree, machine, places


def legacy_prefixes(file: BinaryIO) -> list[tuple[int, int]]:
    """Return the numbers before the storages of a file from before torch 1.6, by its pickles alone.

    Args:
        file: The file, seekable, of which only the beginning with the pickles has to be there.

    Returns:
        The offset and the number of elements of each storage.

    Raises:
        Refusal: The file has another format, or is damaged.
    """
    _, machine, storages = _read_legacy_pickles(file, Machine)
    prefixes = []
    position = machine.position
    for storage in storages.values():
        prefixes.append((position, storage.nbytes // ITEM_SIZES[storage.dtype]))
        position += _COUNT.size + storage.nbytes
    return prefixes


def _ends_as_zip(file: BinaryIO) -> bool:
    file.seek(-min(22, file.seek(0, os.SEEK_END)), os.SEEK_END)
    return file.read(4) == b"PK\5\6"


def _read_zip(file: BinaryIO, run: Run) -> tuple[Any, Machine, Places]:
    archive = read_archive(file)
    _check_kind(archive)
    order = archive.records.get("byteorder")
    if order and read_record(file, order, 16) != b"little":
        raise Refusal(
            "It was saved on a big-endian machine.", "Save it again on a little-endian one."
        )
    storages: dict[str, Storage] = {}
    pickle_record = archive.records["data.pkl"]
    if pickle_record.size > MOST_BYTES:
        raise Refusal(
            f"Its record 'data.pkl' has {pickle_record.size} bytes; the limit is {MOST_BYTES}. "
            "Names and shapes take far less, so it contains other data, such as NumPy arrays.",
            "Save only the state dict, with torch tensors.",
        )
    pickled = read_record(file, pickle_record, MOST_BYTES)
    machine = run(pickled, CALLS, lambda pid: storage_of(pid, storages), check_name)
    machine.start = None if pickle_record.compressed else pickle_record.data_offset
    tree = machine.load()
    if machine.position != len(pickled):
        raise Refusal(
            "Its record 'data.pkl' has more bytes after its pickle; the file is damaged.", COPY
        )
    places: Places = {}
    for key, storage in storages.items():
        record = archive.records.get(f"data/{key}")
        if record is None:
            raise Refusal(f"Its storage {key!r} is missing; the file is damaged.", COPY)
        if record.compressed:
            raise Refusal(
                f"Its record 'data/{key}' is compressed, which torch never does: the file was "
                "unpacked and zipped again.",
                "Use the original file, or load this one with torch and save it again.",
            )
        if record.size != storage.nbytes:
            raise Refusal(
                f"Its storage {key!r} has {record.size} bytes in its record, but "
                f"{storage.nbytes} according to its pickle; the file is damaged.",
                COPY,
            )
        places[key] = (record.data_offset, record.size, record.crc)
    return tree, machine, places


def _check_kind(archive: Archive) -> None:
    records = archive.records
    if "constants.pkl" in records:
        raise Refusal(
            "It is a TorchScript archive (code and weights in one).",
            "Load it with torch.jit.load and save its state_dict() with torch.save.",
        )
    if "archive_format" in records or any(name.startswith("models/") for name in records):
        raise Refusal(
            "It is a torch.export archive (a program and its weights).",
            "Load it with torch.export.load and save its state_dict with torch.save.",
        )
    if "data.pkl" not in records:
        raise Refusal(
            "It is a zip archive, but not from torch.save (it has no record 'data.pkl').",
            "If it contains a checkpoint, unpack it first.",
        )


def _read_legacy_pickles(file: BinaryIO, run: Run) -> tuple[Any, Machine, dict[str, Storage]]:
    """Return the object, the machine at the end of the pickles, and the storages in their order."""
    file.seek(0)
    storages: dict[str, Storage] = {}
    machine = run(file.read(MOST_BYTES), CALLS, lambda pid: _persistent(pid, storages), _check_name)
    if machine.load() != _MAGIC:
        raise Refusal("It is a pickle, but not from torch.save.", _SAVE)
    if machine.load() != _VERSION:
        raise Refusal("It has an unknown version of torch's format.", _SAVE)
    machine_facts = machine.load()
    if type(machine_facts) is not dict or machine_facts.get("little_endian") is not True:
        raise Refusal(
            "It was saved on a big-endian machine.", "Save it again on a little-endian one."
        )
    tree = machine.load()
    keys = machine.load()
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise Refusal("Its list of storages is damaged.", COPY)
    if len(set(keys)) != len(keys) or set(keys) != set(storages):
        raise Refusal("Its list of storages contradicts its tensors; the file is damaged.", COPY)
    return tree, machine, {key: storages[key] for key in keys}


def _read_plain(file: BinaryIO, run: Run = Machine) -> tuple[Any, Machine]:
    """Read a file that pickle wrote without torch, such as the NumPy arrays of some model zoos.

    Args:
        file: The file, seekable.
        run: Creates the machine that reads the pickle.

    Raises:
        Refusal: The file is damaged, or contains embedded torch files.
    """
    file.seek(0)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    data = file.read() if size <= MOST_BYTES else Window(file)
    machine = run(data, CALLS, lambda pid: _persistent(pid, {}), _check_name)
    machine.start = 0
    tree = machine.load()
    if machine.position != size:
        raise Refusal("It has more bytes after its pickle, and is not from torch.save.", COPY)
    return tree, machine


def _check_name(path: str) -> None:
    if path == "torch.storage._load_from_bytes":
        raise Refusal(
            "It was written by pickle.dump, which embeds torch files in the pickle.",
            "If you trust it, load it with pickle and save the state dict with torch.save.",
        )
    check_name(path)


def _persistent(pid: Any, storages: dict[str, Storage]) -> Any:
    match pid:
        case ("module", Global() as cls, _, _):  # a class and its source code
            return cls
        case ("storage", *_, None):
            return storage_of(pid[:-1], storages)
        case ("storage", _, _, _, _, _):
            raise Refusal("It has views of storages, which torch wrote before 0.4.", _SAVE)
    raise Refusal("Its pickle describes a storage in a way that torch.save does not.")


def _is_legacy(beginning: bytes) -> bool:
    """Return whether a file begins with the magic number of the format before torch 1.6."""
    return _MAGIC.to_bytes(10, "little") in beginning
