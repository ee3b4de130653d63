"""Object detection: non-maximum suppression, matching, and the mean average precision of a split.

Definitions are those of COCO's bounding boxes in the variant of Ultralytics: average precision is
the area under the envelope of the precision-recall curve, by the trapezoidal rule over 101 recalls,
and the mean is over the classes that the targets have. It is a function of all detections of a
split. The mean of average precisions over images is a different number and ranks networks
differently.

The record of an image has 1 + `most` rows of two numbers, where `most` is the maximum number of
detections. The first row is its loss and the number of its detections. Each other row is a
detection: its confidence, and 1,024 times its class plus a bit for each IoU threshold at which it
is correct. Unused rows are 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from soupcore.tasks.metrics import Metric

Floats = NDArray[np.floating[Any]]

#: IoU thresholds for correct detections.
THRESHOLDS = np.linspace(0.5, 0.95, 10, dtype=np.float32)

_BITS = 1 << len(THRESHOLDS)
_AT_ONCE = 512  # boxes whose overlaps are computed together
_EPSILON = 1e-7  # added to the area of a union
_RECALLS = np.linspace(0, 1, 101)
_CONFIDENCES = np.linspace(0, 1, 1000)
_WINDOW = 101  # confidences over which F1 is smoothed


@dataclass(frozen=True)
class Detections:
    """The detections of an image, best first.

    Attributes:
        boxes: Left, top, right and bottom, float32, shape [k, 4].
        confidences: Float32, shape [k].
        classes: Int64, shape [k].
    """

    boxes: Floats
    confidences: Floats
    classes: NDArray[np.int64]


@dataclass(frozen=True)
class Limits:
    """The limits of non-maximum suppression.

    Attributes:
        confidence: Minimum confidence of a detection, exclusive.
        iou: If two boxes of one class overlap by more, the one with less confidence is dropped.
        candidates: Maximum number of candidates per image, those with the highest confidence.
    """

    confidence: float = 0.001
    iou: float = 0.7
    candidates: int = 30_000


def detect(boxes: Floats, scores: Floats, limits: Limits, most: int) -> Detections:
    """Return the detections among the candidates of an image, by non-maximum suppression.

    Each class of a box is a candidate. Ties in confidence are ordered by box, then by class. There
    is no time limit.

    Args:
        boxes: Float32, shape [boxes, 4].
        scores: A confidence for each class, float32, shape [boxes, classes].
        limits: The limits of non-maximum suppression.
        most: Maximum number of detections.
    """
    rows, classes = np.nonzero(scores > limits.confidence)
    confidences = scores[rows, classes]
    order = np.argsort(-confidences, kind="stable")[: limits.candidates]
    rows, classes, confidences = rows[order], classes[order], confidences[order]
    kept = [
        places[_unsuppressed(boxes[rows[places]], limits.iou, most)]
        for places in (np.flatnonzero(classes == each) for each in np.unique(classes))
    ]
    best = np.sort(np.concatenate(kept))[:most] if kept else np.zeros(0, dtype=np.int64)
    return Detections(boxes[rows[best]], confidences[best], classes[best])


def _unsuppressed(boxes: Floats, limit: float, most: int) -> NDArray[np.int64]:
    """Return the boxes of one class, best first, that overlap no better box that is kept."""
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left) and len(kept) < most:
        some, left = left[:_AT_ONCE], left[_AT_ONCE:]
        overlaps = overlap(boxes[some], boxes[some]) > limit
        alive = np.ones(len(some), dtype=bool)
        for place in range(len(some)):
            if alive[place]:
                alive[place + 1 :] &= ~overlaps[place, place + 1 :]
        some = some[alive]
        kept += some.tolist()
        left = left[~(overlap(boxes[some], boxes[left]) > limit).any(0)]
    return np.array(kept[:most], dtype=np.int64)


def overlap(one: Floats, other: Floats, epsilon: float = 0.0) -> Floats:
    """Return the IoU of each pair of boxes, float32, shape [len(one), len(other)].

    Args:
        one: Boxes, shape [k, 4].
        other: Boxes, shape [m, 4].
        epsilon: Added to the area of the union.
    """
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = (high - low).clip(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = shared / (areas[0][:, None] + areas[1] - shared + np.float32(epsilon))
    return found


def record(found: Detections, targets: Floats, most: int, loss: float) -> Tensor:
    """Return the record of an image, float32, shape [1 + most, 2].

    At each threshold, detections in their order are matched to the unmatched target of their class
    with the largest overlap. A detection is wrong if that overlap is below the threshold.

    Args:
        found: The detections, `most` at most.
        targets: A class and a box for each object, float32, shape [objects, 5]; class -1 for none.
        most: Maximum number of detections of an image.
        loss: The loss of the image.
    """
    objects = targets[targets[:, 0] >= 0]
    overlaps = overlap(objects[:, 1:], found.boxes, _EPSILON)
    overlaps = np.where(objects[:, :1] == found.classes, overlaps, 0)
    right = np.zeros((len(found.classes), len(THRESHOLDS)), dtype=bool)
    is_free = np.ones((len(THRESHOLDS), len(objects)), dtype=bool)
    for place in np.flatnonzero((overlaps >= THRESHOLDS[0]).any(0)):
        free = np.where(is_free, overlaps[:, place], 0)  # [thresholds, objects]
        claimed = free.argmax(1)
        right[place] = free.max(1) >= THRESHOLDS
        is_free[right[place], claimed[right[place]]] = False
    rows = torch.zeros(1 + most, 2)
    rows[0] = torch.tensor([loss, len(right)])
    bits = (right << np.arange(len(THRESHOLDS))).sum(1)
    rows[1 : 1 + len(right), 0] = torch.from_numpy(found.confidences)
    rows[1 : 1 + len(right), 1] = torch.from_numpy((found.classes * _BITS + bits).astype("f4"))
    return rows


def counts(records: Tensor) -> Tensor:
    """Return the number of detections of each image, and of those correct at IoU 0.5: [n, 2]."""
    right = records[:, 1:, 1].long() % 2
    return torch.stack([records[:, 0, 1].long(), right.sum(1)], dim=1)


@dataclass(frozen=True)
class _Class:
    """The detections of one class in a split, best first.

    Attributes:
        bits: A bit for each threshold at which a detection is correct, shape [detections].
        confidences: Shape [detections].
        objects: Number of objects, above 0.
    """

    bits: NDArray[np.int64]
    confidences: Floats
    objects: int

    def average_precision(self, thresholds: int) -> list[float]:
        """Return the average precision at each of the first thresholds."""
        hits = np.flatnonzero(self.bits)
        bits = self.bits[hits]
        return [self._area(hits[bits >> place & 1 == 1]) for place in range(thresholds)]

    def _area(self, hits: NDArray[np.int64]) -> float:
        """Return the area under the envelope of the precision-recall curve.

        The curve has a point for each detection. Its envelope changes at hits only: from a wrong
        detection after hit t on, it equals the envelope at the next hit, where precision is
        highest.

        Args:
            hits: Indices of the correct detections, ascending, shape [t].
        """
        if not len(hits):
            return 0.0
        at_hits = np.arange(1, len(hits) + 1) / (hits + 1)
        envelope = np.maximum.accumulate(at_hits[::-1])[::-1]
        recall = np.arange(len(hits) + 1) / self.objects
        # A point after each hit and before the first one; it is left out if no wrong detection lies
        # between. After the last hit precision falls to 0.
        is_apart = np.diff(np.concatenate([[-1], hits])) > 1
        points = np.empty((2, 2 * len(hits) + 4))
        points[:, 0] = 0.0, 1.0
        points[0, 1:-3:2], points[1, 1:-3:2] = recall[:-1], envelope
        points[0, 2:-2:2], points[1, 2:-2:2] = recall[1:], envelope
        points[:, -2] = recall[-1], 0.0
        points[:, -1] = 1.0, 0.0
        kept = np.ones(points.shape[1], dtype=bool)
        kept[1:-3:2] = is_apart
        kept[-3] = False
        return float(np.trapezoid(np.interp(_RECALLS, *points[:, kept]), _RECALLS))

    def at_confidences(self) -> tuple[Floats, Floats]:
        """Return recall and precision at IoU 0.5 of detections above each of 1,000 confidences."""
        if not len(self.bits):
            return np.zeros(len(_CONFIDENCES)), np.zeros(len(_CONFIDENCES))
        hits = (self.bits & 1).cumsum()
        precision = hits / np.arange(1, len(hits) + 1)
        down = -self.confidences.astype(np.float64)
        return (
            np.interp(-_CONFIDENCES, down, hits / self.objects, left=0),
            np.interp(-_CONFIDENCES, down, precision, left=1),
        )


def _classes(records: Tensor, targets: Tensor) -> list[_Class]:
    """Return the detections of each class that the targets have."""
    rows = records[:, 1:].numpy()
    rows = rows[rows[..., 0] > 0]
    rows = rows[np.argsort(-rows[:, 0], kind="stable")]
    classes, bits = np.divmod(rows[:, 1].astype(np.int64), _BITS)
    objects = targets[..., 0].flatten().numpy()
    known, numbers = np.unique(objects[objects >= 0], return_counts=True)
    found = []
    for each, number in zip(known, numbers, strict=True):
        own = np.flatnonzero(classes == each)
        found.append(_Class(bits[own], rows[own, 0], int(number)))
    return found


def mean_average_precision(
    records: Tensor, targets: Tensor, *, thresholds: int = len(THRESHOLDS)
) -> float:
    """Return the mean average precision of a split; NaN without objects.

    Args:
        records: The records of its images, shape [n, 1 + most, 2].
        targets: Their objects, shape [n, objects, 5].
        thresholds: Number of IoU thresholds to average over, from 0.5 on.
    """
    found = [each.average_precision(thresholds) for each in _classes(records, targets)]
    return float(np.mean(found)) if found else float("nan")


def _at_best_f1(records: Tensor, targets: Tensor, *, curve: int) -> float:
    """Return mean recall (0) or precision (1) over classes, at the confidence with the best F1.

    It is the mean F1 of the classes, smoothed over a tenth of the confidences.
    """
    found = np.array([each.at_confidences() for each in _classes(records, targets)])
    if not len(found):
        return float("nan")
    recall, precision = found[:, 0], found[:, 1]
    f1 = (2 * recall * precision / (recall + precision + 1e-16)).mean(0)
    padded = np.pad(f1, _WINDOW // 2, mode="edge")
    best = np.convolve(padded, np.full(_WINDOW, 1 / _WINDOW), mode="valid").argmax()
    return float(found[:, curve, best].mean())


def _metric(name: str, compute: Callable[..., float], **settings: int) -> Metric:
    return Metric(name, range=(0.0, 1.0), compute=partial(compute, **settings), source="outputs")


#: The metrics of detection, the primary one first.
DETECTION_METRICS = (
    _metric("mAP50-95", mean_average_precision),
    _metric("mAP50", mean_average_precision, thresholds=1),
    _metric("precision", _at_best_f1, curve=1),
    _metric("recall", _at_best_f1, curve=0),
)
