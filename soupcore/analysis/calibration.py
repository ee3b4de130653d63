"""Whether a classifier is as sure as it is right.

Soups do not improve calibration (Wortsman et al. 2022, section B); here one can see by how much
they do not. All of it comes from stored logits, without a forward pass.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy  # its submodules load when they are first used
import torch
from torch import Tensor

from soupcore.errors import TaskError
from soupcore.evaluation.statistics import score_interval

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Examples of which the network is about equally sure.

    Attributes:
        n: How many.
        confidence: Their mean confidence, the probability of the class that is said.
        accuracy: Share of them that is right.
        interval: 95 % confidence interval of the accuracy.
    """

    n: int
    confidence: float
    accuracy: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """Confidence against accuracy.

    Attributes:
        bins: Of equal mass, by rising confidence.
        ece: Expected calibration error: the mean over examples of |confidence − accuracy| of their
            bins, 0 to 1.
        temperature: What the logits were divided by, 1 where they are as the network gave them.
    """

    bins: tuple[Bin, ...]
    ece: float
    temperature: float


def calibration(
    logits: Tensor, targets: Tensor, *, temperature: float = 1.0, bins: int = BINS
) -> Calibration:
    """Return confidence against accuracy in bins of equal mass.

    Equal mass rather than equal width (Nguyen and O'Connor 2015; Wortsman et al. 2022): most
    examples have a confidence near 1, and bins of equal width leave a few examples to most of them.
    Bins differ by one example at most; examples of equal confidence keep their order in the split.

    Args:
        logits: Shape [n, classes].
        targets: The classes, shape [n].
        temperature: What to divide the logits by.
        bins: How many; no more than examples.

    Raises:
        TaskError: The outputs are not logits of classes.
    """
    _check(logits, targets)
    probabilities = (logits.double() / temperature).softmax(dim=1)
    confidence, said = probabilities.max(dim=1)
    correct = (said == targets).double()
    order = confidence.argsort(stable=True)
    found = []
    for part in order.tensor_split(min(bins, len(order))):
        found.append(
            Bin(
                n=len(part),
                confidence=float(confidence[part].mean()),
                accuracy=float(correct[part].mean()),
                interval=score_interval(correct[part]),
            )
        )
    ece = sum(each.n * abs(each.confidence - each.accuracy) for each in found) / len(order)
    return Calibration(tuple(found), ece, temperature)


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """Return the temperature whose division of the logits gives the least cross-entropy.

    Guo et al. 2017 (arXiv:1706.04599), section 4.2. In 1/temperature the cross-entropy is convex,
    so a bounded search over its logarithm finds the minimum. Fit it on `select`, and look at the
    result on another split.

    Args:
        logits: Shape [n, classes].
        targets: The classes, shape [n].

    Returns:
        Between 1/100 and 100. Where every example is right, the lower the better, and it is one at
        which the cross-entropy is next to 0.

    Raises:
        TaskError: The outputs are not logits of classes.
    """
    _check(logits, targets)
    wide = logits.double()

    def loss(log_temperature: float) -> float:
        scaled = wide / math.exp(log_temperature)
        return float(torch.nn.functional.cross_entropy(scaled, targets))

    widest = math.log(100)
    found = scipy.optimize.minimize_scalar(
        loss, bounds=(-widest, widest), method="bounded", options={"xatol": 1e-8}
    )
    return float(np.exp(found.x))


def _check(logits: Tensor, targets: Tensor) -> None:
    if logits.dim() != 2 or targets.shape != logits.shape[:1] or targets.is_floating_point():
        raise TaskError(
            f"Calibration needs logits of shape [n, classes] and a class for each example, not "
            f"outputs of shape {list(logits.shape)} and targets of shape {list(targets.shape)}."
        )
