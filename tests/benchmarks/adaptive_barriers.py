"""How much faster is adaptive α than a plain loop, for barriers within the same tolerance?

A grid of 101 α values determines how many evenly spaced values the loop needs, and also checks the
barriers of adaptive α. Times include opening the checkpoints and evaluating, but not imports and
loading the task's data.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

from tests.benchmarks.barrier_matrix import SWEEP, TASK, with_a_plain_loop
from tests.benchmarks.processes import import_all, run, stopwatch
from tests.benchmarks.table import Row, table

RUNS = 3
TOLERANCE = 0.01  # nats; relative for barriers above 1
DENSE = 101
GRIDS = (11, 21, 26, 51, DENSE)  # sizes of grids that are parts of the dense one
NAMES = [f"run-{number:02}" for number in range(1, 14)]


@dataclass
class Found:
    """The barriers of all pairs in order, and the cost of finding them."""

    barriers: list[float]
    evaluations: int
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0


def with_adaptive_alphas(target: str) -> None:
    """Find the barriers with an empty store."""
    import soupcore

    task = soupcore.load_task(TASK)
    import_all()
    seconds = stopwatch()
    sweep = soupcore.Sweep.from_folder(SWEEP)
    rule = soupcore.Adaptive(TOLERANCE)
    found = soupcore.barriers(sweep, soupcore.Evaluator(task, device="cpu"), NAMES, rule)
    cpu, wall = seconds()
    evaluations = len(NAMES) + sum(len(path.alphas) - 2 for path in found.paths.values())
    write(Found([p.barrier for p in found.paths.values()], evaluations, cpu, wall), target)


def with_dense_grids(target: str) -> None:
    """Find the barriers on the dense grid and on each of its parts."""
    import numpy as np

    import soupcore

    sweep = soupcore.Sweep.from_folder(SWEEP)
    evaluator = soupcore.Evaluator(soupcore.load_task(TASK), device="cpu")
    dense = soupcore.barriers(sweep, evaluator, NAMES, DENSE).paths.values()
    rises = np.array([path.losses - path.chord for path in dense])
    barriers = {grid: rises[:, :: (DENSE - 1) // (grid - 1)].max(axis=1).tolist() for grid in GRIDS}
    Path(target).write_text(json.dumps(barriers))


def benchmark(folder: Path) -> list[str]:
    """Measure, with workspaces and results in the folder, and return the report.

    Raises:
        AssertionError: A barrier is farther from that of the dense grid than the tolerance.
    """
    place = folder / "adaptive-dense"
    place.mkdir()
    run(with_dense_grids, place / "grids", workspace=place)
    grids = {int(n): barriers for n, barriers in json.loads((place / "grids").read_text()).items()}
    true = grids[DENSE]
    alphas = next(grid for grid in GRIDS if error(grids[grid], true) <= TOLERANCE)
    ours: list[Found] = []
    loop: list[Found] = []
    for number in range(RUNS):
        place = folder / f"adaptive-{number}"
        place.mkdir()
        run(with_adaptive_alphas, place / "ours", workspace=place)
        run(with_a_plain_loop, place / "loop", str(alphas), *NAMES, workspace=place)
        ours.append(Found(**json.loads((place / "ours").read_text())))
        matrix = json.loads((place / "loop").read_text())
        count = len(matrix["losses"])
        loop.append(Found([], count, matrix["cpu_seconds"], matrix["wall_seconds"]))
    off = max(error(found.barriers, true) for found in ours)
    if off > TOLERANCE:
        raise AssertionError(f"A barrier is off by {off:.4f}, more than {TOLERANCE}.")
    rows = [
        Row("evaluations", [f.evaluations for f in ours], [f.evaluations for f in loop]),
        Row("CPU s", [f.cpu_seconds for f in ours], [f.cpu_seconds for f in loop]),
        Row("wall s", [f.wall_seconds for f in ours], [f.wall_seconds for f in loop]),
    ]
    pairs = len(list(combinations(NAMES, 2)))
    return [
        f"Barriers of all {pairs} pairs of {len(NAMES)} ingredients of the bundled sample, each to "
        f"within {TOLERANCE}, {RUNS} runs. Evaluations are those on all examples; in addition, "
        "each line is evaluated at two points on a part",
        *table(rows, "soupcore.barriers, adaptive", f"plain loop on {alphas} α"),
        f"Checked on {DENSE} α: adaptive barriers are off by at most {off:.4f}, those of "
        + ", ".join(f"{grid} α by {error(grids[grid], true):.4f}" for grid in GRIDS[:-1])
        + " (relative for barriers above 1).",
    ]


def error(found: Sequence[float], true: Sequence[float]) -> float:
    """Return the largest error of barriers; relative for those above 1."""
    return max(abs(a - b) / max(1, b) for a, b in zip(found, true, strict=True))


def write(found: Found, path: str) -> None:
    """Write barriers and their cost to a file."""
    Path(path).write_text(json.dumps(asdict(found)))
