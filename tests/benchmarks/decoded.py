"""A data set of images on disk: the second evaluation against the first, which decodes it."""

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import run, stopwatch
from tests.benchmarks.table import Row, table

SIDE = 64
IMAGES = 50_000


def make_images(folder: str, images: str) -> None:
    """Write images as PNG, 3 x 64 x 64, each in a file of its own."""
    import torch
    from PIL import Image

    Path(folder).mkdir()
    random = torch.Generator().manual_seed(0)
    for number in range(int(images)):
        coarse = torch.randint(0, 256, (SIDE // 4, SIDE // 4, 3), generator=random)
        pixels = coarse.repeat_interleave(4, 0).repeat_interleave(4, 1).to(torch.uint8)
        Image.fromarray(pixels.numpy()).save(Path(folder) / f"{number:06}.png")


def measure(folder: str, target: str) -> None:
    """Evaluate three points of a small network, one after the other."""
    import resource

    import numpy as np
    import torch
    from PIL import Image
    from safetensors.torch import save_file
    from torch import nn
    from torch.utils.data import Dataset

    import soupcore

    class Images(Dataset[Any]):
        def __init__(self) -> None:
            self.files = sorted(Path(folder).glob("*.png"))

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            with Image.open(self.files[index]) as image:
                pixels = torch.from_numpy(np.array(image.convert("RGB")))
            return pixels.permute(2, 0, 1), index % 10

    def build() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16 * 16, 10)
        )

    data = soupcore.Split.from_dataset("select", Images(), prepare=lambda images: images / 255)
    task = soupcore.ClassificationTask(build, {"select": data}, name="images")
    place = Path(f"{folder}-sweep")
    place.mkdir()
    for seed in range(3):
        torch.manual_seed(seed)
        save_file(build().state_dict(), place / f"run-{seed}.safetensors")
    sweep = soupcore.Sweep.from_folder(place)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures: dict[str, Any] = {"seconds": []}
    evaluator = soupcore.Evaluator(task, device="cpu", batch_size=64)
    for name in sweep.names():
        seconds = stopwatch()
        evaluator.evaluate(sweep[name].mixture, "select", keep_outputs=False)
        figures["seconds"].append(seconds())
    figures["peak"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    Path(target).write_text(json.dumps(figures))


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    place, target = folder / "images", folder / "images.json"
    run(make_images, place, IMAGES, workspace=folder)
    run(measure, place, target, workspace=folder)
    found = json.loads(target.read_text())
    first, *later = found["seconds"]
    rows = [
        Row(f"{unit}", [times[index] for times in later], [first[index]])
        for index, unit in enumerate(("CPU s", "wall s"))
    ]
    size = IMAGES * 3 * SIDE * SIDE / 1e6
    return [
        f"{IMAGES:,} images of 3 x {SIDE} x {SIDE} in files of their own ({size:.0f} MB)",
        *table(rows, "later evaluations", "the first, which decodes"),
        f"Memory: {found['peak'] / 1e6:.0f} MB at the peak above that before, pages of the decoded "
        "file among them, which the system takes back as it needs them.",
    ]
