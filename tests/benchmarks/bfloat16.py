"""How much faster is a uniform soup of bfloat16 weights than a loop that loads every state dict?

Both sum in float32. Times exclude imports. Each run is a new process, because a process that ran
before has memory allocated already.
"""

from pathlib import Path

from tests.benchmarks.processes import import_all, run, stopwatch
from tests.benchmarks.sweeps import write_sweep
from tests.benchmarks.table import multiples

RUNS = 5
FILES, MEGABYTES = 4, 250


def with_state_dicts(sweep: str, target: str, report: str) -> None:
    from safetensors.torch import load_file, save_file

    seconds = stopwatch()
    first, *others = [load_file(path) for path in sorted(Path(sweep).iterdir())]
    soup = {
        name: (sum((other[name].float() for other in others), tensor.float()) / FILES).bfloat16()
        for name, tensor in first.items()
    }
    save_file(soup, target)
    Path(report).write_text(str(seconds()[0]))


def with_chunks(sweep: str, target: str, report: str) -> None:
    import soupcore
    from soupcore.checkpoints.dtypes import raw_bytes

    import_all()
    seconds = stopwatch()
    mixture = soupcore.uniform(soupcore.Sweep.from_folder(sweep)).mixture
    with Path(target).open("wb", buffering=0) as file:
        for name in mixture.tensors:
            for chunk in mixture.chunks(name):
                file.write(raw_bytes(chunk))
    Path(report).write_text(str(seconds()[0]))


def with_save(sweep: str, target: str, report: str) -> None:
    import soupcore

    import_all()
    seconds = stopwatch()
    soupcore.uniform(soupcore.Sweep.from_folder(sweep)).save(target)
    Path(report).write_text(str(seconds()[0]))


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    ways = {
        "load_file each, average, save_file": with_state_dicts,
        "mean": with_chunks,
        "Soup.save: checked for infinity, fsync": with_save,
    }
    sweep, target, report = folder / "bfloat16", folder / "soup.safetensors", folder / "seconds"
    run(write_sweep, sweep, FILES, MEGABYTES, "bfloat16", workspace=folder)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RUNS):
        for name, way in ways.items():
            target.unlink(missing_ok=True)
            run(way, sweep, target, report, workspace=folder)
            taken[name].append(float(report.read_text()))
    return [
        f"Uniform mean of {FILES} files of {MEGABYTES} MB, bfloat16, digests known, {RUNS} runs",
        *multiples(taken, "CPU s", {"mean": "0.33"}),
    ]
