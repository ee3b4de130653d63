"""How much time and memory do 12 sharded checkpoints of 3 GB take: opening, a soup, an evaluation?

The checkpoints are sparse files: of each tensor, the first and last pages are written, and the rest
are holes, which read as zeros. Reading, hashing and mixing them costs the CPU as much as others do,
but they need no 36 GB of disk. The soup is written in full (3 GB).

Memory is that above the imports, sampled every 10 ms: anonymous memory, and all resident memory,
which includes pages of mapped files that the system may drop at any time.
"""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.benchmarks.processes import import_all, run, stopwatch
from tests.benchmarks.table import lines, number

FILES, SHARDS = 12, 3
LAYERS, WIDTH = 10, 5_000  # per shard of 1 GB
EXAMPLES = 16
PAGE = 1 << 16  # elements that are written at both ends of a tensor
NEEDED = 5 << 30
GOAL = 2048  # MiB, beyond the model while one is evaluated
MIB = 1 << 20
T = TypeVar("T")
FAMILIES = ("RssAnon", "VmRSS")

TASK = f"""
import torch
from torch import nn
import soupcore

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear({WIDTH}, {WIDTH}, bias=False) for _ in range({SHARDS * LAYERS})
        )

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x

images = torch.randn({EXAMPLES}, {WIDTH}, generator=torch.Generator().manual_seed(0))
split = soupcore.Split("select", images, torch.arange({EXAMPLES}))
task = soupcore.ClassificationTask(Net, {{"val": split}})
"""


def write_sharded(folder: str) -> None:
    """Write the checkpoints in Hugging Face's sharded format."""
    import torch

    nbytes = 4 * WIDTH * WIDTH
    for run_number in range(FILES):
        place = Path(folder) / f"run-{run_number}"
        place.mkdir(parents=True)
        generator = torch.Generator().manual_seed(run_number)
        weight_map: dict[str, str] = {}
        for shard in range(SHARDS):
            file = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
            names = [f"layers.{shard * LAYERS + layer}.weight" for layer in range(LAYERS)]
            header = {
                name: {
                    "dtype": "F32",
                    "shape": [WIDTH, WIDTH],
                    "data_offsets": [index * nbytes, (index + 1) * nbytes],
                }
                for index, name in enumerate(names)
            }
            text = json.dumps(header).encode()
            text += b" " * (-len(text) % 8)
            start = 8 + len(text)
            with (place / file).open("wb") as written:
                written.write(len(text).to_bytes(8, "little") + text)
                written.truncate(start + LAYERS * nbytes)
                for index in range(LAYERS):
                    for at in (index * nbytes, (index + 1) * nbytes - 4 * PAGE):
                        written.seek(start + at)
                        values = torch.randn(PAGE, generator=generator) / WIDTH
                        written.write(values.numpy().tobytes())
            weight_map |= dict.fromkeys(names, file)
        shards = {"metadata": {}, "weight_map": weight_map}
        (place / "model.safetensors.index.json").write_text(json.dumps(shards))
    (Path(folder).parent / "task.py").write_text(TASK)


class _Peak(threading.Thread):
    """Samples the memory of this process."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._ended = threading.Event()
        self._before = self._now()
        self.above = dict.fromkeys(FAMILIES, 0)

    @staticmethod
    def _now() -> dict[str, int]:
        fields = dict(
            line.split(":") for line in Path("/proc/self/status").read_text().splitlines()
        )
        return {name: int(fields[name].split()[0]) * 1024 for name in FAMILIES}

    def run(self) -> None:
        while not self._ended.wait(0.01):
            for name, nbytes in self._now().items():
                self.above[name] = max(self.above[name], nbytes - self._before[name])

    def end(self) -> dict[str, int]:
        """Stop, and return the peaks in bytes above the beginning."""
        self._ended.set()
        self.join()
        return self.above


def measure(sweep: str, target: str, report: str) -> None:
    """Open the sweep, make the soup, evaluate it, and measure each; progress has to move."""
    import soupcore

    import_all()
    found = {}
    seen: list[tuple[int, int]] = []

    def step(name: str, work: Callable[[], T]) -> T:
        seconds, peak = stopwatch(), _Peak()
        peak.start()
        done = work()
        found[name] = [*seconds(), *peak.end().values(), len({*seen})]
        seen.clear()
        return done

    def note(done: int, total: int) -> None:
        seen.append((done, total))

    opened = soupcore.Sweep.from_folder
    made = step("open and digest", lambda: opened(sweep, on_progress=note))
    step("open again", lambda: opened(sweep, on_progress=note))
    soup = soupcore.uniform(made)
    step("write the soup", lambda: soup.save(target, on_bytes=lambda n: note(len(seen), n)))
    task = soupcore.load_task(f"{Path(sweep).parent / 'task.py'}:task")
    evaluator = soupcore.Evaluator(task, device="cpu", batch_size=EXAMPLES)
    step("evaluate the soup", lambda: evaluator.evaluate(soup.mixture, "val", on_progress=note))
    Path(report).write_text(json.dumps(found))


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    free = shutil.disk_usage(folder).free
    if free < NEEDED:
        return [
            f"Large: {folder} has {free >> 30} GiB free, {NEEDED >> 30} are needed. Set TMPDIR."
        ]
    sweep, target, report = folder / "large", folder / "soup.safetensors", folder / "report.json"
    run(write_sharded, sweep, workspace=folder)
    run(measure, sweep, target, report, workspace=folder)
    model = SHARDS * LAYERS * WIDTH * WIDTH * 4
    cells = [("", "CPU s", "wall s", "anonymous MiB", "resident MiB", "goal", "progress")]
    for name, (cpu, wall, anonymous, resident, reports) in json.loads(report.read_text()).items():
        limit = GOAL + (model / MIB if name.startswith("evaluate") else 0)
        memory = (number(nbytes / MIB) for nbytes in (anonymous, resident))
        cells.append((name, number(cpu), number(wall), *memory, number(limit), str(reports)))
    return [
        f"{FILES} checkpoints of {model / 1e9:.0f} GB in {SHARDS} shards; one run; goal: at "
        f"most {GOAL} MiB, plus the {model / MIB:.0f} MiB of the model while it is evaluated",
        *lines(cells),
    ]
