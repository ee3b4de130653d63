"""BatchNorm statistics at a point: averaged like all weights, or re-estimated.

The mean and variance of activations at a mixture are not the mixture of the means and variances at
the ingredients. Between networks that are far apart, the variance of activations collapses, and
averaged statistics raise the loss. Re-estimating the statistics at each point on training data
corrects this (Garipov et al. 2018, arXiv:1802.10026; Jordan et al. 2022, arXiv:2211.08403). For
fine-tuned networks it has less effect and may make a soup worse, so it is optional and always
reported.

As in torch.optim.swa_utils.update_bn, the statistics are the mean over batches of each batch's mean
and unbiased variance, in one pass.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from soupcore.errors import TaskError
from soupcore.evaluation.data import Data, is_out_of_memory
from soupcore.tasks.networks import norms_of

StatisticsChoice = Literal["averaged", "re-estimated"]

EXAMPLES = 1024
_BATCH = 128  # fixed, since the estimate depends on it


@dataclass(frozen=True)
class Estimate:
    """The training data on which BatchNorm statistics are re-estimated.

    Attributes:
        split: Name of the split with the training data.
        split_digest: Digest of this split.
        examples: Number of examples to use.
    """

    split: str
    split_digest: str
    examples: int

    @property
    def key(self) -> str:
        """Suffix for the key of a point with these statistics."""
        return f"+batchnorm {self.examples} of {self.split_digest}"


def statistics_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a network's BatchNorm statistics by their names in its state dict."""
    statistics = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, _BatchNorm):
            for buffer in ("running_mean", "running_var"):
                if (tensor := getattr(module, buffer)) is not None:
                    statistics[f"{name}.{buffer}" if name else buffer] = tensor
    return statistics


def estimate_statistics(model: nn.Module, data: Data, examples: int) -> None:
    """Set a network's BatchNorm statistics to those of training data for its current weights.

    Args:
        model: The network, in evaluation mode. Other layers stay in this mode, so dropout is
            inactive.
        data: The training data.
        examples: Number of examples to use, drawn with a fixed seed; all if there are fewer.

    Raises:
        TaskError: There is only one example, which has no variance, or too little memory.
    """
    rows = _rows(len(data), examples)
    if len(rows) < 2:
        raise TaskError("BatchNorm statistics need at least two training examples to estimate.")
    try:
        with _estimating(norms_of(model)):
            for some in torch.tensor_split(rows, math.ceil(len(rows) / _BATCH)):
                data.through(model, some)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TaskError(
            f"BatchNorm statistics are estimated on {_BATCH} examples at a time, for which the "
            "device has too little memory. Choose another device, free memory on it, or average "
            "the statistics."
        ) from error


def _rows(n: int, examples: int) -> Tensor:
    # At random, because training data is often sorted by class.
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:examples]


@contextmanager
def _estimating(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative mean over all batches
            norm.train()
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
