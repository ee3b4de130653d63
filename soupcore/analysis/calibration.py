"""Calibration of classifiers: confidence against accuracy, and temperature scaling.

Wortsman et al. (2022, appendix B) found that soups do not improve calibration as ensembles do.
Other sweeps may differ. Everything here is computed from stored logits, without a forward pass.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # its submodules load when they are first used
from torch import Tensor
from torch.nn.functional import cross_entropy

from soupcore.errors import TaskError
from soupcore.intervals import mean_of, score_interval

BINS = 15


@dataclass(frozen=True)
class Bin:
    """Examples with similar confidence.

    Attributes:
        n: Number of examples.
        confidence: Mean confidence, the probability of the predicted class.
        accuracy: Fraction of correct predictions.
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
        bins: Equal-mass bins by ascending confidence.
        ece: Expected calibration error, from 0 to 1: the mean over examples of
            |confidence − accuracy| of their bins.
        temperature: Divisor of the logits; 1 for the network's own logits.
    """

    bins: tuple[Bin, ...]
    ece: float
    temperature: float

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as JSON, with None for NaN."""
        return {
            "bins": [
                [each.n, *map(_or_none, (each.confidence, each.accuracy, *each.interval))]
                for each in self.bins
            ],
            "ece": _or_none(self.ece),
            "temperature": self.temperature,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Calibration":
        """Return the calibration from the JSON of `to_json`."""
        bins = []
        for n, *numbers in body["bins"]:
            confidence, accuracy, low, high = map(_or_nan, numbers)
            bins.append(Bin(n, confidence, accuracy, (low, high)))
        return cls(tuple(bins), _or_nan(body["ece"]), body["temperature"])


def calibration(
    logits: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    temperature: float = 1.0,
    bins: int = BINS,
) -> Calibration:
    """Return confidence against accuracy in equal-mass bins.

    Bins have equal mass and not equal width (Nguyen and O'Connor 2015; Wortsman et al. 2022),
    because most examples have a confidence near 1, which would leave most bins nearly empty. Bin
    sizes differ by at most one. Examples of equal confidence keep their order in the split.

    Args:
        logits: Shape [n, classes].
        targets: Class indices, shape [n].
        weights: The weight of each example, shape [n]; None for equal weights. Bins hold equal
            numbers of the examples above weight zero; their confidence and accuracy are weighted,
            and so is the mean over bins.
        temperature: Divisor of the logits.
        bins: Number of bins; at most one per example is used.

    Raises:
        TaskError: The outputs are not logits of classes, or a target is out of range.
    """
    _check(logits, targets)
    logits, targets, weights = _counted(logits, targets, weights)
    probabilities = (logits.double() / temperature).softmax(dim=1)
    confidence, predicted = probabilities.max(dim=1)
    correct = (predicted == targets).double()
    order = confidence.argsort(stable=True)
    filled, sizes = [], []
    for part in order.tensor_split(min(bins, len(order))):
        own_weights = None if weights is None else weights[part]
        sizes.append(len(part) if own_weights is None else float(own_weights.sum()))
        filled.append(
            Bin(
                n=len(part),
                confidence=mean_of(confidence[part], "refuse", own_weights),
                accuracy=mean_of(correct[part], "refuse", own_weights),
                interval=score_interval(correct[part], weights=own_weights),
            )
        )
    gaps = [abs(each.confidence - each.accuracy) for each in filled]
    ece = sum(size * gap for size, gap in zip(sizes, gaps, strict=True)) / sum(sizes)
    return Calibration(tuple(filled), ece, temperature)


def fit_temperature(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Return the temperature that minimises the cross-entropy of logits / temperature.

    See Guo et al. 2017 (arXiv:1706.04599), section 4.2. The cross-entropy is convex in
    1/temperature, so a bounded search over the logarithm finds the minimum. Fit it on `select` and
    assess the result on another split.

    Args:
        logits: Shape [n, classes].
        targets: Class indices, shape [n].
        weights: The weight of each example, shape [n]; None for equal weights.

    Returns:
        The temperature, between 1/100 and 100. If all predictions are correct, there is no minimum,
        and the result is a low temperature with a cross-entropy close to 0.

    Raises:
        TaskError: The outputs are not logits of classes, or a target is out of range.
    """
    _check(logits, targets)
    logits, targets, weights = _counted(logits, targets, weights)
    wide = logits.double()

    def loss(log_temperature: float) -> float:
        return mean_cross_entropy(wide / math.exp(log_temperature), targets, weights)

    widest = math.log(100)
    minimum = scipy.optimize.minimize_scalar(
        loss, bounds=(-widest, widest), method="bounded", options={"xatol": 1e-8}
    )
    return float(np.exp(minimum.x))


def mean_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None) -> float:
    """Return the mean cross-entropy in nats, weighted where there are weights, shape [n]."""
    if weights is None:
        return float(cross_entropy(logits, targets.long()))
    return mean_of(cross_entropy(logits, targets.long(), reduction="none"), "refuse", weights)


def _counted(
    logits: Tensor, targets: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Leave out the examples of weight zero."""
    if weights is None:
        return logits, targets, None
    counted = weights > 0
    return logits[counted], targets[counted], weights[counted]


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _check(logits: Tensor, targets: Tensor) -> None:
    if logits.dim() != 2 or targets.shape != logits.shape[:1] or targets.is_floating_point():
        raise TaskError(
            f"Calibration needs logits of shape [n, classes] and one class per example, not "
            f"outputs of shape {list(logits.shape)} and targets of shape {list(targets.shape)}."
        )
    low, high = (int(end) for end in targets.long().aminmax())
    if low < 0 or high >= logits.shape[1]:
        raise TaskError(
            f"The targets are classes from {low} to {high}, but the logits have classes from 0 to "
            f"{logits.shape[1] - 1}."
        )
