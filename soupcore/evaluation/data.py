"""The data of a split where the network can take it by batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soupcore.tasks import Split

Rows = slice | Tensor

# Of what is free on an accelerator: the rest is for weights and activations.
_SHARE_OF_DEVICE = 0.25


@dataclass(frozen=True)
class Data:
    """What the network is given and what it should say, one example a row.

    Attributes:
        inputs: One tensor for each of its arguments, each of shape [n, ...]. They may lie in
            another memory than the device's, or on disk.
        targets: Shape [n, ...], on the device.
        prepare: Applied to the inputs of each batch on the device.
    """

    inputs: tuple[Tensor, ...]
    targets: Tensor
    prepare: Callable[[Tensor], Tensor] | None = None

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

    def _argument(self, part: Tensor, channels_last: bool) -> Tensor:
        device = self.targets.device
        if part.device != device:
            # From memory that does not move, the copy goes on while the last batch is computed.
            part = part.pin_memory().to(device, non_blocking=True)
        if self.prepare is not None:
            part = self.prepare(part)
        if channels_last and part.dim() == 4:
            part = part.contiguous(memory_format=torch.channels_last)
        return part


def _take(tensor: Tensor, rows: Rows) -> Tensor:
    return tensor[rows if isinstance(rows, slice) else rows.to(tensor.device)]
