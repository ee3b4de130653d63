"""The uniform soup of 4 files of 200 MB, by soupcore and by other tools that average checkpoints.

They get a virtual environment of their own, `.venv-peers`, which is made when it is not there yet;
it takes some GB. What is measured is a process each: all of it, and what comes after its imports.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from tests.benchmarks.processes import ROOT, memory_above, run, stopwatch
from tests.benchmarks.sweeps import write_sweep
from tests.benchmarks.table import lines, spread
from tests.benchmarks.whole_process import check_equal

RUNS = 3
FILES, MEGABYTES = 4, 200
MIB = 1 << 20
ENVIRONMENT = ROOT / ".venv-peers"


def with_soupcore(sweep: str, target: str, report: str) -> None:
    import soupcore

    above, seconds = memory_above(), stopwatch()
    soupcore.uniform(soupcore.Sweep.from_folder(sweep)).save(target)
    _write(report, seconds, above)


def with_mergekit(sweep: str, target: str, report: str) -> None:
    from mergekit.scripts.merge_raw_pytorch import main

    above, seconds = memory_above(), stopwatch()
    models = [
        f"  - {{model: {path}, parameters: {{weight: 1.0}}}}" for path in Path(sweep).iterdir()
    ]
    config = Path(f"{target}.yml")
    config.write_text("\n".join(["merge_method: linear", "dtype: float32", "models:", *models]))
    folder = f"{target}.folder"
    main([str(config), folder], standalone_mode=False)
    _write(report, seconds, above)
    os.replace(f"{folder}/model.safetensors", target)


def with_sd_mecha(sweep: str, target: str, report: str) -> None:
    import sd_mecha
    import torch

    above, seconds = memory_above(), stopwatch()
    mean = sd_mecha.n_average(*(sd_mecha.model(path) for path in Path(sweep).iterdir()))
    sd_mecha.merge(
        mean,
        output=target,
        merge_device="cpu",
        output_device="cpu",
        merge_dtype=torch.float32,
        output_dtype=torch.float32,
    )
    _write(report, seconds, above)


def with_timm(sweep: str, target: str, report: str) -> None:
    """Go the way of timm's `avg_checkpoints.py`, which is not part of the package."""
    import torch
    from safetensors.torch import save_file
    from timm.models import load_state_dict

    above, seconds = memory_above(), stopwatch()
    sums: dict[str, torch.Tensor] = {}
    for path in Path(sweep).iterdir():
        for name, tensor in load_state_dict(path).items():
            if name in sums:
                sums[name] += tensor.double()
            else:
                sums[name] = tensor.double()
    means = {name: tensor.div_(FILES).float() for name, tensor in sums.items()}
    save_file(means, target)
    _write(report, seconds, above)


PEERS: dict[str, Callable[..., None]] = {
    "mergekit==0.1.5": with_mergekit,
    "timm==1.0.31": with_timm,
    "sd-mecha==1.1.8": with_sd_mecha,
}


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    sweep, report = folder / "sweep", folder / "report"
    run(write_sweep, sweep, FILES, MEGABYTES, workspace=folder)
    missing = {peer: reason for peer in PEERS if (reason := _install(peer))}
    ways = {"soupcore": with_soupcore, **PEERS}
    costs = {way: _Costs() for way in ways if way not in missing}
    for _ in range(RUNS):
        for number, way in enumerate(costs):
            target = folder / f"soup-{number}.safetensors"
            python = sys.executable if way == "soupcore" else str(_python())
            whole = run(ways[way], sweep, target, report, workspace=folder, python=python)
            seconds, peak = map(float, report.read_text().split())
            costs[way].add(whole.cpu_seconds, seconds, whole.peak_bytes, peak)
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
        *(
            f"{peer} is not measured: it could not be installed ({missing[peer]})."
            for peer in missing
        ),
        "Checked: all files hold the same tensors, within 1e-6.",
    ]


@dataclass
class _Costs:
    """What one way cost, run by run: CPU seconds and MiB."""

    whole: list[float] = field(default_factory=list)
    after_imports: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)
    above: list[float] = field(default_factory=list)

    def add(self, whole: float, after_imports: float, peak: float, above: float) -> None:
        self.whole.append(whole)
        self.after_imports.append(after_imports)
        self.peak.append(peak / MIB)
        self.above.append(above / MIB)


def _write(
    report: str, seconds: Callable[[], tuple[float, float]], above: Callable[[], int]
) -> None:
    Path(report).write_text(f"{seconds()[0]} {above()}")


def _python() -> Path:
    return ENVIRONMENT / "bin" / "python"


def _install(peer: str) -> str:
    """Install a tool where it is not there yet, and return why it could not be, if so."""
    if not _python().exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    print(f"(installing {peer} where it is not yet)", flush=True)
    pip = [str(_python()), "-m", "pip", "install", "--quiet", peer]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return (errors or ["pip failed"])[-1] if done.returncode else ""
