"""The bytes of a storage of a torch file, with other values in the tensors that lie in it.

A storage may hold one tensor, several side by side, one under several names, or views that overlap
or skip elements. Bytes of it that no tensor covers stay what they are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from math import prod

import torch

from soupcore.checkpoints.contents import Place, View
from soupcore.checkpoints.dtypes import raw_bytes
from soupcore.checkpoints.files import WeightFile
from soupcore.checkpoints.torch_format import is_contiguous
from soupcore.errors import CheckpointError

Chunks = Callable[[str], Iterable[torch.Tensor]]


def new_bytes(
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
        yield _bytes(_unflagged(chunk, view))


def _unflagged(tensor: torch.Tensor, view: View) -> torch.Tensor:
    tensor = tensor.conj_physical() if view.conjugate else tensor
    return -tensor if view.negative else tensor


def _bytes(tensor: torch.Tensor) -> memoryview:
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
        if _bytes(strided(view)) != _bytes(whole(name, view)):
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
