"""Splits of image files for image classifiers, which are decoded and preprocessed once."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from soupcore.errors import TaskError
from soupcore.tasks.description import Role
from soupcore.tasks.splits import Shown, Split

if TYPE_CHECKING:
    from PIL.Image import Image

#: File extensions of images.
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_SHOWN = 256  # pixels: longest side of an image that is shown
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of an image: resize, center crop and normalisation.

    Attributes:
        size: Height and width of the tensor.
        resize: Length of the shorter side before the crop; of both sides if the image is squashed.
        mean: Mean of red, green and blue, for values from 0 to 1.
        std: Standard deviation of the same.
        interpolation: Interpolation of the resize: nearest, bilinear, bicubic or lanczos.
        is_squashed: Whether both sides are resized to one length.
    """

    size: tuple[int, int]
    resize: int
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    is_squashed: bool = False

    def __post_init__(self) -> None:
        if self.interpolation not in _INTERPOLATIONS:
            raise TaskError(
                f"The interpolation must be one of {', '.join(_INTERPOLATIONS)}, not "
                f"{self.interpolation!r}."
            )

    @classmethod
    def of_timm(cls, config: Mapping[str, Any]) -> "Preprocessing":
        """Convert the result of `timm.data.resolve_data_config`."""
        _, height, width = config["input_size"]
        mode = config.get("crop_mode") or "center"
        if mode not in ("center", "squash"):
            raise TaskError(f"The crop mode {mode!r} of timm is not supported.")
        return cls(
            (height, width),
            math.floor(max(height, width) / (config.get("crop_pct") or 0.875)),
            tuple(config["mean"]),
            tuple(config["std"]),
            config.get("interpolation") or "bilinear",
            is_squashed=mode == "squash",
        )

    def __call__(self, image: "Image") -> Tensor:
        """Preprocess an image in RGB; returns uint8 of shape [3, height, width]."""
        from PIL.Image import Resampling

        width, height = image.size
        scale = self.resize / min(width, height)
        sides = self.resize, self.resize
        if not self.is_squashed and width < height:
            sides = self.resize, int(self.resize * height / width)
        elif not self.is_squashed:
            sides = int(self.resize * width / height), self.resize
        if scale != 1 or self.is_squashed:
            image = image.resize(sides, Resampling[self.interpolation.upper()])
        tall, wide = self.size
        left, top = round((image.width - wide) / 2), round((image.height - tall) / 2)
        # Pad with black beyond the border.
        cropped = image.crop((left, top, left + wide, top + tall))
        return torch.from_numpy(np.array(cropped)).permute(2, 0, 1).contiguous()

    def normalise(self, batch: Tensor) -> Tensor:
        """Normalise uint8 images by the mean and standard deviation of training."""
        mean, std = (
            torch.tensor(each, device=batch.device).view(-1, 1, 1) for each in (self.mean, self.std)
        )
        return (batch.float() / 255 - mean) / std


class _Pictures(Dataset[tuple[Any, Tensor]]):
    """Image files and their classes.

    Args:
        files: The files.
        classes: The class of each.
        read: Preprocesses an image in RGB.
    """

    def __init__(
        self, files: Sequence[Path], classes: Sequence[int], read: Callable[["Image"], Tensor]
    ) -> None:
        self._files = files
        self._classes = classes
        self._read = read

    def identity(self, preprocessing: str) -> str:
        """Return a digest of the names and sizes of the files, their classes and preprocessing."""
        sha = hashlib.sha256(preprocessing.encode())
        for file, number in zip(self._files, self._classes, strict=True):
            sha.update(f"{file.parent.name}/{file.name} {file.stat().st_size} {number}\n".encode())
        return sha.hexdigest()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, row: int) -> tuple[Any, Tensor]:
        return _read(self._files[row], self._read), torch.tensor(self._classes[row])


def picture_split(
    role: Role,
    files: Sequence[Path],
    classes: Sequence[int],
    read: Callable[["Image"], Tensor],
    preprocessing: str,
    prepare: Callable[[Any], Any] | None = None,
    groups: Sequence[Any] | None = None,
    weights: Tensor | None = None,
    names: Sequence[str] | None = None,
) -> Split:
    """Return a split of image files, which are decoded when first needed.

    Args:
        role: As for any split.
        files: The files.
        classes: The class of each.
        read: Preprocesses an image in RGB.
        preprocessing: The identity of `read`.
        prepare: Converts a batch of preprocessed images into network inputs, on the device.
        groups: As for any split.
        weights: As for any split.
        names: The name of each image's class, which is shown with it; its number unless given.

    Raises:
        TaskError: A file does not exist.
    """
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise TaskError(f"The image {missing} does not exist.")
    dataset = _Pictures(files, classes, read)
    version = dataset.identity(preprocessing)
    split = Split.from_dataset(
        role, dataset, version=version, prepare=prepare, groups=groups, weights=weights
    )
    split.labels = torch.tensor(classes)
    captions = list(map(str, classes)) if names is None else names
    split.shown = lambda index: Shown(captions[index], _read(files[index], _small))
    return split


def _read(file: Path, read: Callable[["Image"], Tensor]) -> Tensor:
    """Open an image file, convert it to RGB, and return the result of `read`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            return read(image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise TaskError(f"{file} cannot be read as an image: {error}") from None


def _small(image: "Image") -> Tensor:
    """Return an image to be shown: uint8, shape [height, width, 3]."""
    image.thumbnail((_SHOWN, _SHOWN))
    return torch.from_numpy(np.array(image))
