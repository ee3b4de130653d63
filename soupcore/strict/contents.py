"""All that is worth knowing of one torch file, as plain values that go through JSON."""

import os
from typing import Any, BinaryIO

from soupcore.strict.archive import Archive, read_archive, read_record
from soupcore.strict.containers import WeightSet, find_weight_sets
from soupcore.strict.descriptions import run_by_ultralytics
from soupcore.strict.legacy import read_legacy
from soupcore.strict.metadata import details_of
from soupcore.strict.names import check_name, may_execute
from soupcore.strict.pickles import MOST_BYTES, Machine
from soupcore.strict.refusal import COPY, Refusal
from soupcore.strict.scalars import Scalars
from soupcore.strict.strings import local_paths_of
from soupcore.strict.tensors import CALLS, Storage, Tensor, storage_of

MOST_NAMED = 100  # names in `executes`
LONGEST_NAME = 1_000  # of a tensor
MOST_REPEATED = 100  # times that the same bytes are named: models that share layers have dozens


def read_contents(file: BinaryIO) -> dict[str, Any]:
    """Read a file that `torch.save` wrote. None of the weights is read, nothing is executed.

    Of tensors beside them, such as a metric, those of one element are.

    Args:
        file: The file, seekable.

    Returns:
        `format`: "zip" or "legacy".
        `sets`: of each set of weights, the one to take first, `name`, `title`, `notes`, and
        either `tensors`, `{name: [storage key, dtype, offset, shape, stride, conjugate,
        negative]}`, or `problem`, why it cannot be read, and `way_out`, what to do about it.
        `details`: plain values on the run that made it (see `soupcore.strict.metadata`).
        `executes`: what a usual loader would run or import beyond what is known to be harmless.
        `local_paths`: `[[place, path]]` of the machine where it was made.
        `storages`: `{key: [offset in the file, bytes, CRC-32 or None]}` of those in use.

    Raises:
        Refusal: It is no such file, or is damaged, or holds no weights.
    """
    file.seek(0)
    beginning = file.read(4)
    if beginning == b"PK\3\4":
        tree, machine, places = _read_zip(file)
        kind = "zip"
    elif _ends_as_zip(file):
        raise Refusal("It is a zip archive with something before its first record.", COPY)
    elif not beginning.startswith(b"\x80"):  # as pickles do
        raise Refusal(
            "It is damaged, or not a file of torch.save: its first bytes are neither those of a "
            "zip archive nor of a pickle.",
            "Copy or download it again, or save it with torch.save.",
        )
    else:
        tree, machine, legacy_places = read_legacy(file)
        places = {key: (offset, size, None) for key, (offset, size) in legacy_places.items()}
        kind = "legacy"
    found_sets = find_weight_sets(tree)
    weights = {tensor for found in found_sets for tensor in found.tensors.values()}
    sets = [_described(found) for found in found_sets]
    executes = may_execute(machine) + run_by_ultralytics(machine.instances)
    used = {tensor[0] for found in sets for tensor in found.get("tensors", {}).values()}
    return {
        "format": kind,
        "sets": sets,
        "details": details_of(tree, Scalars(file, places, weights).number_of),
        "executes": executes[:MOST_NAMED],
        "local_paths": local_paths_of(tree),
        "storages": {key: places[key] for key in places if key in used},
    }


def _ends_as_zip(file: BinaryIO) -> bool:
    file.seek(-min(22, file.seek(0, os.SEEK_END)), os.SEEK_END)
    return file.read(4) == b"PK\5\6"


_Places = dict[str, tuple[int, int, int | None]]


def _read_zip(file: BinaryIO) -> tuple[Any, Machine, _Places]:
    archive = read_archive(file)
    _check_kind(archive)
    order = archive.records.get("byteorder")
    if order and read_record(file, order, 16) != b"little":
        raise Refusal("It was saved on a big-endian machine.", "Save it again on a usual one.")
    storages: dict[str, Storage] = {}
    pickled = read_record(file, archive.records["data.pkl"], MOST_BYTES)
    machine = Machine(pickled, CALLS, lambda pid: storage_of(pid, storages), check_name)
    tree = machine.load()
    if machine.position != len(pickled):
        raise Refusal(
            "Its record 'data.pkl' goes on after its pickle ends; the file is damaged.", COPY
        )
    places: _Places = {}
    for key, storage in storages.items():
        record = archive.records.get(f"data/{key}")
        if record is None:
            raise Refusal(f"Its storage {key!r} is missing; the file is damaged.", COPY)
        if record.compressed:
            raise Refusal(
                f"Its record 'data/{key}' is compressed, which torch never does: the file was "
                "zipped again.",
                "Unpack the original, or load it with torch and save it again.",
            )
        if record.size != storage.nbytes:
            raise Refusal(
                f"Its storage {key!r} has {record.size} bytes in its record, its pickle says "
                f"{storage.nbytes}; the file is damaged.",
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
            "It is an archive of torch.export (a program and its weights).",
            "Load it with torch.export.load and save its state_dict with torch.save.",
        )
    if "data.pkl" not in records:
        raise Refusal(
            "It is a zip archive, but not one of torch.save (it has no record 'data.pkl').",
            "If a checkpoint was packed into it, unpack it first.",
        )


def _described(found: WeightSet) -> dict[str, Any]:
    described: dict[str, Any] = {"name": found.name, "title": found.title, "notes": found.notes}
    tensors = {}
    for name, tensor in found.tensors.items():
        if trouble := _problem_of_name(name) or tensor.problem():
            problem, way_out = trouble
            problem = f"Tensor {name[:60]!r} {problem}."
            return described | {"problem": problem, "way_out": way_out}
        assert isinstance(tensor, Tensor)  # noqa: S101 - the others have a problem
        tensors[name] = [
            tensor.storage.key,
            tensor.dtype,
            tensor.offset,
            tensor.shape,
            tensor.stride,
            tensor.conjugate,
            tensor.negative,
        ]
    if found.said_nbytes > MOST_REPEATED * found.nbytes:
        problem = f"Its tensors repeat stored bytes more than {MOST_REPEATED} times."
        return described | {"problem": problem, "way_out": ""}
    return described | {"tensors": tensors}


def _problem_of_name(name: str) -> tuple[str, str] | None:
    if len(name) > LONGEST_NAME:
        return f"has a name longer than the limit of {LONGEST_NAME}", ""
    if not name.isascii() and any("\ud800" <= letter <= "\udfff" for letter in name):
        return "has a name that is not text", ""
    return None
