"""How fast is opening 100 checkpoints by their headers, compared with `safetensors.safe_open`?"""

import json
from pathlib import Path

from tests.benchmarks.processes import interleaved, run
from tests.benchmarks.table import multiples

RUNS = 5
FILES, TENSORS = 100, 400

BASELINE = "safe_open, the shape and dtype of each tensor"
OURS = "open_checkpoint"


def write_many(folder: str) -> None:
    """Write files with as many tensors as a ViT-Large, but small ones."""
    import torch
    from safetensors.torch import save_file

    Path(folder).mkdir()
    for number in range(FILES):
        state = {f"blocks.{n}.attn.qkv.weight": torch.randn(2, 3) for n in range(TENSORS)}
        save_file(state, Path(folder) / f"run-{number}.safetensors")


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


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    sweep, report = folder / "opening", folder / "report.json"
    run(write_many, sweep, workspace=folder)
    run(measure, sweep, report, workspace=folder)
    taken = json.loads(report.read_text())
    return [
        f"Opening {FILES} files of {TENSORS} tensors each, {RUNS} runs; the goal is 2 s",
        *multiples(taken, "CPU s", {}),
    ]
