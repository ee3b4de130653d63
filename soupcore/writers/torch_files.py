"""Writing a `.pt` in the form of another one, with the weights of a soup.

Training code loads the file that it saved: a model object, arguments, a state dict under a name of
its own. So the file of ingredient 1 is written again with the weights of the soup, and without the
traces of its run: other weights, the optimizer's state, scores, epoch, date. A child process finds
these and makes the new pickle (see `soupcore.safe_torch.rewriting`); this module writes the archive
around it. Nothing is unpickled.
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

# What torch writes beside the pickle and the storages.
_BEFORE = {".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little"}
_AFTER = {"version": b"3\n"}
_ALIGNMENT = 64  # bytes, of storages in the file, so that they can be mapped
_LOCAL_HEADER, _ZIP64_FIELD = 30, 20  # bytes
_PADDING = 0x4246  # torch's kind of extra field for it

Chunks = Callable[[str], Iterable[torch.Tensor]]


@dataclass(frozen=True)
class Change:
    """Something in ingredient 1's file that is not so in a soup's in its form.

    Attributes:
        place: Where: `optimizer`, `meta.epoch`.
        role: What it is: "training state", "score", "weights", …
        action: "removed", "reset" to its value before training, or "replaced" by the soup's.
    """

    place: str
    role: str
    action: str


@dataclass(frozen=True)
class RewrittenForm:
    """What a file in the form of another one consists of, weights aside.

    Attributes:
        pickle: Its pickle.
        storages: Where the storages that it names are in the other file.
        changes: What is not as in the other file.
        kept: Places of what stands beside the weights and is as in the other file.
        local_paths: `(place, path)` of what looks like a path of the machine where that was made.
        takes_marker: Whether the recipe may be added to it.
    """

    pickle: bytes
    storages: Mapping[str, Place]
    changes: tuple[Change, ...]
    kept: tuple[str, ...]
    local_paths: tuple[tuple[str, str], ...]
    takes_marker: bool

    @property
    def nbytes(self) -> int:
        """About how large a file is: bytes of the pickle and the storages."""
        return len(self.pickle) + sum(place.nbytes for place in self.storages.values())


def rewritten_form(source: TorchCheckpoint) -> RewrittenForm:
    """Return what a soup's file in the form of a torch file consists of.

    Raises:
        CheckpointError: It cannot be written again, or was changed.
    """
    found = _rewritten(source.file.path, source.file.identity, source.weights)
    if isinstance(found, str):
        raise CheckpointError(f"{source.path}: {found}", "Save the soup as .safetensors.")
    return found


@lru_cache(maxsize=8)  # a page asks again each time it is drawn
def _rewritten(path: Path, identity: tuple[int, ...], weights: str) -> RewrittenForm | str:
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
    """Return why weights cannot be written in the form of a checkpoint, or None where they can.

    Args:
        source: The checkpoint whose form it would be.
        tensors: `{name: TensorInfo}` of the weights, under its names.
    """
    if len(source.files) > 1:
        return f"{source.path.name} stands for several files, and a copy is made of one only."
    if not isinstance(source, TorchCheckpoint):
        return f"{source.path.name} was not written by torch.save, so there is none to copy."
    if any(view.storage.startswith(IN_PICKLE) for view in source.views.values()):
        return f"The weights in {source.path.name} are arrays of NumPy's inside its pickle."
    if source.left_out:
        names = ", ".join(map(repr, source.left_out[:3]))
        names += " and more" if len(source.left_out) > 3 else ""
        return (
            f"{source.path.name} holds {names} beside these weights, and the soup does not. Open "
            "the weights that were joined from all parts to average these too."
        )
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
                f"Tensor {name!r} is {_shown(there)} in {source.path.name} and "
                f"{_shown(info)} in the soup; a .pt keeps what is there."
            )
    try:
        rewritten_form(source)
    except CheckpointError as error:
        return f"{source.path.name} cannot be written again: {error.problem}"
    return None


def write_like(
    new: NewFile,
    source: TorchCheckpoint,
    names: Iterable[str],
    chunks: Chunks,
    recipe: str = "",
    on_bytes: Callable[[int], None] = lambda nbytes: None,
) -> None:
    """Write weights in the form of a torch file, without what describes the run that made it.

    Ties, views and shared storages stay what they are. The file has the format of torch 1.6 and
    later. Memory does not depend on the size of the model, except for a storage whose tensors
    overlap or are not contiguous: it and one of its tensors are in memory at a time.

    Args:
        new: Where to.
        source: The file whose form it is, for which `why_not_like` returned None.
        names: The tensors that get other values.
        chunks: `chunks(name)` gives the elements of such a tensor in order, as 1-D tensors of its
            dtype; it may be asked for twice.
        recipe: What the entry "stockpot" is to say, where the form has room for one.
        on_bytes: Called with the number of bytes written since the last call; it may raise to
            stop.

    Raises:
        CheckpointError: Tensors that share memory in `source` were given different values there,
            or the chunks of a tensor are not as many elements as it has.
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
    """Add an entry to the dict that a pickle makes, right before its end."""
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
    """Add a record that is stored as it is and starts at a multiple of `_ALIGNMENT`."""
    entry = zipfile.ZipInfo(f"archive/{name}")
    is_large = nbytes > zipfile.ZIP64_LIMIT
    header = _LOCAL_HEADER + len(entry.filename) + (_ZIP64_FIELD if is_large else 0) + 4
    padding = -(file.tell() + header) % _ALIGNMENT
    entry.extra = struct.pack("<HH", _PADDING, padding) + b"Z" * padding
    with archive.open(entry, "w", force_zip64=is_large) as record:
        for piece in pieces:
            record.write(piece)
            on_bytes(len(piece))


# The bytes of a storage with new values in its tensors. It may hold one tensor, several side by
# side, one under several names, or views that overlap or skip elements. Bytes that no tensor covers
# stay as they are.


def _new_bytes(
    file: WeightFile, place: Place, views: Mapping[str, View], chunks: Chunks
) -> Iterator[memoryview]:
    """Give the bytes of a storage with the new values of the tensors in it, piece by piece.

    Each piece is good until the next one.

    Args:
        file: The file that holds the storage.
        place: Where in the file.
        views: The tensors with new values, and where in the storage they are.
        chunks: `chunks(name)` gives the elements of a tensor in order, each chunk good until the
            next; it may be asked for twice.

    Raises:
        CheckpointError: Tensors that share memory were given different values there, or the chunks
            of a tensor are not as many elements as it has.
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
                f"Tensor {names[0]!r} gave {position - start} bytes instead of {stop - start}; "
                "nothing was written."
            )
    yield from file.pieces(place.offset + position, place.offset + place.nbytes)


def _runs(views: Mapping[str, View]) -> list[tuple[int, int, list[str]]] | None:
    """Return first byte, end and names of the runs of bytes that tensors lie in, in their order.

    None where tensors overlap without being the same, or their elements do not lie in order.
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
    """Return the first byte of a tensor that is not empty in its storage, and the end."""
    last = sum((size - 1) * step for size, step in zip(view.shape, view.stride, strict=True))
    itemsize = _dtype(view).itemsize
    return view.offset * itemsize, (view.offset + last + 1) * itemsize


def _meet(one: View, other: View) -> bool:
    (start, stop), (other_start, other_stop) = _extent(one), _extent(other)
    return start < other_stop and other_start < stop


def _stored(name: str, view: View, chunks: Chunks) -> Iterator[memoryview]:
    """Give the elements of a tensor as they are stored."""
    for chunk in chunks(name):
        yield _raw(_unflagged(chunk, view))


def _unflagged(tensor: torch.Tensor, view: View) -> torch.Tensor:
    tensor = tensor.conj_physical() if view.conjugate else tensor
    return -tensor if view.negative else tensor


def _raw(tensor: torch.Tensor) -> memoryview:
    if not tensor.is_contiguous() or tensor.numel() == 1:  # one element may have any stride
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    return raw_bytes(tensor)


def _image(file: WeightFile, place: Place, views: Mapping[str, View], chunks: Chunks) -> memoryview:
    """Return the bytes of a storage whose tensors overlap, or whose elements lie scattered."""
    image = bytearray(place.nbytes)
    file.read_into(memoryview(image), place.offset)

    def strided(view: View) -> torch.Tensor:
        count = place.nbytes // _dtype(view).itemsize
        flat = torch.frombuffer(image, dtype=_dtype(view), count=count)
        return flat.as_strided(view.shape, view.stride, view.offset)

    def whole(name: str, view: View) -> torch.Tensor:
        kept = [chunk.clone() for chunk in chunks(name)]  # each is good until the next
        tensor = torch.cat([torch.empty(0, dtype=_dtype(view)), *kept])
        if tensor.numel() != prod(view.shape):
            raise CheckpointError(
                f"Tensor {name!r} gave {tensor.numel()} elements instead of {prod(view.shape)}; "
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
        "ingredient, and their values in the soup are different; nothing was written. Write it as "
        "safetensors, where each has its own."
    )


def _dtype(view: View) -> torch.dtype:
    dtype = getattr(torch, view.dtype)
    assert isinstance(dtype, torch.dtype)  # noqa: S101 - TorchCheckpoint made sure of it
    return dtype
