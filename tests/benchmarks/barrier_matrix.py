"""How much faster is a barrier matrix of the bundled sample than with a researcher's plain loop?

Times include opening the checkpoints and evaluating, but not imports and loading the task's data.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tests.benchmarks.processes import ROOT, import_all, run, stopwatch
from tests.benchmarks.table import Row, table

if TYPE_CHECKING:
    from soupcore import Task

RUNS = 3
ALPHAS = 11
SWEEP = ROOT / "sample_data" / "digits" / "sweep"
TASK = f"{ROOT / 'sample_data' / 'digits' / 'task.py'}:task"

# The loop mixes in float32, and soupcore sums in float64. So logits differ in their last bits, and
# an image with equal logits of two classes may be assigned to either.
LOSS_TOLERANCE = 1e-6
IMAGE_TOLERANCE = 1


@dataclass
class Matrix:
    """The curves of all pairs, one after the other, and the cost of computing them."""

    losses: list[float]
    correct: list[float]  # images
    cpu_seconds: float
    wall_seconds: float


def with_soupcore(empty: str, full: str) -> None:
    """Compute the matrix with an empty store, and again with the results in the store."""
    import soupcore

    import_all()
    task = soupcore.load_task(TASK)

    def compute() -> Matrix:
        seconds = stopwatch()
        sweep = soupcore.Sweep.from_folder(SWEEP)
        found = soupcore.barriers(sweep, soupcore.Evaluator(task, device="cpu"), alphas=ALPHAS)
        cpu_seconds, wall_seconds = seconds()
        losses = [loss for path in found.paths.values() for loss in path.losses]
        correct = [share * path.n for path in found.paths.values() for share in path.accuracies]
        return Matrix(losses, correct, cpu_seconds, wall_seconds)

    def no_model() -> NoReturn:
        raise AssertionError("All results are in the store, but a point is evaluated.")

    _write(compute(), empty)
    task.build_model = no_model
    _write(compute(), full)


def with_a_plain_loop(target: str, points: str = str(ALPHAS), *names: str) -> None:
    """Compute the matrix of some ingredients, by default of all, with a plain loop."""
    import soupcore

    task = soupcore.load_task(TASK)
    every = [path for path in sorted(SWEEP.glob("*.safetensors")) if path.stem != "base"]
    files = [path for path in every if not names or path.stem in names]
    _write(plain_matrix(task, files, int(points)), target)


def plain_matrix(
    task: "Task", files: Sequence[Path], alphas: int, pairs: slice = slice(None)
) -> Matrix:
    """Compute the matrix of files with a new state dict, load_state_dict and a DataLoader.

    Args:
        task: The task, whose select split is evaluated.
        files: The ingredients.
        alphas: Number of evenly spaced values from 0 to 1.
        pairs: Slice of the pairs in order.
    """
    import torch
    from safetensors.torch import load_file
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader, TensorDataset

    split = task.split(task.select)
    seconds = stopwatch()
    states = [load_file(path) for path in files]
    loader = DataLoader(TensorDataset(split.inputs, split.targets), batch_size=128)
    model = task.build_model()
    losses, corrects = [], []
    for one, other in [*combinations(states, 2)][pairs]:
        for step in range(alphas):
            alpha = step / (alphas - 1)
            mixed = {name: (1 - alpha) * one[name] + alpha * other[name] for name in one}
            model.load_state_dict(mixed)
            model.eval()
            loss, correct = 0.0, 0.0
            with torch.no_grad():
                for inputs, targets in loader:
                    logits = model(inputs)
                    loss += cross_entropy(logits, targets, reduction="sum").item()
                    correct += (logits.argmax(1) == targets).sum().item()
            losses.append(loss / len(split))
            corrects.append(correct)
    return Matrix(losses, corrects, *seconds())


def benchmark(folder: Path) -> list[str]:
    """Measure, with workspaces and results in the folder, and return the report.

    Raises:
        AssertionError: The results differ.
    """
    empty, full, loop = [], [], []
    for number in range(RUNS):
        place = folder / f"matrix-{number}"
        place.mkdir()
        run(with_soupcore, place / "empty", place / "full", workspace=place)
        run(with_a_plain_loop, place / "loop", workspace=place)
        empty.append(_read(place / "empty"))
        full.append(_read(place / "full"))
        loop.append(_read(place / "loop"))
    found = [*empty, *full]
    loss = max(_largest_difference(matrix.losses, loop[0].losses) for matrix in found)
    images = round(max(_largest_difference(m.correct, loop[0].correct) for m in found))
    if not (loss <= LOSS_TOLERANCE and images <= IMAGE_TOLERANCE):
        raise AssertionError(f"The losses differ by {loss:.1e}, the accuracies by {images} images.")
    rows = [*_rows("empty store", empty, loop), *_rows("results stored", full, loop)]
    return [
        f"Barriers of all {len(loop[0].losses) // ALPHAS} pairs of the bundled sample "
        f"at {ALPHAS} α, {RUNS} runs",
        *table(rows, "soupcore.barriers", "new state dict, load_state_dict, DataLoader"),
        f"Checked: losses differ by at most {loss:.1e} ({LOSS_TOLERANCE:.0e} allowed), accuracies "
        f"by at most {images} images ({IMAGE_TOLERANCE} allowed).",
    ]


def _rows(what: str, ours: Sequence[Matrix], baseline: Sequence[Matrix]) -> list[Row]:
    return [
        Row(f"{what}, CPU s", [m.cpu_seconds for m in ours], [m.cpu_seconds for m in baseline]),
        Row(f"{what}, wall s", [m.wall_seconds for m in ours], [m.wall_seconds for m in baseline]),
    ]


def _largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _write(matrix: Matrix, path: str) -> None:
    Path(path).write_text(json.dumps(asdict(matrix)))


def _read(path: Path) -> Matrix:
    return Matrix(**json.loads(path.read_text()))
