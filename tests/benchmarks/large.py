"""How much time and memory does a soup of 4 sharded checkpoints of 3 GB take? (16 GiB of disk)"""

import json
import shutil
from pathlib import Path

from tests.benchmarks.processes import import_all, run, stopwatch
from tests.benchmarks.table import lines, number

FILES, SHARDS = 4, 3
TENSORS, ELEMENTS = 10, 25_000_000  # per shard of 1 GB
NEEDED = 16 << 30
GOAL = 1024  # MiB
MIB = 1 << 20


def write_sharded(folder: str) -> None:
    """Write the checkpoints in Hugging Face's sharded format."""
    import torch
    from safetensors.torch import save_file

    for run_number in range(FILES):
        place = Path(folder) / f"run-{run_number}"
        place.mkdir(parents=True)
        weights = torch.randn(ELEMENTS, generator=torch.Generator().manual_seed(run_number))
        weight_map: dict[str, str] = {}
        for shard in range(SHARDS):
            file = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
            names = [f"layers.{shard * TENSORS + layer}.weight" for layer in range(TENSORS)]
            save_file(
                {name: weights + 0.01 * layer for layer, name in enumerate(names)}, place / file
            )
            weight_map |= dict.fromkeys(names, file)
        index = {"metadata": {}, "weight_map": weight_map}
        (place / "model.safetensors.index.json").write_text(json.dumps(index))


def soup(sweep: str, target: str, report: str) -> None:
    import soupcore

    import_all()
    seconds = stopwatch()
    opened = soupcore.Sweep.from_folder(sweep)
    read = seconds()
    soupcore.uniform(opened).save(target)
    Path(report).write_text(json.dumps([read, seconds()]))


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    free = shutil.disk_usage(folder).free
    if free < NEEDED:
        return [
            f"Large: {folder} has {free >> 30} GiB free, {NEEDED >> 30} are needed. Set TMPDIR."
        ]
    sweep, target, report = folder / "large", folder / "soup.safetensors", folder / "report.json"
    run(write_sharded, sweep, workspace=folder)
    cost = run(soup, sweep, target, report, workspace=folder)
    (read_cpu, read_wall), (cpu, wall) = json.loads(report.read_text())
    megabytes = SHARDS * TENSORS * ELEMENTS * 4 / 1e6
    cells = [
        ("", "one run", "goal"),
        ("whole process, peak memory in MiB", number(cost.peak_bytes / MIB), number(GOAL)),
        ("digests of all, CPU s", number(read_cpu), ""),
        ("digests of all, wall s", number(read_wall), ""),
        ("soup, CPU s", number(cpu - read_cpu), ""),
        ("soup, wall s", number(wall - read_wall), ""),
    ]
    return [
        f"Uniform soup of {FILES} checkpoints of {megabytes:.0f} MB in {SHARDS} shards",
        *lines(cells),
    ]
