"""Write a `.pt` in the form of another one, with the weights of a soup.

Training code expects the structure that it saved: a model object, arguments, a state dict under a
particular key. So the file of ingredient 1 is rewritten with the weights of the soup. Traces of its
run are left out: other weights, the optimizer's state, scores, epoch, date. A child process finds
these and creates the new pickle (see `soupcore.safe_torch.rewriting`), and this module writes the
archive around it. Nothing is unpickled.
"""

import base64
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import BinaryIO

import torch

from soupcore.checkpoints.checkpoint import Checkpoint, TensorInfo
from soupcore.checkpoints.contents import Place, View
from soupcore.checkpoints.dtypes import raw_bytes
from soupcore.checkpoints.files import WeightFile
from soupcore.checkpoints.sandbox import rewrite
from soupcore.checkpoints.torch_format import TorchCheckpoint, is_contiguous
from soupcore.errors import CheckpointError
from soupcore.new_files import NewFile
from soupcore.safe_torch.arrays import IN_PICKLE
from soupcore.safe_torch.names import MARKER

# The records that torch writes besides the pickle and the storages.
_BEFORE = {".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little"}
_AFTER = {"version": b"3\n"}
_ALIGNMENT = 64  # bytes; storages in the file are aligned, so that they can be mapped
_LOCAL_HEADER, _ZIP64_FIELD = 30, 20  # bytes
_PADDING = 0x4246  # torch's id of the extra field for padding

Chunks = Callable[[str], Iterable[torch.Tensor]]


@dataclass(frozen=True)
class Change:
    """A change to ingredient 1's file when a soup is written in its form.

    Attributes:
        place: Location in the file, such as `optimizer` or `meta.epoch`.
        role: Role of the entry: "training state", "score", "weights", …
        action: "removed", "reset" to its value before training, or "replaced" by the soup's.
    """

    place: str
    role: str
    action: str


@dataclass(frozen=True)
class RewrittenForm:
    """The contents of a file in the form of another one, without the weights.

    Attributes:
        pickle: The pickle.
        storages: Locations of its storages in the other file.
        changes: Differences from the other file.
        kept: Locations of data copied unchanged.
        local_paths: `(place, path)` of values that look like local paths.
        takes_marker: Whether the recipe can be added.
    """

    pickle: bytes
    storages: Mapping[str, Place]
    changes: tuple[Change, ...]
    kept: tuple[str, ...]
    local_paths: tuple[tuple[str, str], ...]
    takes_marker: bool

    @property
    def nbytes(self) -> int:
        """Approximate size of the file: bytes of the pickle and the storages."""
        return len(self.pickle) + sum(place.nbytes for place in self.storages.values())


def rewritten_form(source: TorchCheckpoint) -> RewrittenForm:
    """Return the contents of a soup's file in the form of a torch file.

    Raises:
        CheckpointError: The file cannot be rewritten, or was changed.
    """
    found = _rewritten(source.file.path, source.file.identity, source.weights)
    if isinstance(found, str):
        raise CheckpointError(f"{source.path}: {found}", "Save the soup as .safetensors.")
    return found


@lru_cache(maxsize=8)  # pages call it at every rerun
def _rewritten(path: Path, identity: tuple[int, ...], weights: str) -> RewrittenForm | str:
    """Return the contents, or a sentence why the file cannot be rewritten."""
    file = WeightFile(path)
    if file.identity != identity:
        raise CheckpointError(f"{path} was changed after it was opened.", "Reload the sweep.")
    body = rewrite(file.descriptor().number, path, weights)
    file.check_unchanged()
    if "problem" in body:
        return str(body["problem"])
    return RewrittenForm(
        base64.b64decode(body["pickle"]),
        {key: Place(offset, n, None) for key, (offset, n) in body["storages"].items()},
        tuple(Change(*change) for change in body["changes"]),
        tuple(body["kept"]),
        tuple((place, path) for place, path in body["local_paths"]),
        body["takes_marker"],
    )


def why_not_like(source: Checkpoint, tensors: Mapping[str, TensorInfo]) -> str | None:
    """Return why weights cannot be written in the form of a checkpoint; None if they can.

    Args:
        source: The checkpoint with the form.
        tensors: `{name: TensorInfo}` of the weights, under the checkpoint's names.
    """
    if len(source.files) > 1:
        return f"{source.path.name} consists of several files, and only a single file is copied."
    if not isinstance(source, TorchCheckpoint):
        return f"{source.path.name} was not written by torch.save, so its form cannot be copied."
    if any(view.storage.startswith(IN_PICKLE) for view in source.views.values()):
        return f"The weights in {source.path.name} are NumPy arrays inside its pickle."
    if source.left_out:
        names = ", ".join(map(repr, source.left_out[:3]))
        names += " and more" if len(source.left_out) > 3 else ""
        return (
            f"{source.path.name} contains {names} besides these weights, but the soup does not. "
            "Open the weight set joined from all parts to average these too."
        )
    if executes := source.contents.executes:
        names = ", ".join(executes[:3]) + (" and more" if len(executes) > 3 else "")
        return (
            f"Loading {source.path.name} runs or imports code that is not known to be safe "
            f"({names}), and so would loading a copy of it."
        )
    for name, info in tensors.items():
        there = source.tensors.get(name)
        if there is None:
            return f"{source.path.name} has no tensor {name!r}."
        if there != info:
            return (
                f"Tensor {name!r} is {_shown(there)} in {source.path.name} but {_shown(info)} in "
                "the soup; a .pt keeps the file's."
            )
    try:
        rewritten_form(source)
    except CheckpointError as error:
        return f"{source.path.name} cannot be rewritten: {error.problem}"
    return None


def write_like(
    new: NewFile,
    source: TorchCheckpoint,
    names: Iterable[str],
    chunks: Chunks,
    recipe: str = "",
    on_bytes: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Write weights in the form of a torch file, without the traces of its run.

    Ties, views and shared storages are preserved. The file has the format of torch 1.6 and later.
    Memory does not depend on the size of the model, except for a storage whose tensors overlap or
    are not contiguous: it and one of its tensors are in memory at a time.

    Args:
        new: The open output file.
        source: The file with the form, for which `why_not_like` returned None.
        names: The tensors with new values.
        chunks: `chunks(name)` yields the elements of such a tensor in order, as 1-D tensors of its
            dtype; it may be called twice.
        recipe: Content of the entry "stockpot", if the form allows one.
        on_bytes: Called with the number of bytes written since the last call; raise in it to stop.

    Raises:
        CheckpointError: Tensors that share memory in `source` have different new values, or the
            chunks of a tensor have a wrong number of elements.
    """
    form = rewritten_form(source)
    file = source.file
    views_in: dict[str, dict[str, View]] = {}
    for name in names:
        view = source.views[name]
        views_in.setdefault(view.storage, {})[name] = view
    pickle = _marked(form.pickle, recipe) if recipe and form.takes_marker else form.pickle
    with zipfile.ZipFile(new.file, "w") as archive:
        for name, content in ({"data.pkl": pickle} | _BEFORE).items():
            _add(archive, new.file, name, len(content), [memoryview(content)], on_bytes)
        for key, place in form.storages.items():
            pieces = (
                _new_bytes(file, place, views_in[key], chunks)
                if key in views_in
                else file.pieces(place.offset, place.offset + place.nbytes)
            )
            _add(archive, new.file, f"data/{key}", place.nbytes, pieces, on_bytes)
        for name, content in _AFTER.items():
            _add(archive, new.file, name, len(content), [memoryview(content)], on_bytes)
    file.check_unchanged()


def _shown(info: TensorInfo) -> str:
    return f"{str(info.dtype).removeprefix('torch.')} {list(info.shape)}"


def _marked(pickle: bytes, recipe: str) -> bytes:
    """Add an entry to the dict in a pickle, just before the pickle's end."""
    parts = [part.encode("utf-8", "surrogatepass") for part in (MARKER, recipe)]
    texts = b"".join(b"X" + struct.pack("<I", len(part)) + part for part in parts)
    return pickle[:-1] + texts + b"s."  # SETITEM, STOP


def _add(
    archive: zipfile.ZipFile,
    file: BinaryIO,
    name: str,
    nbytes: int,
    pieces: Iterable[memoryview],
    on_bytes: Callable[[int], None],
) -> None:
    """Add an uncompressed record that starts at a multiple of `_ALIGNMENT`."""
    entry = zipfile.ZipInfo(f"archive/{name}")
    is_large = nbytes > zipfile.ZIP64_LIMIT
    header = _LOCAL_HEADER + len(entry.filename) + (_ZIP64_FIELD if is_large else 0) + 4
    padding = -(file.tell() + header) % _ALIGNMENT
    entry.extra = struct.pack("<HH", _PADDING, padding) + b"Z" * padding
    with archive.open(entry, "w", force_zip64=is_large) as record:
        for piece in pieces:
            record.write(piece)
            on_bytes(len(piece))


# A storage may contain one tensor, several side by side, one under several names, or views that
# overlap or skip elements. Bytes that no tensor covers are copied.


def _new_bytes(
    file: WeightFile, place: Place, views: Mapping[str, View], chunks: Chunks
) -> Iterator[memoryview]:
    """Yield the bytes of a storage with the new values of its tensors, piece by piece.

    Each piece is valid until the next one.

    Args:
        file: The file with the storage.
        place: Location of the storage in the file.
        views: The tensors with new values, and their locations in the storage.
        chunks: `chunks(name)` yields the elements of a tensor in order, each chunk valid until the
            next; it may be called twice.

    Raises:
        CheckpointError: Tensors that share memory have different new values, or the chunks of a
            tensor have a wrong number of elements.
    """
    runs = _runs(views)
    if runs is None:
        yield _image(file, place, views, chunks)
        return
    position = 0
    for start, stop, names in runs:
        yield from file.pieces(place.offset + position, place.offset + start)
        position = start
        for pieces in zip(*(_stored(name, views[name], chunks) for name in names), strict=True):
            for name, piece in zip(names[1:], pieces[1:], strict=True):
                if piece != pieces[0]:
                    raise _differ(file, names[0], name)
            yield pieces[0]
            position += len(pieces[0])
        if position != stop:
            raise CheckpointError(
                f"Tensor {names[0]!r} yielded {position - start} bytes instead of {stop - start}; "
                "nothing was written."
            )
    yield from file.pieces(place.offset + position, place.offset + place.nbytes)


def _runs(views: Mapping[str, View]) -> list[tuple[int, int, list[str]]] | None:
    """Return first byte, end and names of the byte ranges of tensors, in order.

    None if tensors overlap without being equal, or their elements are not in order.
    """
    names_of: dict[tuple[int, int, str], list[str]] = {}
    for name, view in views.items():
        if not is_contiguous(view.shape, view.stride):
            return None
        if prod(view.shape):
            names_of.setdefault((*_extent(view), view.dtype), []).append(name)
    runs = [(start, stop, names) for (start, stop, _), names in sorted(names_of.items())]
    overlap = any(one[1] > other[0] for one, other in pairwise(runs))
    return None if overlap else runs


def _extent(view: View) -> tuple[int, int]:
    """Return the first byte of a non-empty tensor in its storage, and its end."""
    last = sum((size - 1) * step for size, step in zip(view.shape, view.stride, strict=True))
    itemsize = _dtype(view).itemsize
    return view.offset * itemsize, (view.offset + last + 1) * itemsize


def _meet(one: View, other: View) -> bool:
    (start, stop), (other_start, other_stop) = _extent(one), _extent(other)
    return start < other_stop and other_start < stop


def _stored(name: str, view: View, chunks: Chunks) -> Iterator[memoryview]:
    """Yield the elements of a tensor as stored."""
    for chunk in chunks(name):
        yield _raw(_unflagged(chunk, view))


def _unflagged(tensor: torch.Tensor, view: View) -> torch.Tensor:
    tensor = tensor.conj_physical() if view.conjugate else tensor
    return -tensor if view.negative else tensor


def _raw(tensor: torch.Tensor) -> memoryview:
    if not tensor.is_contiguous() or tensor.numel() == 1:  # the stride of one element is arbitrary
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    return raw_bytes(tensor)


def _image(file: WeightFile, place: Place, views: Mapping[str, View], chunks: Chunks) -> memoryview:
    """Return the bytes of a storage with overlapping tensors or scattered elements."""
    image = bytearray(place.nbytes)
    file.read_into(memoryview(image), place.offset)

    def strided(view: View) -> torch.Tensor:
        count = place.nbytes // _dtype(view).itemsize
        flat = torch.frombuffer(image, dtype=_dtype(view), count=count)
        return flat.as_strided(view.shape, view.stride, view.offset)

    def whole(name: str, view: View) -> torch.Tensor:
        kept = [chunk.clone() for chunk in chunks(name)]  # each is valid until the next
        tensor = torch.cat([torch.empty(0, dtype=_dtype(view)), *kept])
        if tensor.numel() != prod(view.shape):
            raise CheckpointError(
                f"Tensor {name!r} yielded {tensor.numel()} elements instead of {prod(view.shape)}; "
                "nothing was written."
            )
        return _unflagged(tensor, view).reshape(view.shape)

    filled = {name: view for name, view in views.items() if prod(view.shape)}
    for name, view in filled.items():
        strided(view).copy_(whole(name, view))
    for name, view in filled.items():
        if _raw(strided(view)) != _raw(whole(name, view)):
            pair = [other for other in filled if other == name or _meet(filled[other], view)]
            raise _differ(file, *(pair + pair)[:2])
    return memoryview(image)


def _differ(file: WeightFile, one: str, other: str) -> CheckpointError:
    return CheckpointError(
        f"Tensors {one!r} and {other!r} share memory in {file.path.name}, but not in every "
        "ingredient, and their values in the soup differ; nothing was written. Save the soup as "
        "safetensors, which stores each separately."
    )


def _dtype(view: View) -> torch.dtype:
    dtype = getattr(torch, view.dtype)
    assert isinstance(dtype, torch.dtype)  # noqa: S101 - checked by TorchCheckpoint
    return dtype
