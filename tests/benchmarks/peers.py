"""How fast is a uniform soup of 4 files of 200 MB, compared with other tools for averaging?

The other tools are in a separate virtual environment, `.venv-peers`, which `make` creates. Each run
is a new process; costs are those of the whole process, and those after its imports.
"""

import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.benchmarks.processes import ROOT, Cost, memory_above, run, stopwatch
from tests.benchmarks.sweeps import write_sweep
from tests.benchmarks.table import lines, spread
from tests.benchmarks.whole_process import check_equal

RUNS = 3
FILES, MEGABYTES = 4, 200
MIB = 1 << 20
PYTHON = ROOT / ".venv-peers" / "bin" / "python"


def with_soupcore(sweep: str, target: str, report: str) -> None:
    from soupcore import Sweep, uniform

    after_imports = Meter()
    uniform(Sweep.from_folder(sweep)).save(target)
    after_imports.write(report)


def with_mergekit(sweep: str, target: str, report: str) -> None:
    models = [
        f"  - {{model: {path}, parameters: {{weight: 1.0}}}}" for path in Path(sweep).iterdir()
    ]
    config = Path(f"{target}.yml")
    config.write_text("\n".join(["merge_method: linear", "dtype: float32", "models:", *models]))
    merge_with_mergekit(str(config), target, report)


def merge_with_mergekit(config: str, target: str, report: str) -> None:
    declare_missing_operators()
    from mergekit.scripts.merge_raw_pytorch import main

    after_imports = Meter()
    folder = f"{target}.folder"
    with redirect_stderr(io.StringIO()):  # hides its progress bars
        main([config, folder], standalone_mode=False)
    after_imports.write(report)
    os.replace(f"{folder}/model.safetensors", target)


def with_sd_mecha(sweep: str, target: str, report: str) -> None:
    import sd_mecha
    import torch

    after_imports = Meter()
    mean = sd_mecha.n_average(*(sd_mecha.model(path) for path in Path(sweep).iterdir()))
    with redirect_stderr(io.StringIO()):
        sd_mecha.merge(
            mean,
            output=target,
            merge_device="cpu",
            output_device="cpu",
            merge_dtype=torch.float32,
            output_dtype=torch.float32,
        )
    after_imports.write(report)


def with_timm(sweep: str, target: str, report: str) -> None:
    """Average as timm's `avg_checkpoints.py` does, which is not part of the package."""
    declare_missing_operators()
    import torch
    from safetensors.torch import save_file
    from timm.models import load_state_dict

    after_imports = Meter()
    sums: dict[str, torch.Tensor] = {}
    for path in Path(sweep).iterdir():
        for name, tensor in load_state_dict(path).items():
            if name in sums:
                sums[name] += tensor.double()
            else:
                sums[name] = tensor.double()
    means = {name: tensor.div_(FILES).float() for name, tensor in sums.items()}
    save_file(means, target)
    after_imports.write(report)


def declare_missing_operators() -> None:
    """Make torchvision importable if its wheel is for CUDA and torch's is not.

    It is not used here, but timm and transformers import it.
    """
    import torch

    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", boxes)


PEERS: dict[str, Callable[..., None]] = {
    "mergekit 0.1.5": with_mergekit,
    "timm 1.0.31": with_timm,
    "sd-mecha 1.1.8": with_sd_mecha,
}


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    sweep, report = folder / "sweep", folder / "report"
    run(write_sweep, sweep, FILES, MEGABYTES, workspace=folder)
    ways = {"soupcore": with_soupcore, **PEERS}
    costs = {way: Costs() for way in ways}
    for _ in range(RUNS):
        for number, way in enumerate(costs):
            target = folder / f"soup-{number}.safetensors"
            python = sys.executable if way == "soupcore" else peer_python()
            whole = run(ways[way], sweep, target, report, workspace=folder, python=python)
            costs[way].add(whole, report)
            run(check_equal, folder / "soup-0.safetensors", target, workspace=folder)
    ours = median(costs["soupcore"].after_imports)
    cells: list[tuple[str, ...]] = [
        ("", "after imports, CPU s", "× ours", "MiB above imports", "in all, CPU s", "MiB")
    ]
    for way, cost in costs.items():
        multiple = f"{median(cost.after_imports) / ours:.1f}"
        first, *others = map(spread, (cost.after_imports, cost.above, cost.whole, cost.peak))
        cells.append((way, first, multiple, *others))
    return [
        f"Uniform soup of {FILES} files of {MEGABYTES} MB, float32, digests known, {RUNS} runs",
        *lines(cells),
        "Checked: all files hold the same tensors, within 1e-6.",
    ]


class Meter:
    """Measures a process from now on."""

    def __init__(self) -> None:
        self._above, self._seconds = memory_above(), stopwatch()

    def write(self, report: str) -> None:
        """Write the costs so far, for `Costs.add`."""
        Path(report).write_text(f"{self._seconds()[0]} {self._above()}")


@dataclass
class Costs:
    """Costs of one method in each run: CPU seconds and MiB."""

    whole: list[float] = field(default_factory=list)
    after_imports: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    above: list[float] = field(default_factory=list)

    def add(self, whole: Cost, report: Path) -> None:
        """Add the costs of a whole process, and those that it wrote with a `Meter`."""
        after_imports, above = map(float, report.read_text().split())
        self.whole.append(whole.cpu_seconds)
        self.after_imports.append(after_imports)
        self.peak.append(whole.peak_bytes / MIB)
        self.above.append(above / MIB)


def peer_python() -> str:
    """Return the Python of the environment that has the other tools."""
    if not PYTHON.exists():
        raise SystemExit(
            "The other tools are not installed. `make bench` installs them; without make: "
            f"python -m venv {PYTHON.parents[1]} && {PYTHON} -m pip install -r "
            "tests/benchmarks/requirements.txt"
        )
    return str(PYTHON)
