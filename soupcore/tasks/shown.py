"""Examples for display."""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from soupcore.errors import TaskError

_LARGEST = 1 << 20  # bytes of an image
_LONGEST = 2000  # characters


@dataclass(frozen=True)
class Shown:
    """An example for display: a text, an image, or both.

    Attributes:
        text: The example as text, or a caption such as its class; cut off after 2,000 characters.
        image: uint8, shape [height, width] (grey) or [height, width, 3] (RGB), at most 1 MiB.

    Raises:
        TaskError: The image has another dtype or shape, or is too large.
    """

    text: str = ""
    image: Tensor | None = None

    def __post_init__(self) -> None:
        """Check the image."""
        image = self.image
        if image is None:
            return
        if image.dtype != torch.uint8 or not (
            image.dim() == 2 or (image.dim() == 3 and image.shape[2] == 3)
        ):
            raise TaskError(
                "`show` returned an image of dtype "
                f"{image.dtype} and shape {list(image.shape)}. Return uint8 of shape [height, "
                "width] or [height, width, 3]."
            )
        if image.numel() > _LARGEST:
            raise TaskError(
                f"`show` returned an image of {list(image.shape)}, which is more than 1 MiB. "
                "Return a smaller one."
            )

    def to_json(self) -> dict[str, Any]:
        """Return the example as JSON, the inverse of `Shown.from_json`."""
        cut = self.text[:_LONGEST]
        body: dict[str, Any] = {"text": cut + "…" if len(self.text) > _LONGEST else cut}
        if self.image is not None:
            body["shape"] = list(self.image.shape)
            body["pixels"] = b64encode(self.image.cpu().contiguous().numpy().tobytes()).decode()
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Shown":
        """Return the example from its JSON."""
        if "pixels" not in body:
            return cls(body["text"])
        pixels = np.frombuffer(b64decode(body["pixels"]), dtype=np.uint8)
        image: npt.NDArray[np.uint8] = pixels.reshape(body["shape"]).copy()
        return cls(body["text"], torch.from_numpy(image))
