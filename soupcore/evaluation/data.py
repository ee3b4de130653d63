"""The data of a split where the network can take it by batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from soupcore.tasks import Split

Rows = slice | Tensor

# Of what is free on an accelerator: the rest is for weights and activations.
_SHARE_OF_DEVICE = 0.25


@dataclass(eq=False)
class Data:
    """What the network is given and what it should say, one example a row.

    Attributes:
        inputs: One tensor for each of its arguments, each of shape [n, ...]. They may lie in
            another memory than the device's, or on disk.
        targets: Shape [n, ...], on the device.
        prepare: Applied to the inputs of each batch on the device.
        needs_copies: Whether the network writes to what it is given, so that each batch has to be
            a copy; None until that is known.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    prepare: Callable[[Tensor], Tensor] | None = None
    needs_copies: bool | None = None

    @classmethod
    def of(cls, split: Split, device: torch.device) -> "Data":
        """Return the data of a split, on the device where it takes no more than its share."""
        inputs = split.inputs
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if inputs.nbytes < _SHARE_OF_DEVICE * free:
                inputs = inputs.to(device)
        elif device.type != "cpu":
            inputs = inputs.to(device)
        return cls((inputs,), split.targets.to(device), split.prepare)

    def __len__(self) -> int:
        return len(self.targets)

    def batch(self, rows: Rows, *, channels_last: bool = False) -> tuple[Sequence[Tensor], Tensor]:
        """Return the arguments of the network and the targets for some of the rows."""
        arguments = [self._argument(_take(tensor, rows), channels_last) for tensor in self.inputs]
        return arguments, _take(self.targets, rows)

    def through(
        self, forward: Callable[..., Any], rows: Rows, *, channels_last: bool = False
    ) -> tuple[Any, Tensor]:
        """Return what a network makes of some of the rows, and their targets."""
        arguments, targets = self.batch(rows, channels_last=channels_last)
        with self._kept(rows):
            return forward(*arguments), targets

    @contextmanager
    def _kept(self, rows: Rows) -> Iterator[None]:
        """Keep some rows as they are, whatever the network does inside to the batch of them.

        Layers that compute in place write to their input, and what they write there would be the
        data of the next point. The first batch shows whether there are such layers.
        """
        if self.needs_copies is not None:
            yield
            return
        before = [_take(tensor, rows).clone() for tensor in self.inputs]
        try:
            yield
            self.needs_copies = False
        finally:
            for tensor, kept in zip(self.inputs, before, strict=True):
                if not torch.equal(_take(tensor, rows), kept):
                    tensor[rows] = kept
                    self.needs_copies = True

    def _argument(self, part: Tensor, channels_last: bool) -> Tensor:
        device = self.targets.device
        if part.device != device:
            # From memory that does not move, the copy goes on while the last batch is computed.
            part = part.pin_memory().to(device, non_blocking=True)
        elif self.needs_copies:
            part = part.clone()
        if self.prepare is not None:
            part = self.prepare(part)
        if channels_last and part.dim() == 4:
            part = part.contiguous(memory_format=torch.channels_last)
        return part


def _take(tensor: Tensor, rows: Rows) -> Tensor:
    return tensor[rows if isinstance(rows, slice) else rows.to(tensor.device)]
