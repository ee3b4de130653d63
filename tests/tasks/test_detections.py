"""Non-maximum suppression, matching and mean average precision, against plain loops and `val()`."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from torch import Tensor

from soupcore.tasks.detections import (
    DETECTION_METRICS,
    THRESHOLDS,
    Detections,
    Limits,
    counts,
    detect,
    mean_average_precision,
    overlap,
    record,
)

# The detections of runs/detect/train-4 on the 120 validation images of a made data set, recorded
# from a pass in the full environment: Ultralytics 8.4.190, torch 2.14.1, torchvision 0.29.1.
RECORDED = Path(__file__).parent / "yolo_shapes_detections.npz"

# `YOLO("best.pt").val(data="data.yaml", imgsz=64)` in that environment.
BY_VAL = {
    "mAP50-95": 0.42127486060413305,
    "mAP50": 0.6373172572883343,
    "precision": 0.5357980079996598,
    "recall": 0.6977026477271067,
}


def recorded() -> tuple[Tensor, Tensor]:
    held = np.load(RECORDED)
    numbers = torch.from_numpy(held["counts"].astype("i8"))
    records = torch.zeros(len(numbers), 301, 2)
    records[:, 0, 1] = numbers
    is_row = torch.arange(300) < numbers[:, None]
    rows = records[:, 1:]
    rows[is_row] = torch.from_numpy(
        np.stack([held["confidences"], held["codes"].astype("f4")], axis=1)
    )
    classes = torch.from_numpy(held["classes"].astype("f4"))
    return records, torch.nn.functional.pad(classes[..., None], (0, 4))


def test_the_numbers_are_those_of_val() -> None:
    records, targets = recorded()
    found = {
        m.name: m.score({"predictions": None, "outputs": records}, targets)
        for m in DETECTION_METRICS
    }
    assert found == pytest.approx(BY_VAL, abs=5e-7)
    assert counts(records).sum(0).tolist() == [20847, int((records[:, 1:, 1] % 2).sum())]


def test_mean_average_precision_is_no_mean_over_images() -> None:
    records, targets = recorded()
    each = [mean_average_precision(r[None], t[None]) for r, t in zip(records, targets, strict=True)]
    assert np.mean(each) > mean_average_precision(records, targets) + 0.1


def by_the_definition(hits: list[bool], objects: int) -> float:
    """Return the area under the envelope, from a point for each detection."""
    found, recall, precision = 0, [0.0], [1.0]
    for place, hit in enumerate(hits, 1):
        found += hit
        recall.append(found / objects)
        precision.append(found / place)
    recall += [recall[-1], 1.0]
    precision += [0.0, 0.0]
    envelope = [max(precision[place:]) for place in range(len(precision))]
    grid = np.linspace(0, 1, 101)
    return float(np.trapezoid(np.interp(grid, recall, envelope), grid))


@given(st.lists(st.booleans(), max_size=40), st.integers(0, 20))
@settings(deadline=None, max_examples=150)
def test_average_precision_by_its_definition(hits: list[bool], missed: int) -> None:
    objects = max(1, sum(hits) + missed)
    records = torch.zeros(1, 1 + len(hits), 2)
    records[0, 1:, 0] = torch.linspace(1, 0.1, len(hits))
    records[0, 1:, 1] = torch.tensor(hits).float() * 1023
    targets = torch.zeros(1, objects, 5)
    expected = by_the_definition(hits, objects) if hits else 0.0
    assert mean_average_precision(records, targets) == pytest.approx(expected, abs=1e-12)
    if all(hits) and hits:
        return
    # scikit-learn's area has no envelope and no interpolation: never above but for the grid.
    if sum(hits) and objects == sum(hits):
        scores = np.linspace(1, 0.1, len(hits))
        assert average_precision_score(hits, scores) <= expected + 0.05


def test_classes_without_objects_are_ignored_and_no_objects_are_undefined() -> None:
    records = torch.zeros(2, 3, 2)
    records[0, 1] = torch.tensor([0.9, 1023.0])
    records[1, 1] = torch.tensor([0.8, 5 * 1024.0])  # of class 5, which has no object
    targets = torch.full((2, 1, 5), -1.0)
    assert math.isnan(mean_average_precision(records, targets))
    targets[0, 0, 0] = 0
    assert mean_average_precision(records, targets) == pytest.approx(0.995)
    targets[1, 0, 0] = 7  # a class that is never detected
    assert mean_average_precision(records, targets) == pytest.approx(0.995 / 2)


def boxes_at(
    rng: np.random.Generator, count: int
) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    low = rng.uniform(0, 40, (count, 2))
    return np.concatenate([low, low + rng.uniform(4, 30, (count, 2))], axis=1).astype("f4")


@pytest.mark.parametrize(("seed", "boxes", "most"), [(0, 30, 300), (1, 700, 300), (2, 200, 7)])
def test_suppression_by_a_plain_loop(seed: int, boxes: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    places, scores = boxes_at(rng, boxes), rng.random((boxes, 3)).astype("f4").round(2)
    limits = Limits(confidence=0.3, iou=0.5)
    candidates = sorted(
        (-float(scores[row, each]), row, each)
        for row in range(boxes)
        for each in range(3)
        if scores[row, each] > 0.3
    )
    kept: list[tuple[int, int]] = []
    for _, row, each in candidates:
        rivals = [other for other, of in kept if of == each]
        if not (overlap(places[rivals], places[[row]]) > 0.5).any():
            kept.append((row, each))
    found = detect(places, scores, limits, most)
    assert found.classes.tolist() == [each for _, each in kept[:most]]
    np.testing.assert_array_equal(found.boxes, places[[row for row, _ in kept[:most]]])


def test_a_network_that_failed_detects_nothing() -> None:
    empty = detect(np.full((3, 4), np.nan, "f4"), np.full((3, 2), np.nan, "f4"), Limits(), 300)
    rows = record(empty, np.array([[0, 1, 1, 2, 2]], dtype="f4"), 300, math.nan)
    assert rows[1:].eq(0).all()
    assert rows[0].isnan().tolist() == [True, False]


def test_each_object_is_claimed_once_at_each_threshold() -> None:
    objects = np.array([[0, 0, 0, 10, 10], [1, 0, 0, 10, 10], [-1, 0, 0, 0, 0]], dtype="f4")
    found = Detections(
        boxes=np.array(
            [[0, 0, 10, 6.2], [0, 0, 10, 10], [0, 0, 10, 10], [30, 30, 40, 40]], dtype="f4"
        ),
        confidences=np.array([0.9, 0.8, 0.7, 0.6], dtype="f4"),
        classes=np.array([0, 0, 1, 0]),
    )
    rows = record(found, objects, 5, 1.5)
    assert rows[0].tolist() == [1.5, 4]
    low = 0b0000000111  # 0.50, 0.55, 0.60
    # The first claims the object where it overlaps it enough; above, the second does.
    assert rows[1:, 1].tolist() == [low, 1023 - low, 1024 + 1023, 0, 0]
    assert len(THRESHOLDS) == 10
