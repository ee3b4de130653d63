"""Files ⇄ named tensors."""

from soupcore.checkpoints.checkpoint import Checkpoint, TensorInfo, WeightSet, are_known_alike
from soupcore.checkpoints.opening import open_checkpoint
from soupcore.checkpoints.renamed import RenamedCheckpoint
from soupcore.checkpoints.safetensors_format import write_safetensors

__all__ = [
    "Checkpoint",
    "RenamedCheckpoint",
    "TensorInfo",
    "WeightSet",
    "are_known_alike",
    "open_checkpoint",
    "write_safetensors",
]
