"""Reading of `torch.save` files without executing any code in them.

A child process determines the places of the tensors (see `soupcore.checkpoints.sandbox`). This
module reads the bytes at these places and nothing else.
"""

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType

import torch
from isal import isal_zlib

from soupcore.checkpoints.checkpoint import Checkpoint, TensorInfo, WeightSet
from soupcore.checkpoints.contents import Contents, Place, View, WeightViews, contents_of
from soupcore.checkpoints.dtypes import DTYPE_NAMES, raw_bytes
from soupcore.checkpoints.files import WeightFile
from soupcore.checkpoints.names import tied
from soupcore.errors import CheckpointError

Sizes = tuple[int, ...]

_BLOCK = 1 << 20  # bytes gathered at a time
_LITTLE = 64 << 10  # bytes read at once even if few of them are needed


class TorchCheckpoint(Checkpoint):
    """A `.pt`, `.pth`, `.bin` or `.ckpt` file: a state dict, a model, or a training checkpoint.

    Args:
        path: The file.
        weights: Name of the weight set to open. By default the conventional choice.

    Attributes:
        file: The file.
        contents: Its contents except for the weights.
        views: `{tensor: view of its storage}`.
        left_out: Places of other trained parts in the file. A copy of the file with new weights in
            this set would still contain them.

    Raises:
        CheckpointError: The file is refused, or has no such weight set.
    """

    def __init__(self, path: Path, weights: str | None = None) -> None:
        self.file = WeightFile(path)
        self.contents = contents_of(self.file)
        chosen = _chosen(path, self.contents, weights)
        tensors = {}
        self.views: dict[str, View] = {}
        self._block: tuple[str, int, torch.Tensor] | None = None
        self._starts: dict[str, int] = {}  # first bytes of the contiguous tensors
        for name, view in chosen.views.items():
            dtype = getattr(torch, view.dtype, None)
            if dtype not in DTYPE_NAMES:
                raise CheckpointError(
                    f"{path}: tensor {name!r} has dtype {view.dtype}, which cannot be averaged.",
                    "Save it as float32, float16 or bfloat16.",
                )
            tensors[name] = TensorInfo(view.shape, dtype)
            self.views[name] = view
            if is_contiguous(view.shape, view.stride) and not (view.conjugate or view.negative):
                place = self.contents.storages[view.storage]
                self._starts[name] = place.offset + view.offset * dtype.itemsize
        super().__init__(path, tensors, self.contents.metadata, (path,))
        self.file.check_unchanged()  # ensures that the stamp belongs to the opened file
        if len(self.contents.sets) > 1:
            self.weights = chosen.name
            self.weight_sets = tuple(WeightSet(s.name, s.title) for s in self.contents.sets)
        self.details = self.contents.details
        self.left_out = chosen.left_out
        self.notes = chosen.notes + _notes_on_shared_memory(chosen, self.contents)
        self.ties = tied(self.views)

    def read_elements(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read part of a tensor; see `Checkpoint.read_elements`."""
        block = torch.empty(stop - start, dtype=self.tensors[name].dtype)
        self.read_into(name, start, block)
        return block

    def read_into(self, name: str, start: int, out: torch.Tensor) -> None:
        """Read part of a tensor into a buffer; see `Checkpoint.read_into`."""
        first = self._starts.get(name)
        if first is not None:
            self.file.read_into(raw_bytes(out), first + start * out.itemsize, f"tensor {name!r}")
            return
        done = 0
        while done < out.numel():
            index, skipped = divmod(start + done, _BLOCK // out.itemsize)
            piece = self._gathered_block(name, index)[skipped : skipped + out.numel() - done]
            out[done : done + piece.numel()] = piece
            done += piece.numel()

    def _gathered_block(self, name: str, index: int) -> torch.Tensor:
        # The last block is cached, because callers read smaller pieces than it is efficient to
        # gather from scattered elements.
        cached = self._block  # another thread may replace it
        if cached and cached[:2] == (name, index):
            return cached[2]
        info, view = self.tensors[name], self.views[name]
        count = _BLOCK // info.dtype.itemsize
        first = index * count
        block = torch.empty(min(count, info.numel - first), dtype=info.dtype)
        place = self.contents.storages[view.storage].offset
        self._gather(place, view.shape, view.stride, view.offset, first, block)
        if view.conjugate:
            block.conj_physical_()
        if view.negative:
            block.neg_()
        self._block = (name, index, block)
        return block

    def _gather(
        self, place: int, shape: Sizes, stride: Sizes, offset: int, start: int, out: torch.Tensor
    ) -> None:
        """Read scattered elements of a view, from `start` on in the view's own order."""
        row = prod(shape[1:])
        done = 0
        while done < out.numel():
            index, skipped = divmod(start + done, row)
            first = offset + index * stride[0]
            rows = 0 if skipped else (out.numel() - done) // row
            if rows:
                count = rows * row
                box = out[done : done + count].view(rows, *shape[1:])
                self._read_box(place, stride, first, box)
            else:  # part of a row, before or after whole ones
                count = min(row - skipped, out.numel() - done)
                part = out[done : done + count]
                self._gather(place, shape[1:], stride[1:], first, skipped, part)
            done += count

    def _read_box(self, place: int, stride: Sizes, first: int, box: torch.Tensor) -> None:
        # Elements that are close together are read at once. Otherwise the box is halved, so that
        # memory is bounded by a small multiple of the result for any strides.
        reach = [(size - 1) * step for size, step in zip(box.shape, stride, strict=True)]
        span = 1 + sum(reach)
        if span * box.itemsize <= max(_LITTLE, 2 * box.nbytes):
            stored = torch.empty(span, dtype=box.dtype)
            self.file.read_into(raw_bytes(stored), place + first * box.itemsize)
            box.copy_(stored.as_strided(box.shape, stride))
            return
        widest = reach.index(max(reach))
        half = box.shape[widest] // 2
        rest = box.shape[widest] - half
        self._read_box(place, stride, first, box.narrow(widest, 0, half))
        first += half * stride[widest]
        self._read_box(place, stride, first, box.narrow(widest, half, rest))

    @property
    def checksummed(self) -> frozenset[str]:
        """Names of tensors that fill a storage; see `Checkpoint.checksummed`."""
        storages = self.contents.storages
        return frozenset(
            name
            for name in self._starts
            if (place := storages[self.views[name].storage]).crc is not None
            and place.nbytes == self.tensors[name].nbytes
        )

    def check_integrity(
        self,
        on_bytes: Callable[[int], None] = lambda nbytes: None,
        checksums: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Verify the checksums of the weights' storages; see `Checkpoint.check_integrity`."""
        known = {self.views[name].storage: crc for name, crc in checksums.items()}
        for key in {view.storage: None for view in self.views.values()}:
            place = self.contents.storages[key]
            if place.crc is None:  # the format before torch 1.6 has no checksums
                continue
            crc = known[key] if key in known else self._checksum(place, on_bytes)
            if crc != place.crc:
                raise CheckpointError(
                    f"{self.path}: the checksum of the record 'data/{key}' is wrong, so the file "
                    "is damaged or was tampered with.",
                    "Copy it again. If it was saved with "
                    "torch.serialization.set_crc32_options(False), save it again with True.",
                )

    def _checksum(self, place: Place, on_bytes: Callable[[int], None]) -> int:
        crc = 0
        for piece in self.file.pieces(place.offset, place.offset + place.nbytes):
            crc = isal_zlib.crc32(piece, crc)
            on_bytes(len(piece))
        return crc


def is_contiguous(shape: Sizes, stride: Sizes) -> bool:
    """Return whether a tensor of this shape and stride is contiguous."""
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True


def _chosen(path: Path, contents: Contents, weights: str | None) -> WeightViews:
    found = contents.sets[0]
    if weights:
        by_name = {found.name: found for found in contents.sets}
        if weights not in by_name:
            names = ", ".join(repr(name) for name in by_name)
            raise CheckpointError(
                f"{path} has no weights {weights!r}; it has {names}.", "Choose one of these."
            )
        found = by_name[weights]
    if found.problem:
        others = [repr(other.name) for other in contents.sets if not other.problem]
        hint = f"Or open its other weights: {', '.join(others)}." if others else ""
        raise CheckpointError(f"{path}: {found.problem}", f"{found.way_out} {hint}".strip())
    return found


def _notes_on_shared_memory(chosen: WeightViews, contents: Contents) -> tuple[str, ...]:
    """Return a sentence for each other weight set that shares storages with the chosen one."""
    storages = {view.storage for view in chosen.views.values()}
    return tuple(
        f"{other.name!r} ({other.title}) shares tensors with {chosen.name!r} in memory: if a soup "
        "is written as .pt, both change."
        for other in contents.sets
        if other is not chosen and storages & {view.storage for view in other.views.values()}
    )
