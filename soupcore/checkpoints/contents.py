"""What a torch file holds, as the child process found it, remembered for as long as it is the same.

Starting a process for each file of a sweep takes longer than reading what is in them, so what was
found is kept in the workspace by path and stamp of the file (`soupcore.checkpoints.files`). So is a
refusal, but not that the reader was ended or broke down: this says nothing about the file.
"""

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from soupcore.checkpoints.files import WeightFile
from soupcore.checkpoints.names import clean
from soupcore.checkpoints.sandbox import NoVerdictError, read_contents, read_values
from soupcore.errors import CheckpointError, StoreError
from soupcore.workspace import workspace_file

_VERSION = 8  # of what the child tells; with another one, files are read again

Plain = str | int | float | bool | None

_remembered_only = ContextVar("remembered_only", default=False)


class NotRead(Exception):  # noqa: N818 - an answer, no fault of the file
    """What a file holds is not remembered, and nobody shall wait for it to be read."""


@contextmanager
def remembered_only() -> Iterator[None]:
    """Within it, opening a torch file that has to be read first raises `NotRead`."""
    token = _remembered_only.set(True)
    try:
        yield
    finally:
        _remembered_only.reset(token)


class View(NamedTuple):
    """Where a tensor's elements are in its storage; see `soupcore.safe_torch.tensors.Tensor`."""

    storage: str
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    conjugate: bool
    negative: bool


@dataclass(frozen=True)
class WeightViews:
    """One set of weights in a file.

    Attributes:
        name: Its place in the file, such as `ema`; "" where the file is the set.
        title: What it is, for people.
        notes: Sentences on why it is the one to take, and on what was left out of it.
        left_out: Places in the file with other parts of what was trained.
        views: `{tensor: view}` in the order of the state dict; none where there is a problem.
        problem: Why the set cannot be read, as a sentence; "" where it can.
        way_out: What to do about that, as a sentence.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    views: dict[str, View]
    problem: str
    way_out: str


class Place(NamedTuple):
    """Where a storage is in the file: first byte, number of bytes, and their CRC-32 if known."""

    offset: int
    nbytes: int
    crc: int | None


@dataclass(frozen=True)
class Contents:
    """What a torch file holds, except for the weights.

    Attributes:
        format: "zip", "legacy" for the one of before torch 1.6, or "pickle" for one that pickle
            wrote without torch.
        sets: Its sets of weights, the one to take by convention first.
        storages: Where the storages of these are, by key.
        metadata: `{"stockpot": recipe}`, as JSON, of a soup that Stockpot wrote; else empty.
        details: Plain values on the run that made it: epoch, hyperparameters, metrics.
        executes: What loading it in the usual way would run or import, beyond what is known to be
            harmless; empty where it may be handed on in its own form.
        network: The description that an ultralytics network is built of (`yaml`); None where there
            is none, or where building it would run more than known layers.
        local_paths: `(place, path)` of what looks like a path of the machine where it was made.
    """

    format: str
    sets: tuple[WeightViews, ...]
    storages: dict[str, Place]
    metadata: dict[str, str]
    details: dict[str, Plain]
    executes: tuple[str, ...]
    network: dict[str, Any] | None
    local_paths: tuple[tuple[str, str], ...]


def contents_of(file: WeightFile) -> Contents:
    """Return what a torch file holds, from the workspace or by reading it in a child process.

    Raises:
        CheckpointError: The file is refused.
        NotRead: It would have to be read, within `remembered_only`.
    """
    return _parsed(_answer(file, "contents", read_contents))


def values_in(path: Path) -> dict[str, Plain]:
    """Return the plain values in a torch file without weights, such as a `training_args.bin`.

    Raises:
        CheckpointError: The file is refused, or cannot be opened.
        NotRead: It would have to be read, within `remembered_only`.
    """
    values: dict[str, Plain] = _answer(WeightFile(path), "values", read_values)
    return values


def _answer(
    file: WeightFile, kind: str, read: Callable[[int, Path], dict[str, Any]]
) -> dict[str, Any]:
    opened = file.descriptor()
    key = clean(str(file.path.resolve()))
    stamp = json.dumps([_VERSION, kind, *file.stamp()])
    answer = _remembered(key, stamp)
    if answer is None:
        if _remembered_only.get():
            raise NotRead
        try:
            answer = {kind: read(opened.number, file.path)}
        except NoVerdictError:
            raise
        except CheckpointError as error:
            # Told again under the name by which the file is opened then.
            answer = {"refusal": (error.problem.removeprefix(str(file.path)), error.way_out)}
        file.check_unchanged()
        _remember(key, stamp, answer)
    if refusal := answer.get("refusal"):
        problem, way_out = refusal
        raise CheckpointError(f"{file.path}{problem}", way_out)
    found: dict[str, Any] = answer[kind]
    return found


def _parsed(read: dict[str, Any]) -> Contents:
    return Contents(
        read["format"],
        tuple(
            WeightViews(
                found["name"],
                found["title"],
                tuple(found["notes"]),
                tuple(found["left_out"]),
                {
                    name: View(storage, dtype, offset, tuple(shape), tuple(stride), *flags)
                    for name, (storage, dtype, offset, shape, stride, *flags) in found.get(
                        "tensors", {}
                    ).items()
                },
                found.get("problem", ""),
                found.get("way_out", ""),
            )
            for found in read["sets"]
        ),
        {key: Place(*place) for key, place in read["storages"].items()},
        read["metadata"],
        read["details"],
        tuple(read["executes"]),
        read["network"],
        tuple((place, path) for place, path in read["local_paths"]),
    )


# Without a workspace, or with a damaged one, files are read each time.
_NO_MEMORY = (OSError, StoreError, sqlite3.Error, zlib.error)


def _remembered(key: str, stamp: str) -> dict[str, Any] | None:
    with suppress(*_NO_MEMORY), _database() as connection:
        row = connection.execute(
            "SELECT contents FROM contents WHERE path = ? AND stamp = ?", (key, stamp)
        ).fetchone()
        if row:
            answer: dict[str, Any] = json.loads(zlib.decompress(row[0]))
            return answer
    return None


def _remember(key: str, stamp: str, answer: dict[str, Any]) -> None:
    packed = zlib.compress(json.dumps(answer).encode(), 1)
    with suppress(*_NO_MEMORY), _database() as connection:
        connection.execute("INSERT OR REPLACE INTO contents VALUES (?, ?, ?)", (key, stamp, packed))


@contextmanager
def _database() -> Iterator[sqlite3.Connection]:
    path = workspace_file("contents.sqlite")
    with closing(sqlite3.connect(path, timeout=30)) as connection, connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS contents (path TEXT PRIMARY KEY, stamp TEXT, contents BLOB)"
        )
        yield connection
