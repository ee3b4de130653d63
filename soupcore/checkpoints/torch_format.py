"""Reading `.pt` files that hold a plain state dict, without executing anything in them."""

from pathlib import Path

import torch

from soupcore.checkpoints.checkpoint import Checkpoint, TensorInfo
from soupcore.checkpoints.dtypes import DTYPE_NAMES
from soupcore.errors import CheckpointError


class TorchCheckpoint(Checkpoint):
    """A `.pt`, `.pth`, `.bin` or `.ckpt` file holding `{name: tensor}`.

    Raises:
        CheckpointError: The file needs code execution to open, or holds anything but tensors.
    """

    def __init__(self, path: Path) -> None:
        state_dict = _load(path)
        tensors = {}
        for name, tensor in state_dict.items():
            _check(path, name, tensor)
            tensors[name] = TensorInfo(tuple(tensor.shape), tensor.dtype)
        self._tensors: dict[str, torch.Tensor] = state_dict
        super().__init__(path, tensors, {}, (path,))

    def read_elements(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read part of a tensor; see `Checkpoint.read_elements`."""
        return self._tensors[name].detach().reshape(-1)[start:stop]


def _load(path: Path) -> dict[str, torch.Tensor]:
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except Exception as error:  # the unpickler raises whatever a damaged file makes it raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} cannot be opened without executing code from it, or is damaged ({reason}). "
            "Save model.state_dict() with torch.save or safetensors.torch.save_file."
        ) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{path} holds a {type(loaded).__name__}, not a state dict. Save model.state_dict()."
        )
    return loaded


def _check(path: Path, name: object, tensor: object) -> None:
    if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
        raise CheckpointError(
            f"{path}: the entry {name!r} is not a named tensor, so this is not a plain state dict. "
            "Save model.state_dict() alone."
        )
    if tensor.layout is not torch.strided or tensor.dtype not in DTYPE_NAMES:
        raise CheckpointError(
            f"{path}: tensor {name!r} is sparse or quantized ({tensor.layout}, {tensor.dtype}) and "
            "cannot be averaged. Save the dense float weights."
        )
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: tensor {name!r} repeats {tensor.untyped_storage().nbytes()} stored bytes to "
            f"{tensor.numel() * tensor.itemsize}. Save it with .contiguous()."
        )
