"""How does a barrier matrix of a transformer's sweep compare with a plain loop, point by point?

Six text classifiers are fine-tuned from one base, one of them with a learning rate that leaves the
basin. Texts differ in length. The loop pads each batch of a DataLoader in the order of the data.
A grid of 101 α values determines how many evenly spaced values the loop needs for barriers within
the tolerance. Times include opening the checkpoints and evaluating, but not imports and training.
"""

import json
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.adaptive_barriers import DENSE, GRIDS, TOLERANCE, Found, error, write
from tests.benchmarks.processes import import_all, run, stopwatch
from tests.benchmarks.table import lines, spread

if TYPE_CHECKING:
    from torch import Tensor, nn

    from soupcore import Task

RUNS = 3
WORDS, TEXTS, LONGEST = 400, 200, 48
RATES = (3e-4, 5e-4, 7e-4, 1e-3, 2e-3, 2e-2)
NAMES = [f"run-{number}" for number in range(1, len(RATES) + 1)]


def texts(seed: int, count: int = TEXTS) -> "tuple[list[Tensor], Tensor]":
    """Return texts of 4 to 48 words, and of each whether many of its words are in a set."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, LONGEST + 1, (count,), generator=generator).tolist()
    found = [torch.randint(1, WORDS, (length,), generator=generator) for length in lengths]
    return found, torch.tensor([int((text % 7 == 0).sum() > len(text) / 7) for text in found])


def build_model() -> "nn.Module":
    """Return a transformer that classifies texts, called as those of transformers are."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(WORDS, 64)
            self.places = nn.Embedding(LONGEST, 64)
            layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(64, 2)

        def forward(self, input_ids: "Tensor", attention_mask: "Tensor") -> "Tensor":
            seen = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
            made = self.encoder(seen, src_key_padding_mask=attention_mask == 0)
            mask = attention_mask[:, :, None]
            logits: Tensor = self.head((made * mask).sum(1) / mask.sum(1))
            return logits

    return Net()


def make(folder: str) -> None:
    """Train the base and the six runs, and save them."""
    import torch
    from safetensors.torch import save_file
    from torch.nn.functional import cross_entropy

    def train(model: "nn.Module", rate: float, seed: int, epochs: int) -> None:
        some, classes = texts(seed=1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(some), generator=generator), 32):
                batch = padded([some[row] for row in rows.tolist()])
                optimizer.zero_grad()
                torch.autograd.backward(cross_entropy(model(**batch), classes[rows]))
                optimizer.step()

    torch.manual_seed(0)
    base = build_model()
    train(base, 1e-3, seed=0, epochs=2)
    for seed, (name, rate) in enumerate(zip(NAMES, RATES, strict=True), start=1):
        model = build_model()
        model.load_state_dict(base.state_dict())
        train(model, rate, seed, epochs=3)
        save_file(model.state_dict(), Path(folder) / f"{name}.safetensors")


def padded(some: "list[Tensor]") -> "dict[str, Tensor]":
    """Return a batch of texts as the network takes it."""
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence(some, batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def task() -> "Task":
    """Return the task: its select split is new texts."""
    import soupcore

    found, classes = texts(seed=2)
    split = soupcore.Split("select", {"input_ids": found}, classes)
    return soupcore.ClassificationTask(build_model, {"select": split}, name="texts")


def with_soupcore(folder: str, target: str) -> None:
    """Find the barriers at adaptive α with an empty store."""
    import soupcore

    made = task()
    import_all()
    seconds = stopwatch()
    sweep = soupcore.Sweep.from_folder(folder)
    rule = soupcore.Adaptive(TOLERANCE)
    found = soupcore.barriers(sweep, soupcore.Evaluator(made, device="cpu"), NAMES, rule).paths
    cpu, wall = seconds()
    evaluations = len(NAMES) + sum(len(path.alphas) - 2 for path in found.values())
    write(Found([path.barrier for path in found.values()], evaluations, cpu, wall), target)


def with_dense_grids(folder: str, target: str) -> None:
    """Find the barriers on the dense grid and on each of its parts."""
    import numpy as np

    import soupcore

    evaluator = soupcore.Evaluator(task(), device="cpu")
    dense = soupcore.barriers(soupcore.Sweep.from_folder(folder), evaluator, NAMES, DENSE).paths
    rises = np.array([path.losses - path.chord for path in dense.values()])
    barriers = {grid: rises[:, :: (DENSE - 1) // (grid - 1)].max(axis=1).tolist() for grid in GRIDS}
    Path(target).write_text(json.dumps(barriers))


def with_a_plain_loop(folder: str, target: str, alphas: str) -> None:
    """Find the barriers with a new state dict, load_state_dict and a DataLoader for each point."""
    import torch
    from safetensors.torch import load_file
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader

    some, classes = texts(seed=2)

    def collate(rows: list[int]) -> "tuple[dict[str, Tensor], Tensor]":
        return padded([some[row] for row in rows]), classes[rows]

    seconds = stopwatch()
    states = [load_file(Path(folder) / f"{name}.safetensors") for name in NAMES]
    rows: Any = range(len(some))
    loader: DataLoader[Any] = DataLoader(rows, batch_size=128, collate_fn=collate)
    model, barriers, count = build_model(), [], int(alphas)
    for one, other in combinations(states, 2):
        losses = []
        for step in range(count):
            alpha = step / (count - 1)
            mixed = {name: (1 - alpha) * one[name] + alpha * other[name] for name in one}
            model.load_state_dict(mixed)
            model.eval()
            total = 0.0
            with torch.no_grad():
                for batch, targets in loader:
                    total += cross_entropy(model(**batch), targets, reduction="sum").item()
            losses.append(total / len(some))
        chord = [losses[0] + (losses[-1] - losses[0]) * i / (count - 1) for i in range(count)]
        barriers.append(max(loss - line for loss, line in zip(losses, chord, strict=True)))
    write(Found(barriers, len(barriers) * count, *seconds()), target)


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report.

    Raises:
        AssertionError: A barrier is farther from that of the dense grid than the tolerance.
    """
    sweep = folder / "transformers"
    sweep.mkdir()
    run(make, sweep, workspace=folder)
    run(with_dense_grids, sweep, folder / "grids", workspace=folder)
    grids = {int(n): found for n, found in json.loads((folder / "grids").read_text()).items()}
    true = grids[DENSE]
    alphas = next(grid for grid in GRIDS if error(grids[grid], true) <= TOLERANCE)
    ours: list[Found] = []
    loop: list[Found] = []
    for number in range(RUNS):
        place = folder / f"transformers-{number}"
        place.mkdir()
        run(with_soupcore, sweep, place / "ours", workspace=place)
        run(with_a_plain_loop, sweep, place / "loop", str(alphas), workspace=place)
        ours.append(Found(**json.loads((place / "ours").read_text())))
        loop.append(Found(**json.loads((place / "loop").read_text())))
    off = max(error(found.barriers, true) for found in ours)
    if off > TOLERANCE:
        raise AssertionError(f"A barrier is off by {off:.4f}, more than {TOLERANCE}.")

    def row(figure: str, goal: str, one: list[float], other: list[float]) -> tuple[str, ...]:
        ratio = sorted(other)[RUNS // 2] / sorted(one)[RUNS // 2]
        return figure, spread(one), spread(other), f"{ratio:.2f}", goal

    def each(found: list[Found]) -> list[list[float]]:
        return [
            [f.evaluations for f in found],
            [1000 * f.cpu_seconds / f.evaluations for f in found],
            [f.cpu_seconds for f in found],
        ]

    figures = (("points", "above 1"), ("CPU ms a point", "1 or more"), ("CPU s", "above 1"))
    heads = ("", "soupcore.barriers, adaptive", f"plain loop on {alphas} α", "ratio", "goal")
    return [
        f"Barriers of all {len(true)} pairs of {len(NAMES)} transformers on {TEXTS} texts of 4 to "
        f"{LONGEST} words, each to within {TOLERANCE}, {RUNS} runs. Points are those on all texts; "
        "their time includes that of two more points a line on a part of them",
        *lines(
            [heads]
            + [
                row(*figure, *both)
                for figure, *both in zip(figures, each(ours), each(loop), strict=True)
            ]
        ),
        f"Checked on {DENSE} α: barriers are {min(true):.4f} to {max(true):.4f}; adaptive ones are "
        f"off by at most {off:.4f}, those of the loop by "
        f"{max(error(found.barriers, true) for found in loop):.4f} (relative above 1).",
    ]
