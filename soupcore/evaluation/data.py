"""The data of a split: batches on a device, and the targets of all examples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from soupcore.tasks import Split
from soupcore.tasks.examples import Batch, Examples, Leaf, Rows, call, map_leaves, take

# Share of an accelerator's free memory for inputs. The rest is for weights and activations.
_SHARE_OF_DEVICE = 0.25

# Messages of the CPU's allocator, of CUDA's driver, and of CUDA libraries with own allocators.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "STATUS_ALLOC_FAILED")


@dataclass(eq=False)
class Data:
    """Inputs and targets of a split, one example per row.

    Attributes:
        inputs: Inputs of the network. They may be in the memory of another device, or on disk.
        targets: The targets.
        device: Device of the batches.
        prepare: Applied to the inputs of each batch on the device.
        dtype: Dtype to cast floating-point inputs to after `prepare`; None for no cast.
        needs_copies: Whether the network changes its inputs in place, so that each batch has to be
            a copy; None until that is known.
        token_weights: The weights of tokens, for `Task.record`; None for equal weights.
    """

    inputs: Examples
    targets: Examples
    device: torch.device
    prepare: Callable[[Any], Any] | None = None
    dtype: torch.dtype | None = None
    needs_copies: bool | None = None
    token_weights: Leaf | None = None

    @classmethod
    def of(cls, split: Split, device: torch.device, dtype: torch.dtype | None = None) -> "Data":
        """Return the data of a split, with the inputs on the device if they fit in their share."""
        inputs, targets = split.load()
        device = torch.empty(0, device=device).device  # with its index, as for tensors
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if inputs.nbytes < _SHARE_OF_DEVICE * free:
                inputs = inputs.to(device)
        elif device.type != "cpu":
            inputs = inputs.to(device)
        targets, weights = targets.to(device), split.token_weights
        return cls(inputs, targets, device, split.prepare, dtype, token_weights=weights)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def target_tensor(self) -> Tensor:
        """The targets for `Task.loss`, on the device, shape [n, ...]; see `targets_of`."""
        return _one_tensor(self.targets).to(self.device)

    def batch(self, rows: Rows) -> tuple[Batch, Batch]:
        """Return the inputs and the targets of some rows."""
        batch = self._on_device(self.inputs.batch(rows))
        targets = map_leaves(self._moved, self.targets.batch(rows))
        if self.prepare is not None:
            batch = self.prepare(batch)
        return batch if self.dtype is None else map_leaves(self._cast, batch), targets

    def weights_of_tokens(self, rows: Rows) -> Tensor | None:
        """Return the weights of the tokens of some rows, padded with zeros; None without any."""
        weights = self.token_weights
        if weights is None:
            return None
        found = weights[rows] if isinstance(weights, Tensor) else weights.padded(rows)
        return self._moved(found)

    def through(self, forward: Callable[..., Any], rows: Rows) -> tuple[Any, Batch, Batch]:
        """Run some rows through a network; return its outputs, its inputs and the targets."""
        inputs, targets = self.batch(rows)
        with self._kept(rows):
            return call(forward, inputs), inputs, targets

    @contextmanager
    def _kept(self, rows: Rows) -> Iterator[None]:
        """Restore some rows afterwards if the network changes its inputs in place.

        Without this, layers that compute in place would change the data for the next point. The
        first batch shows whether there are such layers.
        """
        if self.needs_copies is not None or not self.inputs.is_rectangular:
            yield  # a batch that was collated or padded is a copy
            return
        tensors = self.inputs.tensors
        before = [take(tensor, rows).clone() for tensor in tensors]
        try:
            yield
            self.needs_copies = False
        finally:
            for tensor, original in zip(tensors, before, strict=True):
                if not torch.equal(take(tensor, rows), original):
                    tensor[rows] = original
                    self.needs_copies = True

    def _on_device(self, batch: Batch) -> Batch:
        moved = map_leaves(self._moved, batch)
        if self.needs_copies and self.inputs.is_rectangular:
            return map_leaves(Tensor.clone, moved)
        return moved

    def _cast(self, part: Tensor) -> Tensor:
        return part.to(self.dtype) if part.is_floating_point() else part

    def _moved(self, part: Tensor) -> Tensor:
        if part.device == self.device:
            return part
        if self.device.type == "cuda" and part.device.type == "cpu":
            # A copy from pinned memory overlaps with the computation of the previous batch.
            part = part.pin_memory()
        return part.to(self.device, non_blocking=True)


def targets_of(split: Split) -> Tensor:
    """Return the targets of a split for `Task.loss` and `Task.score`, on the CPU, shape [n, ...].

    The shape is [n, 0] if targets are not a single tensor; only `Task.record` uses them then.
    """
    return _one_tensor(split.load()[1]).cpu()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on the CPU or on an accelerator."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)
    )


def _one_tensor(targets: Examples) -> Tensor:
    if targets.is_one_tensor:
        return targets.tensors[0]
    return torch.empty(len(targets), 0, dtype=torch.int64)
