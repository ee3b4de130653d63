"""Cluttered handwritten digits: the task of the bundled sample, and a model for your own.

A task file says how to build the network and where the labelled splits are. It is ordinary
Python that ends in one name, ``task``.
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from soupcore import ClassificationTask, Split
from soupcore.tasks import Shown

DATA = Path(__file__).parent / "data"


class DigitNet(nn.Module):
    """Three strided convolutions and a linear head: 26,202 parameters, no BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=4, stride=2, padding=1),  # 16 channels, 8 x 8
            nn.GroupNorm(4, 16),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, stride=2, padding=1),  # 32 channels, 4 x 4
            nn.GroupNorm(4, 32),
            nn.ReLU(),
            nn.Conv2d(32, 64, kernel_size=3, stride=2, padding=1),  # 64 channels, 2 x 2
            nn.GroupNorm(4, 64),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Linear(256, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images [n, 1, 16, 16] into logits [n, 10]."""
        logits: Tensor = self.head(self.features(images))
        return logits


class DigitTask(ClassificationTask):
    """Classification of digits that can show its examples, which is optional."""

    def show(self, split: str, index: int) -> Shown:
        """Return the image and the digit of an example, for the Compare page."""
        data = self.split(split)
        image = (255 * data.inputs[index, 0]).round().byte()
        return Shown(f"digit {int(data.targets[index])}", image)


def examples(file: str) -> dict[str, Tensor]:
    """Read the images of one split, as floats from 0 to 1, and their digits."""
    data = load_file(DATA / f"{file}.safetensors")
    return {"inputs": data["images"].float() / 255, "targets": data["labels"]}


task = DigitTask(
    name="Cluttered digits",
    build_model=DigitNet,
    splits={
        "train": Split("train", **examples("train")),
        "select": Split("select", **examples("select")),
        "report": Split("report", **examples("report")),
        "shift/noise": Split("shift", **examples("shift-noise")),
        "shift/blur": Split("shift", **examples("shift-blur")),
        "shift/translation": Split("shift", **examples("shift-translation")),
        "shift/contrast": Split("shift", **examples("shift-contrast")),
        "shift/occlusion": Split("shift", **examples("shift-occlusion")),
    },
)
