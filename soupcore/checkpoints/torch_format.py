"""Reading `.pt` files that hold a plain state dict, without executing anything in them."""

import re
import zipfile
from pathlib import Path

import torch

from soupcore.checkpoints.checkpoint import Checkpoint, TensorInfo, check_not_placeholder
from soupcore.checkpoints.dtypes import DTYPE_NAMES
from soupcore.errors import CheckpointError


class TorchCheckpoint(Checkpoint):
    """A `.pt`, `.pth`, `.bin` or `.ckpt` file holding `{name: tensor}`.

    Raises:
        CheckpointError: The file needs code execution to open, or holds anything but tensors.
    """

    def __init__(self, path: Path) -> None:
        check_not_placeholder(path)
        tensors = {}
        self._tensors: dict[str, torch.Tensor] = {}
        for name, tensor in _load(path).items():
            _check(path, name, tensor)
            tensors[name] = TensorInfo(tuple(tensor.shape), tensor.dtype)
            # A view (transposed, strided, conjugate) is copied here once, not at each read.
            plain = tensor.detach().resolve_conj().resolve_neg()
            self._tensors[name] = plain.reshape(-1).contiguous()
        super().__init__(path, tensors, {}, (path,))

    def read_elements(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Read part of a tensor; see `Checkpoint.read_elements`."""
        return self._tensors[name][start:stop]


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=_can_map(path))
    except Exception as error:  # the unpickler raises whatever a damaged file makes it raise
        raise CheckpointError(
            f"{path} cannot be opened without executing code from it, or is damaged "
            f"({_reason(error)}). "
            "Save model.state_dict() with torch.save or safetensors.torch.save_file."
        ) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{path} holds a {type(loaded).__name__}, not a state dict. Save model.state_dict()."
        )
    return loaded


def _can_map(path: Path) -> bool:
    # torch maps the bytes of a record as they lie in the zip, even where they are compressed.
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())


def _reason(error: Exception) -> str:
    # torch gives a page of advice; what stood in the way is in the line of its unpickler.
    lines = re.sub(r"\x1b\[\d+m", "", str(error)).splitlines() or [type(error).__name__]
    line = next((line for line in lines if "WeightsUnpickler error" in line), lines[0])
    return line.strip().partition(". Please")[0]


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
    if tensor.device.type == "meta":
        raise CheckpointError(
            f"{path}: tensor {name!r} has no values (it was saved from the meta device). "
            "Save the model once its weights are loaded."
        )
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        raise CheckpointError(
            f"{path}: tensor {name!r} repeats {tensor.untyped_storage().nbytes()} stored bytes to "
            f"{tensor.numel() * tensor.itemsize}. Save it with .contiguous()."
        )
