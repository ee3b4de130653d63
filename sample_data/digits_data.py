"""The images of the sample: cluttered handwritten digits, their shifts, and an upstream task.

The handwriting is the UCI digits data set in scikit-learn (1,797 images of 8 x 8, Alpaydin and
Kaynak 1998). Almost any network solves it, so every image is placed on a 16 x 16 canvas with scraps
of other digits and sensor noise.

The upstream task is unrelated to handwriting: it is to recognise which segments of a warped
seven-segment display are lit. Its images are drawn, so there can be any number of them.

All random numbers come from torch's global generator; seed it before calling.
"""

import math

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

SIDE = 16
SELECT, REPORT, TRAIN = 700, 700, 300  # the remaining 97 images are used only as scraps

# x0 y0 x1 y1 of the seven segments, on a display of width 1 and height 2
SEGMENTS = torch.tensor(
    [
        [0.0, 0, 1, 0],
        [1, 0, 1, 1],
        [1, 1, 1, 2],
        [0, 2, 1, 2],
        [0, 1, 0, 2],
        [0, 0, 0, 1],
        [0, 1, 1, 1],
    ]
)


def digit_splits() -> tuple[dict[str, dict[str, Tensor]], Tensor]:
    """Divide the 1,797 digits into `train`, `select` and `report`, clutter them, add the shifts.

    Returns:
        The splits, and the remaining clean digits, float [97, 1, 16, 16], as scraps. Each split has
        `images` uint8 [n, 1, 16, 16], `labels` int64 [n], and `source` int64 [n], the index of the
        image in scikit-learn's data set, which shows that splits are disjoint.
    """
    digits = load_digits()
    clean = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    clean = functional.interpolate(clean, size=(14, 14), mode="bilinear", align_corners=False)
    clean = functional.pad(clean, (1, 1, 1, 1))
    labels = torch.tensor(digits.target, dtype=torch.int64)

    order = torch.randperm(len(clean))
    ends = [SELECT, SELECT + REPORT, SELECT + REPORT + TRAIN]
    select, report, train, unused = torch.tensor_split(order, ends)
    scraps = clean[unused]
    splits = {
        name: {"images": to_bytes(clutter(clean[i], scraps)), "labels": labels[i], "source": i}
        for name, i in (("train", train), ("select", select), ("report", report))
    }
    seen = splits["report"]["images"].float() / 255
    for shift, images in shifted(seen).items():
        splits[f"shift-{shift}"] = {**splits["report"], "images": to_bytes(images)}
    return splits, scraps


def to_bytes(images: Tensor) -> Tensor:
    """Convert floats from 0 to 1 to bytes."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def clutter(images: Tensor, scraps: Tensor) -> Tensor:
    """Shift each image by up to one pixel, overlay two 6 x 6 scraps, and add noise."""
    images = functional.pad(images, (1, 1, 1, 1))
    images = windows(images, torch.randint(0, 3, (len(images), 2)), SIDE).clone()
    for _ in range(2):
        donors = scraps[torch.randint(len(scraps), (len(images),))]
        piece = 0.8 * windows(donors, torch.randint(0, SIDE - 5, (len(images), 2)), 6)
        view = window_index(torch.randint(0, SIDE - 5, (len(images), 2)), 6)
        images[view] = torch.maximum(images[view], piece[:, 0])
    return 0.15 + 0.7 * images + 0.1 * torch.randn_like(images)


def window_index(corners: Tensor, side: int) -> tuple[Tensor, int, Tensor, Tensor]:
    """Return the index of a `side` x `side` window of each image, with its corner at (y, x)."""
    rows = corners[:, 0, None, None] + torch.arange(side)[:, None]  # [n, side, 1]
    columns = corners[:, 1, None, None] + torch.arange(side)  # [n, 1, side]
    return torch.arange(len(corners))[:, None, None], 0, rows, columns


def windows(images: Tensor, corners: Tensor, side: int) -> Tensor:
    """Crop a window from each image."""
    return images[window_index(corners, side)][:, None]  # [n, 1, side, side]


def shifted(images: Tensor) -> dict[str, Tensor]:
    """Return five distribution shifts of finished images."""
    n = len(images)
    kernel = torch.tensor([1.0, 2, 1]).outer(torch.tensor([1.0, 2, 1]))[None, None] / 16
    padded = functional.pad(images, (2, 2, 2, 2), mode="replicate")
    blurred = functional.conv2d(functional.conv2d(padded, kernel), kernel)

    margin = 3
    padded = functional.pad(images, (margin,) * 4, mode="replicate")
    occluded = images.clone()
    occluded[window_index(torch.randint(2, SIDE - 7, (n, 2)), 5)] = 0.5
    return {
        "noise": images + 0.15 * torch.randn_like(images),
        "blur": blurred,
        "translation": windows(padded, torch.randint(0, 2 * margin + 1, (n, 2)), SIDE),
        "contrast": 0.45 * (images - 0.5) + 0.5,
        "occlusion": occluded,
    }


def upstream_images(n: int, scraps: Tensor) -> tuple[Tensor, Tensor]:
    """Draw `n` warped seven-segment characters with the same clutter as the digits.

    Returns:
        Images [n, 1, 16, 16], and floats [n, 7] that are 1 for lit segments.
    """
    batches = [draw_segments(500) for _ in range(math.ceil(n / 500))]  # 500: 30 MB at a time
    images = torch.cat([images for images, _ in batches])[:n]
    lit = torch.cat([lit for _, lit in batches])[:n]
    return clutter(images, scraps), lit


def draw_segments(n: int) -> tuple[Tensor, Tensor]:
    """Draw characters with a soft pen; each segment is lit with probability 0.6."""
    lit = torch.rand(n, 7) < 0.6
    along = torch.linspace(0, 1, 8)[:, None]
    points = SEGMENTS[:, None, :2] * (1 - along) + SEGMENTS[:, None, 2:] * along  # [7, 8, xy]
    points = (points - torch.tensor([0.5, 1.0])) * torch.tensor([5.5, 5.0])  # to pixels
    points = points.reshape(1, -1, 2).repeat(n, 1, 1)  # [n, 56, xy]

    # Bend, then shear and scale, then shift.
    bend, phase = 1.5 * torch.rand(n, 1, 2), 2 * math.pi * torch.rand(n, 1, 2)
    points = points + bend * torch.sin(points.flip(-1) / 3 + phase)
    points = points @ (torch.eye(2) + 0.15 * torch.randn(n, 2, 2))
    points = points + 7.5 + 0.7 * torch.randn(n, 1, 2)

    x, y = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="xy")
    pixels = torch.stack([x, y], dim=-1).reshape(1, -1, 1, 2)
    distance = (pixels - points[:, None]).square().sum(-1)  # [n, 256, 56]
    pen = 0.7 + 0.6 * torch.rand(n, 1, 1)
    ink = torch.exp(-distance / (2 * pen.square())) * lit.repeat_interleave(8, dim=1)[:, None]
    return ink.amax(-1).reshape(n, 1, SIDE, SIDE), lit.float()
