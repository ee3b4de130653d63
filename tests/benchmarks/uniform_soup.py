"""The uniform soup of 4 files of 200 MB, against 'load every state dict, average, save_file'.

What is measured is a whole process each, its imports alone, and what comes after its imports.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tests.benchmarks.processes import Cost, run, stopwatch
from tests.benchmarks.table import Row, table

RUNS = 5
FILES = 4
WIDTH, BLOCKS = 768, 7  # of a ViT-Base, with 7 of its 12 blocks to weigh 200 MB
MIB = 1 << 20


def with_soupcore(sweep: str, target: str, cpu_seconds: str) -> None:
    import soupcore

    seconds = stopwatch()
    soupcore.uniform(soupcore.Sweep.from_folder(sweep)).save(target)
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
    import soupcore  # noqa: F401


def import_safetensors() -> None:
    import safetensors.torch  # noqa: F401


def make_sweep(sweep: str) -> None:
    """Write the files, and let Stockpot read their digests."""
    import torch
    from safetensors.torch import save_file

    import soupcore

    Path(sweep).mkdir()
    for seed in range(FILES):
        random = torch.Generator().manual_seed(seed)
        state = {name: torch.randn(shape, generator=random) for name, shape in _shapes().items()}
        save_file(state, Path(sweep) / f"run-{seed}.safetensors")
    soupcore.Sweep.from_folder(sweep)


def check_equal(one: str, other: str) -> None:
    import torch
    from safetensors.torch import load_file

    torch.testing.assert_close(load_file(one), load_file(other), rtol=1e-6, atol=1e-6)


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    sweep, soup, mean, seconds = (folder / name for name in ("sweep", "soup", "mean", "seconds"))
    run(make_sweep, sweep, workspace=folder)
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
    megabytes = (sweep / "run-0.safetensors").stat().st_size / 1e6
    return [
        f"Uniform soup of {FILES} files of {megabytes:.0f} MB, float32, digests known, {RUNS} runs",
        *table(rows, "soupcore.uniform, save", "load_file each, average, save_file"),
        "Checked: the two files hold the same tensors, within 1e-6.",
    ]


@dataclass
class _Costs:
    """What one way cost, run by run."""

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


def _shapes() -> dict[str, tuple[int, ...]]:
    layers = {
        "attn.qkv": (3 * WIDTH, WIDTH),
        "attn.proj": (WIDTH, WIDTH),
        "mlp.fc1": (4 * WIDTH, WIDTH),
        "mlp.fc2": (WIDTH, 4 * WIDTH),
    }
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 197, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 16, 16),
        "patch_embed.proj.bias": (WIDTH,),
    }
    for block in range(BLOCKS):
        for layer, shape in layers.items():
            shapes[f"blocks.{block}.{layer}.weight"] = shape
            shapes[f"blocks.{block}.{layer}.bias"] = shape[:1]
        for norm in ("norm1", "norm2"):
            shapes[f"blocks.{block}.{norm}.weight"] = (WIDTH,)
            shapes[f"blocks.{block}.{norm}.bias"] = (WIDTH,)
    return shapes | {"norm.weight": (WIDTH,), "norm.bias": (WIDTH,), "head.weight": (10, WIDTH)}
