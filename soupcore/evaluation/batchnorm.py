"""BatchNorm's statistics at a point: averaged like all weights, or estimated anew.

The mean and variance of activations at a mixture are not the mixture of the means and variances at
the ingredients: between networks that are far apart the variance falls, and the loss is higher than
that of the weights alone. Estimating them at each point on training data mends that (Garipov et al.
2018, arXiv:1802.10026; Jordan et al. 2022, arXiv:2211.08403). For fine-tuned networks it matters
less, and may make a soup worse, so it is a choice to be seen.

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
from soupcore.tasks.task import norms_of

StatisticsChoice = Literal["averaged", "re-estimated"]

EXAMPLES = 1024
_BATCH = 128  # part of what is estimated, so not one of the things that are found by measuring


@dataclass(frozen=True)
class Estimate:
    """Where the statistics of a point are from that are estimated anew.

    Attributes:
        split: Name of the split with the training data.
        split_digest: Identity of that data.
        examples: How many of its examples are seen.
    """

    split: str
    split_digest: str
    examples: int

    @property
    def key(self) -> str:
        """What tells a point with these statistics from the same with averaged ones."""
        return f"+batchnorm {self.examples} of {self.split_digest}"


def statistics_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a network's statistics under the names that they have in its state dict."""
    found = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, _BatchNorm):
            for what in ("running_mean", "running_var"):
                if (tensor := getattr(module, what)) is not None:
                    found[f"{name}.{what}" if name else what] = tensor
    return found


def estimate_statistics(model: nn.Module, data: Data, examples: int) -> None:
    """Set a network's statistics to those of training data, for the weights that it has now.

    Args:
        model: The network, in evaluation mode. Its other layers stay in it, so nothing is dropped.
        data: The training data.
        examples: How many examples to see, drawn once and for all; fewer where there are fewer.

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
            f"BatchNorm's statistics are estimated on {_BATCH} examples at a time, which do not "
            "go through the network in the memory there is. Choose another device, close what "
            "else runs on it, or have the statistics averaged."
        ) from error


def _rows(n: int, examples: int) -> Tensor:
    # At random, because training data often lies sorted by class.
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:examples]


@contextmanager
def _estimating(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # which says: the mean over all batches
            norm.train()
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
