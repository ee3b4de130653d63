"""Reading checkpoints: from files of several formats to named tensors."""

from soupcore.checkpoints.checkpoint import Checkpoint, TensorInfo, WeightSet, are_known_alike
from soupcore.checkpoints.opening import open_checkpoint
from soupcore.checkpoints.renamed import RenamedCheckpoint

__all__ = [
    "Checkpoint",
    "RenamedCheckpoint",
    "TensorInfo",
    "WeightSet",
    "are_known_alike",
    "open_checkpoint",
]
