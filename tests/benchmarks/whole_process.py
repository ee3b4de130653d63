"""How fast is a uniform soup of 4 files of 200 MB, compared with averaging state dicts in memory?

Each run is a new process. Costs are those of the whole process, of its imports alone, and those
after its imports.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.processes import Cost, run, stopwatch
from tests.benchmarks.sweeps import write_sweep
from tests.benchmarks.table import Row, table

RUNS = 5
FILES, MEGABYTES = 4, 200
MIB = 1 << 20


def with_soupcore(sweep: str, target: str, cpu_seconds: str) -> None:
    from soupcore import Sweep, uniform

    seconds = stopwatch()
    uniform(Sweep.from_folder(sweep)).save(target)
    Path(cpu_seconds).write_text(str(seconds()[0]))


def with_state_dicts(sweep: str, target: str, cpu_seconds: str) -> None:
    from safetensors.torch import load_file, save_file

    seconds = stopwatch()
    first, *others = [load_file(path) for path in sorted(Path(sweep).glob("*.safetensors"))]
    soup = {
        name: sum((other[name] for other in others), tensor) / (1 + len(others))
        for name, tensor in first.items()
    }
    save_file(soup, target)
    Path(cpu_seconds).write_text(str(seconds()[0]))


def import_soupcore() -> None:
    from soupcore import Sweep, uniform  # noqa: F401


def import_safetensors() -> None:
    import safetensors.torch  # noqa: F401


def check_equal(one: str, other: str) -> None:
    import torch
    from safetensors.torch import load_file

    torch.testing.assert_close(load_file(one), load_file(other), rtol=1e-6, atol=1e-6)


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    names = "sweep", "soup.safetensors", "mean.safetensors", "seconds"
    sweep, soup, mean, seconds = (folder / name for name in names)
    run(write_sweep, sweep, FILES, MEGABYTES, workspace=folder)
    ours, baseline = _Costs(), _Costs()
    for _ in range(RUNS):
        ours.whole.append(run(with_soupcore, sweep, soup, seconds, workspace=folder))
        ours.after_imports.append(float(seconds.read_text()))
        baseline.whole.append(run(with_state_dicts, sweep, mean, seconds, workspace=folder))
        baseline.after_imports.append(float(seconds.read_text()))
        ours.imports.append(run(import_soupcore, workspace=folder))
        baseline.imports.append(run(import_safetensors, workspace=folder))
    run(check_equal, soup, mean, workspace=folder)
    theirs = baseline.figures()
    rows = [Row(figure, values, theirs[figure]) for figure, values in ours.figures().items()]
    return [
        f"Uniform soup of {FILES} files of {MEGABYTES} MB, float32, digests known, {RUNS} runs",
        *table(rows, "soupcore.uniform, save", "load_file each, average, save_file"),
        "Checked: the two files hold the same tensors, within 1e-6.",
    ]


@dataclass
class _Costs:
    """Costs of one method in each run."""

    whole: list[Cost] = field(default_factory=list)
    imports: list[Cost] = field(default_factory=list)
    after_imports: list[float] = field(default_factory=list)  # CPU seconds

    def figures(self) -> dict[str, list[float]]:
        peaks = [cost.peak_bytes / MIB for cost in self.whole]
        import_peaks = [cost.peak_bytes / MIB for cost in self.imports]
        return {
            "whole process, CPU s": [cost.cpu_seconds for cost in self.whole],
            "its imports alone, CPU s": [cost.cpu_seconds for cost in self.imports],
            "after its imports, CPU s": self.after_imports,
            "whole process, peak memory in MiB": peaks,
            "its imports alone, peak memory in MiB": import_peaks,
            "the peak above that of its imports, MiB": [
                peak - before for peak, before in zip(peaks, import_peaks, strict=True)
            ],
        }
