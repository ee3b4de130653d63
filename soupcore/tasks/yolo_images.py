"""Labelled images in the layout of Ultralytics, preprocessed for a detector."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from soupcore.errors import TaskError
from soupcore.tasks.toml_file import read_text

#: File extensions of images.
SUFFIXES = {
    "avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpeg2000", "jpg", "mpo", "png", "tif",
    "tiff", "webp",
}  # fmt: skip

#: Number of images padded to one shape.
BATCH = 16

#: Padded shapes are multiples of this many pixels.
STRIDE = 32

_GREY = 114  # of the padding
_BOX = 5  # numbers in a label: the class and the box
_OUTSIDE = 0.01  # tolerance for labels outside of their image
_NO_OBJECT = -1.0


@dataclass(frozen=True)
class LabelledImage:
    """An image file and its objects: a class and a box per row, shape [objects, 5].

    Boxes are centre, width and height, as shares of the image.
    """

    path: Path
    objects: NDArray[np.float32]


def labelled(files: Iterable[Path], classes: int) -> list[LabelledImage]:
    """Return images with the objects in their label files.

    Args:
        files: The images.
        classes: Number of classes of the network.

    Raises:
        TaskError: A label is invalid.
    """
    return [LabelledImage(file, _objects(label_file(file), classes)) for file in files]


def label_file(image: Path) -> Path:
    """Return the label file of an image below `images`."""
    parts = list(image.with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return Path(*parts)


def _objects(path: Path, classes: int) -> NDArray[np.float32]:
    """Return the objects of a label file; none without a file. Duplicates count once."""
    if not path.is_file():
        return np.zeros((0, _BOX), dtype=np.float32)
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    try:
        rows = [np.array(line, dtype=np.float32) for line in lines]
    except ValueError:
        raise TaskError(f"{path} contains a value that is not a number.") from None
    if any(len(row) > _BOX + 1 for row in rows):
        rows = [np.concatenate([row[:1], _around(row[1:])]) for row in rows if len(row) % 2]
    if any(len(row) != _BOX for row in rows) or len(rows) != len(lines):
        raise TaskError(
            f"{path} needs five numbers per line, the class and the box, or a class and a polygon."
        )
    found = np.array(rows, dtype=np.float32).reshape(-1, _BOX)
    numbers, boxes = found[:, 0], found[:, 1:]
    if ((boxes > 1 + _OUTSIDE) | (boxes < -_OUTSIDE)).any() or (boxes[:, 2:] < 0).any():
        raise TaskError(f"{path} has a box outside of its image; coordinates must be from 0 to 1.")
    if (numbers % 1 != 0).any() or (numbers < 0).any() or (numbers >= classes).any():
        raise TaskError(f"{path}: class numbers must be 0 to {classes - 1}.")
    alone = np.unique(found, axis=0)
    return alone if len(alone) < len(found) else found


def _around(polygon: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the bounding box of a polygon: centre, width and height."""
    corners = polygon.reshape(-1, 2)
    low, high = corners.min(0), corners.max(0)
    return np.concatenate([(low + high) / 2, high - low])


class Images(Dataset[Any]):
    """Preprocessed images, and their objects in pixels.

    Args:
        images: The images.
        size: Pixels of the longer side.
    """

    def __init__(self, images: Sequence[LabelledImage], size: int) -> None:
        self._images = images
        self._size = size
        self._most = max(1, *(len(image.objects) for image in images))
        self._canvases: list[tuple[int, int]] | None = None

    @property
    def identity(self) -> str:
        """A digest of the labels, the sizes of the image files, and the target size."""
        sha = hashlib.sha256(f"{self._size}".encode())
        for image in self._images:
            sha.update(f"{image.path.name} {image.path.stat().st_size}".encode())
            sha.update(image.objects.tobytes())
        return sha.hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> tuple[dict[str, Tensor], Tensor]:
        import cv2  # comes with ultralytics

        image = self._images[row]
        pixels = _decoded(image.path)
        height, width = pixels.shape[:2]
        ratio = self._size / max(height, width)
        if ratio != 1:
            width, height = (min(math.ceil(side * ratio), self._size) for side in (width, height))
            pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        tall, wide = self._canvas(row)
        # An odd pixel goes to the right or the bottom.
        top, left = (
            round((full - part) / 2 - 0.1) for full, part in ((tall, height), (wide, width))
        )
        canvas = np.full((tall, wide, 3), _GREY, dtype=np.uint8)
        canvas[top : top + height, left : left + width] = pixels
        objects = np.full((self._most, _BOX), _NO_OBJECT, dtype=np.float32)
        centres, sides = image.objects[:, 1:3], image.objects[:, 3:]
        scale, shift = np.array([width, height], "f4"), np.array([left, top], "f4")
        count = len(centres)
        objects[:count, 0] = image.objects[:, 0]
        objects[:count, 1:3] = (centres - sides / 2) * scale + shift
        objects[:count, 3:] = (centres + sides / 2) * scale + shift
        channels_first = np.ascontiguousarray(canvas.transpose(2, 0, 1)).ravel()
        inputs = {"pixels": torch.from_numpy(channels_first), "shape": torch.tensor([tall, wide])}
        return inputs, torch.from_numpy(objects)

    def _canvas(self, row: int) -> tuple[int, int]:
        """Return the padded height and width of an image and the others of its batch."""
        if self._canvases is None:
            self._canvases = canvases([_shape(image.path) for image in self._images], self._size)
        return self._canvases[row]


def canvases(shapes: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """Return the padded shape of each image.

    Images are sorted by height ⁄ width and divided into batches of 16. A batch has one shape: the
    smallest one that holds all of its images, plus half a stride, rounded up to strides.

    Args:
        shapes: Height and width of each image.
        size: Pixels of the longer side.
    """
    ratios = np.array([height / width for height, width in shapes])
    order = ratios.argsort(kind="stable")
    found = [(0, 0)] * len(shapes)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        flattest, tallest = ratios[rows].min(), ratios[rows].max()
        shares = (tallest, 1.0) if tallest < 1 else (1.0, 1 / flattest) if flattest > 1 else (1, 1)
        tall, wide = (math.ceil(share * size / STRIDE + 0.5) * STRIDE for share in shares)
        for row in rows:
            found[row] = (tall, wide)
    return found


def _shape(path: Path) -> tuple[int, int]:
    """Return the displayed height and width of an image, from its header."""
    from PIL import Image, UnidentifiedImageError

    turned = (5, 6, 7, 8)
    try:
        with Image.open(path) as image:
            width, height = image.size
            is_turned = image.getexif().get(274) in turned  # the tag of the EXIF orientation
    except (OSError, UnidentifiedImageError) as error:
        raise TaskError(f"{path} cannot be read as an image: {error}") from None
    return (width, height) if is_turned else (height, width)


def _decoded(path: Path) -> NDArray[np.uint8]:
    """Return an image in red, green and blue, shape [height, width, 3]."""
    import cv2

    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if found is None:
        raise TaskError(f"{path} cannot be read as an image.")
    pixels: NDArray[np.uint8] = found[..., ::-1]
    return np.ascontiguousarray(pixels)
