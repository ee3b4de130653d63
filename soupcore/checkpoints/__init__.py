"""Files ⇄ named tensors."""

from soupcore.checkpoints.checkpoint import Checkpoint, TensorInfo
from soupcore.checkpoints.opening import open_checkpoint
from soupcore.checkpoints.safetensors_format import write_safetensors

__all__ = ["Checkpoint", "TensorInfo", "open_checkpoint", "write_safetensors"]
