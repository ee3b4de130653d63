"""What does opening many checkpoints cost, by their headers, and for the second time?"""

import json
import resource
from pathlib import Path

from tests.benchmarks.processes import interleaved, run
from tests.benchmarks.table import lines, multiples, number

RUNS = 5
FILES, TENSORS = 100, 400
TORCH_FILES = 200
SIZES = (20, TENSORS)  # tensors of a `.pt` file, as many as a small CNN and a ViT-Large
GOAL = "10, or torch.load"  # ms of CPU time for a `.pt` file

BASELINE = "safe_open, the shape and dtype of each tensor"
OURS = "open_checkpoint"


def write_many(folder: str, suffix: str, count: str, tensors: str) -> None:
    """Write files with as many tensors as a network has, but small ones."""
    import torch
    from safetensors.torch import save_file

    Path(folder).mkdir()
    save = torch.save if suffix == ".pt" else save_file
    for number_ in range(int(count)):
        state = {f"blocks.{n}.attn.qkv.weight": torch.randn(2, 3) for n in range(int(tensors))}
        save(state, Path(folder) / f"run-{number_}{suffix}")


def measure(folder: str, report: str) -> None:
    from safetensors import safe_open

    import soupcore

    paths = sorted(Path(folder).iterdir())

    def with_safe_open() -> None:
        for path in paths:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    part = file.get_slice(name)
                    part.get_shape(), part.get_dtype()

    ways = {
        BASELINE: with_safe_open,
        OURS: lambda: [soupcore.open_checkpoint(path) for path in paths],
    }
    Path(report).write_text(json.dumps(interleaved(ways, RUNS, Path(report))))


def _cpu_seconds() -> float:
    """Return the CPU time of this process, and of those that it started and that have ended."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def load_torch_files(folder: str, report: str) -> None:
    """Load the tensors of the files without their data, as a baseline."""
    import torch

    first, *others = sorted(Path(folder).iterdir())
    seconds = []
    for paths in ([first], others):
        before = _cpu_seconds()
        for path in paths:
            torch.load(path, mmap=True, weights_only=True)
        seconds.append(_cpu_seconds() - before)
    Path(report).write_text(json.dumps(seconds))


def open_torch_files(folder: str, report: str) -> None:
    """Open the first file, and then the others, with the CPU time of the processes that read."""
    import soupcore
    from soupcore.checkpoints import sandbox

    seconds = []
    first, *others = sorted(Path(folder).iterdir())
    for paths in ([first], others):
        before = _cpu_seconds()
        for path in paths:
            soupcore.open_checkpoint(path)
        sandbox.end_readers()  # the CPU time of a process counts once it has ended
        seconds.append(_cpu_seconds() - before)
    Path(report).write_text(json.dumps(seconds))


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    sweep, report = folder / "opening", folder / "report.json"
    run(write_many, sweep, ".safetensors", FILES, TENSORS, workspace=folder)
    run(measure, sweep, report, workspace=folder)
    taken = json.loads(report.read_text())
    cells = [("", "tensors", "first file, ms", "each other file, ms", "goal")]
    for tensors in SIZES:
        torch_files = folder / f"torch-{tensors}"
        run(write_many, torch_files, ".pt", TORCH_FILES, tensors, workspace=folder)
        for which, way, goal in (
            ("torch.load(mmap=True, weights_only=True)", load_torch_files, ""),
            ("first opening, in a reader process", open_torch_files, GOAL),
            ("second opening, in a new process", open_torch_files, GOAL),
        ):
            run(way, torch_files, report, workspace=folder)
            first, others = json.loads(report.read_text())
            each = 1e3 * others / (TORCH_FILES - 1)
            cells.append((which, str(tensors), number(1e3 * first), number(each), goal))
    return [
        f"Opening {FILES} files of {TENSORS} tensors each, {RUNS} runs; the goal is 2 s",
        *multiples(taken, "CPU s", {}),
        "",
        f"Opening {TORCH_FILES} .pt files: CPU time of all processes",
        *lines(cells),
    ]
