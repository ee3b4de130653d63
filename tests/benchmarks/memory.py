"""How much memory does a uniform soup take in addition to that after imports?"""

from pathlib import Path

from tests.benchmarks.processes import import_all, memory_above, run
from tests.benchmarks.sweeps import write_sweep
from tests.benchmarks.table import lines, number, spread

RUNS = 3
SIZES = [(4, 100), (4, 500), (12, 500)]  # files, MB
GOAL = 64  # MiB
MIB = 1 << 20


def measure(sweep: str, target: str, report: str) -> None:
    import soupcore

    import_all()
    above = memory_above()
    soupcore.uniform(soupcore.Sweep.from_folder(sweep)).save(target)
    Path(report).write_text(str(above()))


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    cells = [("", "MiB above imports", "goal")]
    for files, megabytes in SIZES:
        sweep, soup, report = (
            folder / f"{files}-{megabytes}-{name}"
            for name in ("sweep", "soup.safetensors", "report")
        )
        run(write_sweep, sweep, files, megabytes, workspace=folder)
        peaks = []
        for _ in range(RUNS):
            run(measure, sweep, soup, report, workspace=folder)
            peaks.append(int(report.read_text()) / MIB)
        cells.append((f"{files} files of {megabytes} MB", spread(peaks), number(GOAL)))
        for path in [*sweep.iterdir(), soup]:
            path.unlink()
    return [
        f"Memory of Sweep.from_folder, uniform, save; pages of files count, {RUNS} runs",
        *lines(cells),
    ]
