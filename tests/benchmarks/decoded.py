"""How much faster are later evaluations on images on disk than the first, which decodes them?"""

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import WORKER, run, stopwatch
from tests.benchmarks.table import Row, table

SIDE = 64
IMAGES = 50_000


def make_images(folder: str, images: str) -> None:
    """Write images of 3 x 64 x 64 as JPEG files."""
    import torch
    from PIL import Image
    from torch.nn.functional import interpolate

    Path(folder).mkdir()
    random = torch.Generator().manual_seed(0)
    for number in range(int(images)):
        coarse = torch.rand(1, 3, SIDE // 8, SIDE // 8, generator=random)
        smooth = interpolate(coarse, (SIDE, SIDE), mode="bilinear")[0]
        noisy = smooth + 0.05 * torch.randn(smooth.shape, generator=random)
        pixels = (255 * noisy.clamp(0, 1)).to(torch.uint8).permute(1, 2, 0)
        Image.fromarray(pixels.numpy()).save(Path(folder) / f"{number:06}.jpg", quality=90)


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
            self.files = sorted(Path(folder).glob("*.jpg"))

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
    evaluator = soupcore.Evaluator(task, device="cpu")
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
    run(measure, place, target, workspace=folder, environment=WORKER)
    found = json.loads(target.read_text())
    first, *later = found["seconds"]
    rows = [
        Row(f"{unit}", [times[index] for times in later], [first[index]])
        for index, unit in enumerate(("CPU s", "wall s"))
    ]
    size = IMAGES * 3 * SIDE * SIDE / 1e6
    return [
        f"{IMAGES:,} JPEG files of 3 x {SIDE} x {SIDE} ({size:.0f} MB decoded)",
        *table(rows, "later evaluations", "the first, which decodes"),
        f"Peak memory above that before: {found['peak'] / 1e6:.0f} MB, including pages of the "
        "decoded file, which the system reclaims if needed.",
    ]
