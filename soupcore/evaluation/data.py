"""The data of a split where the network can take it by batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from soupcore.tasks import Split
from soupcore.tasks.examples import Batch, Examples, Rows, call, map_leaves, take

# The CPU's allocator; CUDA's driver; its libraries, which ask for memory themselves.
_TEXTS = ("DefaultCPUAllocator", "out of memory", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on the CPU or on an accelerator."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)
    )


# Of what is free on an accelerator: the rest is for weights and activations.
_SHARE_OF_DEVICE = 0.25


@dataclass(eq=False)
class Data:
    """What the network is given and the true answers, one example a row.

    Attributes:
        inputs: What the network is given. It may lie in another memory than the device's, or on
            disk.
        targets: The true answers.
        device: Where batches go.
        prepare: Applied to the inputs of each batch on the device.
        needs_copies: Whether the network writes to what it is given, so that each batch has to be
            a copy; None until that is known.
    """

    inputs: Examples
    targets: Examples
    device: torch.device
    prepare: Callable[[Any], Any] | None = None
    needs_copies: bool | None = None

    @classmethod
    def of(cls, split: Split, device: torch.device) -> "Data":
        """Return the data of a split, on the device where it takes no more than its share."""
        inputs, targets = split.load()
        device = torch.empty(0, device=device).device  # as tensors name it: with its index
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if inputs.nbytes < _SHARE_OF_DEVICE * free:
                inputs = inputs.to(device)
        elif device.type != "cpu":
            inputs = inputs.to(device)
        return cls(inputs, targets.to(device), device, split.prepare)

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def answers(self) -> Tensor:
        """The targets that `Task.loss` takes, shape [n, ...].

        The shape is [n, 0] where they have no one shape: `Task.record` takes them then.
        """
        if self.targets.is_one_tensor:
            return self.targets.tensors[0]
        return torch.empty(len(self), 0, dtype=torch.int64, device=self.device)

    def batch(self, rows: Rows) -> tuple[Batch, Batch]:
        """Return what the network is given and the targets for some of the rows."""
        batch = self._on_device(self.inputs.batch(rows))
        targets = map_leaves(self._moved, self.targets.batch(rows))
        return batch if self.prepare is None else self.prepare(batch), targets

    def through(self, forward: Callable[..., Any], rows: Rows) -> tuple[Any, Batch, Batch]:
        """Return what a network makes of some of the rows, what it was given, and the targets."""
        inputs, targets = self.batch(rows)
        with self._kept(rows):
            return call(forward, inputs), inputs, targets

    @contextmanager
    def _kept(self, rows: Rows) -> Iterator[None]:
        """Keep some rows as they are, whatever the network does inside to the batch of them.

        Layers that compute in place write to their input, and what they write there would be the
        data of the next point. The first batch shows whether there are such layers.
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
            for tensor, kept in zip(tensors, before, strict=True):
                if not torch.equal(take(tensor, rows), kept):
                    tensor[rows] = kept
                    self.needs_copies = True

    def _on_device(self, batch: Batch) -> Batch:
        found = map_leaves(self._moved, batch)
        if self.needs_copies and self.inputs.is_rectangular:
            return map_leaves(Tensor.clone, found)
        return found

    def _moved(self, part: Tensor) -> Tensor:
        if part.device == self.device:
            return part
        if self.device.type == "cuda" and part.device.type == "cpu":
            # From memory that does not move, the copy goes on while the last batch is computed.
            part = part.pin_memory()
        return part.to(self.device, non_blocking=True)
