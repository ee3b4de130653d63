"""The contents of torch files, as read by the child process and cached in the workspace.

Starting a process for each file of a sweep takes longer than reading the files, so contents are
cached by path and stamp of the file (`soupcore.checkpoints.files`). Refusals are cached too, but
crashes and kills of the child process are not, since the file need not be the cause.
"""

import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from soupcore.checkpoints.files import NO_CACHE, WeightFile, open_cache
from soupcore.checkpoints.names import clean
from soupcore.checkpoints.sandbox import NoVerdictError, read_contents, read_values
from soupcore.errors import CheckpointError

_VERSION = 8  # of the child's answer; entries of other versions are ignored
_CACHE = "contents.sqlite"
_TABLE = "contents (path TEXT PRIMARY KEY, stamp TEXT, contents BLOB)"

Plain = str | int | float | bool | None

_remembered_only = ContextVar("remembered_only", default=False)


class NotRead(Exception):  # noqa: N818 - not an error of the file
    """The contents of a file are not cached, and reading it was not allowed."""


@contextmanager
def remembered_only() -> Iterator[None]:
    """Raise `NotRead`, within the context, for torch files whose contents are not cached."""
    token = _remembered_only.set(True)
    try:
        yield
    finally:
        _remembered_only.reset(token)


class View(NamedTuple):
    """A tensor as a view of its storage; see `soupcore.safe_torch.tensors.Tensor`."""

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
        name: Its place in the file, such as `ema`; "" if the file itself is the state dict.
        title: Display name.
        notes: Sentences on why this set is the conventional choice, and on omitted tensors.
        left_out: Places of other trained parts in the file.
        views: `{tensor: view}` in the order of the state dict; empty if there is a problem.
        problem: Why the set cannot be read, as a sentence; "" if it can.
        way_out: The solution, as a sentence.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    views: dict[str, View]
    problem: str
    way_out: str


class Place(NamedTuple):
    """Place of a storage in the file: first byte, number of bytes, and their CRC-32 if known."""

    offset: int
    nbytes: int
    crc: int | None


@dataclass(frozen=True)
class Contents:
    """The contents of a torch file, except for the weights.

    Attributes:
        format: "zip", "legacy" for the format before torch 1.6, or "pickle" for a file that was
            written by pickle without torch.
        sets: Its weight sets, the conventional choice first.
        storages: Places of their storages, by key.
        metadata: `{"stockpot": recipe as JSON}` for a soup that Stockpot wrote; else empty.
        details: Plain values on the training run: epoch, hyperparameters, metrics.
        executes: Code that `torch.load` would execute or import, except for names known to be safe;
            empty if a soup can be written in the form of the file.
        network: The description from which an Ultralytics network is built (`yaml`); None if there
            is none, or if building it would run unknown layers.
        local_paths: `(place, path)` of strings that look like paths of the training machine.
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
    """Return the contents of a torch file, from the cache or by reading it in a child process.

    Raises:
        CheckpointError: The file is refused.
        NotRead: They are not cached, within `remembered_only`.
    """
    return _parsed(_answer(file, "contents", read_contents))


def values_in(path: Path) -> dict[str, Plain]:
    """Return the plain values in a torch file without weights, such as a `training_args.bin`.

    Raises:
        CheckpointError: The file is refused, or cannot be opened.
        NotRead: They are not cached, within `remembered_only`.
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
            # Cached without the path: the file may be opened again under another one.
            answer = {"refusal": (error.problem.removeprefix(str(file.path)), error.way_out)}
        file.check_unchanged()
        _remember(key, stamp, answer)
    if refusal := answer.get("refusal"):
        problem, way_out = refusal
        raise CheckpointError(f"{file.path}{problem}", way_out)
    contents: dict[str, Any] = answer[kind]
    return contents


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


def _remembered(key: str, stamp: str) -> dict[str, Any] | None:
    with suppress(*NO_CACHE, zlib.error), open_cache(_CACHE, _TABLE) as connection:
        row = connection.execute(
            "SELECT contents FROM contents WHERE path = ? AND stamp = ?", (key, stamp)
        ).fetchone()
        if row:
            answer: dict[str, Any] = json.loads(zlib.decompress(row[0]))
            return answer
    return None


def _remember(key: str, stamp: str, answer: dict[str, Any]) -> None:
    packed = zlib.compress(json.dumps(answer).encode(), 1)
    with suppress(*NO_CACHE), open_cache(_CACHE, _TABLE) as connection:
        connection.execute("INSERT OR REPLACE INTO contents VALUES (?, ?, ?)", (key, stamp, packed))
