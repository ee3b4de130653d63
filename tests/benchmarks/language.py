"""How much memory and disk does the evaluation of a language model take?"""

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import import_all, memory_above, run, stopwatch
from tests.benchmarks.table import lines, number, spread

RUNS = 3
BLOCKS, LENGTH = 725, 64
VOCABULARIES = {"1000": BLOCKS, "50000": 100}  # words, and blocks that are evaluated
GOALS = {"1000": "150 / 1", "50000": "bounded / 1"}
MIB = 1 << 20


def measure(words: str, blocks: str, folder: str, report: str) -> None:
    """Evaluate a language model, and the ensemble of two, in one process."""
    import torch
    from safetensors.torch import save_file
    from torch import Tensor, nn

    import soupcore
    from soupcore.tasks.language_models import PERPLEXITY, CausalTask, batch_size_for

    class Net(nn.Module):
        """Predicts the next word by a recurrent layer."""

        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(int(words), 64)
            self.layer = nn.GRU(64, 64, batch_first=True)
            self.head = nn.Linear(64, int(words))

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            found: Tensor = self.head(self.layer(self.embedding(input_ids))[0])
            return found

    generator = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        save_file(Net().state_dict(), Path(folder) / f"{name}.safetensors")
    text = torch.randint(int(words), (int(blocks), LENGTH), generator=generator)
    inputs = {"input_ids": text, "attention_mask": torch.ones_like(text)}
    splits = {"select": soupcore.Split("select", inputs, torch.ones(int(blocks)))}
    task = CausalTask(Net, splits, metrics=[PERPLEXITY])
    task.batch_size = batch_size_for(splits, int(words))
    sweep = soupcore.Sweep.from_folder(folder)
    store = soupcore.Store(Path(folder) / "store")
    evaluator = soupcore.Evaluator(task, store, device="cpu")
    points = [sweep[name].mixture for name in ("a", "b")]
    import_all()
    found: dict[str, Any] = {}
    above, seconds = memory_above(), stopwatch()
    evaluator.evaluate(points[0], "select")
    found |= {"memory": above(), "seconds": seconds()[0]}
    arrays = Path(folder) / "store" / "arrays"
    found["disk"] = sum(file.stat().st_size for file in arrays.rglob("*") if file.is_file())
    above, seconds = memory_above(), stopwatch()
    soupcore.ensemble(evaluator, points, "select")
    found |= {"ensemble": above(), "ensemble seconds": seconds()[0]}
    Path(report).write_text(json.dumps(found))


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report."""
    heads = ("memory, MiB", "disk, MB", "goal", "logits kept whole, MB", "CPU s",
             "ensemble of two, MiB", "CPU s")  # fmt: skip
    cells: list[tuple[str, ...]] = [("", *heads)]
    for words, blocks in VOCABULARIES.items():
        reports = []
        for number_of_run in range(RUNS):
            place = folder / f"{words}-{number_of_run}"
            place.mkdir()
            run(measure, words, blocks, place, folder / "report", workspace=folder)
            reports.append(json.loads((folder / "report").read_text()))

        def each(what: str, unit: float, reports: list[dict[str, float]] = reports) -> str:
            return spread([report[what] / unit for report in reports])

        whole = blocks * LENGTH * int(words) * 4 / 1e6
        cells.append(
            (
                f"{blocks} blocks of {LENGTH} tokens, V = {int(words):,}",
                each("memory", MIB),
                each("disk", 1e6),
                GOALS[words],
                number(whole),
                each("seconds", 1),
                each("ensemble", MIB),
                each("ensemble seconds", 1),
            )
        )
    return [
        f"Evaluation of a language model; memory above imports with the weights, {RUNS} runs",
        *lines(cells),
    ]
