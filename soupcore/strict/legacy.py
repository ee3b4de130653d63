"""The format of `torch.save` before torch 1.6: pickles in a row, then the storages.

Magic number, protocol version, facts about the machine, the object, the keys of the storages; after
these five pickles each storage as a 64-bit count of elements and its bytes, in the order of the
keys (`_legacy_save` in torch/serialization.py).
"""

import os
import struct
from typing import Any, BinaryIO

from soupcore.strict.names import check_name
from soupcore.strict.pickles import MOST_BYTES, Machine
from soupcore.strict.refusal import COPY, Refusal
from soupcore.strict.tensors import CALLS, ITEM_SIZES, Storage, storage_of
from soupcore.strict.values import Global

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_COUNT = struct.Struct("<q")

_SAVE = "Save it again with torch.save."


def read_legacy(file: BinaryIO) -> tuple[Any, Machine, dict[str, tuple[int, int]]]:
    """Read a file of before torch 1.6; of the storages, only where they are.

    Args:
        file: The file, seekable.

    Returns:
        The object, the machine that made it, and `{key: (offset, nbytes)}` of the storages.

    Raises:
        Refusal: It is not such a file, is damaged, or is not one that `torch.save` writes.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    storages: dict[str, Storage] = {}
    machine = Machine(
        file.read(MOST_BYTES), CALLS, lambda pid: _persistent(pid, storages), _check_name
    )
    if machine.load() != _MAGIC:
        raise Refusal(
            "It is a pickle, but not one of torch.save.", "Save it again with torch.save."
        )
    if machine.load() != _VERSION:
        raise Refusal("It is of an unknown version of torch's format.", _SAVE)
    machine_facts = machine.load()
    if type(machine_facts) is not dict or machine_facts.get("little_endian") is not True:
        raise Refusal("It was saved on a big-endian machine.", "Save it again on a usual one.")
    tree = machine.load()
    keys = machine.load()
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise Refusal("Its list of storages is damaged.", COPY)
    if len(set(keys)) != len(keys) or set(keys) != set(storages):
        raise Refusal("Its list of storages is not that of its tensors; the file is damaged.", COPY)
    places = {}
    position = machine.position
    for key in keys:
        file.seek(position)
        prefix = file.read(_COUNT.size)
        if len(prefix) != _COUNT.size:
            raise Refusal(f"It ended before the storage {key!r}: it was cut short.", COPY)
        storage = storages[key]
        position += _COUNT.size
        if _COUNT.unpack(prefix)[0] * ITEM_SIZES[storage.dtype] != storage.nbytes:
            raise Refusal(f"Its storage {key!r} has another size than its tensors say.", COPY)
        if position + storage.nbytes > size:
            raise Refusal(f"It ended inside the storage {key!r}: it was cut short.", COPY)
        places[key] = (position, storage.nbytes)
        position += storage.nbytes
    if position != size:
        raise Refusal(f"{size - position} bytes were added after its last storage.", COPY)
    return tree, machine, places


def _check_name(path: str) -> None:
    if path == "torch.storage._load_from_bytes":
        raise Refusal(
            "It was written by pickle.dump, which puts files of torch into the pickle.",
            "If you trust it, load it with pickle and save the state dict with torch.save.",
        )
    check_name(path)


def _persistent(pid: Any, storages: dict[str, Storage]) -> Any:
    match pid:
        case ("module", Global() as cls, _, _):  # with its source code, which torch compares
            return cls
        case ("storage", *_, None):
            return storage_of(pid[:-1], storages)
        case ("storage", _, _, _, _, _):
            raise Refusal("It has views of storages, which torch wrote before 0.4.", _SAVE)
    raise Refusal("Its pickle describes a storage in a way that torch.save does not.")
