"""Reading what `torch.save` wrote, without executing anything in it.

A child process finds out where the tensors lie (see `soupcore.checkpoints.sandbox`); here their
bytes are read from there, and nothing else of the file is.
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
from soupcore.errors import CheckpointError

Sizes = tuple[int, ...]

_BLOCK = 1 << 20  # bytes that are gathered at a time
_LITTLE = 64 << 10  # bytes that are read at once even if few of them are wanted


class TorchCheckpoint(Checkpoint):
    """A `.pt`, `.pth`, `.bin` or `.ckpt` file: a state dict, a model, or a run's checkpoint.

    Args:
        path: The file.
        weights: Name of the weight set to open; the one to take by convention unless given.

    Attributes:
        file: The file.
        contents: All that is known of it without reading its weights.
        views: Where the elements of each tensor are.
        left_out: Places in the file with other parts of what was trained, which a copy of the file
            with other weights in this set would keep.

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
        self._starts: dict[str, int] = {}  # first bytes of the tensors that lie in order, as is
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
        self.file.check_unchanged()  # so that the stamp is that of the file which is read
        if len(self.contents.sets) > 1:
            self.weights = chosen.name
            self.weight_sets = tuple(WeightSet(s.name, s.title) for s in self.contents.sets)
        self.details = self.contents.details
        self.left_out = chosen.left_out
        self.notes = chosen.notes + _what_shares_memory(chosen, self.contents)
        self.ties = _ties(self.views)

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
        # A block is kept until the next one, because who reads asks for less at a time than pays to
        # gather from all over a storage.
        kept = self._block  # another thread may replace it
        if kept and kept[:2] == (name, index):
            return kept[2]
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
        """Read elements of a view, from `start` on in the view's own order, that lie scattered."""
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
        # Read at once what lies close together, and by halves what does not: memory stays within
        # a small multiple of what is wanted, however the view is strided.
        reach = [(size - 1) * step for size, step in zip(box.shape, stride, strict=True)]
        span = 1 + sum(reach)
        if span * box.itemsize <= max(_LITTLE, 2 * box.nbytes):
            lying = torch.empty(span, dtype=box.dtype)
            self.file.read_into(raw_bytes(lying), place + first * box.itemsize)
            box.copy_(lying.as_strided(box.shape, stride))
            return
        widest = reach.index(max(reach))
        half = box.shape[widest] // 2
        rest = box.shape[widest] - half
        self._read_box(place, stride, first, box.narrow(widest, 0, half))
        first += half * stride[widest]
        self._read_box(place, stride, first, box.narrow(widest, half, rest))

    @property
    def checksummed(self) -> frozenset[str]:
        """Tensors that fill a storage; see `Checkpoint.checksummed`."""
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
        """Compare the checksums of what holds the weights; see `Checkpoint.check_integrity`."""
        known = {self.views[name].storage: crc for name, crc in checksums.items()}
        for key in {view.storage: None for view in self.views.values()}:
            place = self.contents.storages[key]
            if place.crc is None:  # the format before torch 1.6 has none
                continue
            crc = known[key] if key in known else self._checksum(place, on_bytes)
            if crc != place.crc:
                raise CheckpointError(
                    f"{self.path}: the checksum of the record 'data/{key}' is wrong, so the file "
                    "is damaged or was tampered with.",
                    "Copy it again. If it was written with "
                    "torch.serialization.set_crc32_options(False), save it again without.",
                )

    def _checksum(self, place: Place, on_bytes: Callable[[int], None]) -> int:
        crc = 0
        for piece in self.file.pieces(place.offset, place.offset + place.nbytes):
            crc = isal_zlib.crc32(piece, crc)
            on_bytes(len(piece))
        return crc


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


def _what_shares_memory(chosen: WeightViews, contents: Contents) -> tuple[str, ...]:
    storages = {view.storage for view in chosen.views.values()}
    return tuple(
        f"{other.name!r} ({other.title}) shares tensors with {chosen.name!r} in memory: where a "
        "soup is written as .pt, both change."
        for other in contents.sets
        if other is not chosen and storages & {view.storage for view in other.views.values()}
    )


def is_contiguous(shape: Sizes, stride: Sizes) -> bool:
    """Return whether elements lie one after the other, in the tensor's own order."""
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True


def _ties(views: dict[str, View]) -> tuple[tuple[str, ...], ...]:
    names: dict[View, list[str]] = {}
    for name, view in views.items():
        names.setdefault(view, []).append(name)
    return tuple(tuple(tied) for tied in names.values() if len(tied) > 1)
