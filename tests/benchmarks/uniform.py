"""How much slower is the uniform mean of 4 files of 500 MB than reading four and copying one?

The baseline is the minimum work for any mean of files. Times exclude imports, and are measured in
one process with the files in the page cache.
"""

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.benchmarks.processes import interleaved, run
from tests.benchmarks.sweeps import write_sweep
from tests.benchmarks.table import multiples

RUNS = 7
FILES, MEGABYTES = 4, 500

# The fastest block size for copying a file, of 64 KiB to 4 MiB.
BLOCK = 128 << 10

BASELINE = f"read the {FILES}, copy one of them"
FLOAT32 = "mean, float32 sums"
FLOAT64 = "mean, float64 sums (the default)"
SAVE = "Soup.save: checked for infinity, fsync"
TORCH_FLOAT32, TORCH_FLOAT64 = (f"from .pt files: {way}" for way in (FLOAT32, FLOAT64))
GOALS = {FLOAT32: "1.5", FLOAT64: "2.8"}


def as_torch_files(sweep: str, folder: str) -> None:
    """Save the weights of a sweep as `.pt` too."""
    import torch
    from safetensors.torch import load_file

    Path(folder).mkdir()
    for path in Path(sweep).iterdir():
        torch.save(load_file(path), Path(folder) / f"{path.stem}.pt")


def measure(sweep: str, torch_files: str, target: str, report: str) -> None:
    import torch

    import soupcore
    from soupcore.checkpoints.dtypes import raw_bytes

    paths = sorted(Path(sweep).iterdir())
    result = Path(target)
    soup = soupcore.uniform(soupcore.Sweep.from_folder(sweep))
    of_torch_files = soupcore.uniform(soupcore.Sweep.from_folder(torch_files)).mixture

    def write_mean(mixture: soupcore.Mixture, accumulate: torch.dtype) -> None:
        with result.open("xb", buffering=0) as file:
            for name in mixture.tensors:
                for chunk in mixture.chunks(name, accumulate=accumulate):
                    file.write(raw_bytes(chunk))

    def way(mixture: soupcore.Mixture, accumulate: torch.dtype) -> Callable[[], None]:
        return partial(write_mean, mixture, accumulate)

    taken = interleaved(
        {
            BASELINE: lambda: read_and_copy(paths, result),
            FLOAT32: way(soup.mixture, torch.float32),
            FLOAT64: way(soup.mixture, torch.float64),
            SAVE: lambda: soup.save(result),
            TORCH_FLOAT32: way(of_torch_files, torch.float32),
            TORCH_FLOAT64: way(of_torch_files, torch.float64),
        },
        RUNS,
        result,
    )
    Path(report).write_text(json.dumps(taken))


def read_and_copy(paths: list[Path], target: Path) -> None:
    buffer = memoryview(bytearray(BLOCK))
    for path in paths:
        for _ in blocks(path, buffer):
            pass
    copy = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    for place, block in blocks(paths[0], buffer):
        os.pwrite(copy, block, place)
    os.close(copy)


def blocks(path: Path, buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
    descriptor = os.open(path, os.O_RDONLY)
    place = 0
    while count := os.preadv(descriptor, [buffer], place):
        yield place, buffer[:count]
        place += count
    os.close(descriptor)


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    sweep, torch_files, report = folder / "uniform", folder / "uniform-pt", folder / "report.json"
    run(write_sweep, sweep, FILES, MEGABYTES, workspace=folder)
    run(as_torch_files, sweep, torch_files, workspace=folder)
    run(measure, sweep, torch_files, folder / "soup.safetensors", report, workspace=folder)
    taken = json.loads(report.read_text())
    pairs = {
        f"{FLOAT64}, .safetensors": taken[FLOAT64],
        "the same of .pt files": taken[TORCH_FLOAT64],
    }
    return [
        f"Uniform mean of {FILES} files of {MEGABYTES} MB, float32, digests known, {RUNS} runs",
        *multiples({w: taken[w] for w in (BASELINE, FLOAT32, FLOAT64, SAVE)}, "CPU s", GOALS),
        "",
        *multiples(pairs, "CPU s", {"the same of .pt files": "1.1"}),
    ]
