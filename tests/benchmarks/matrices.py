"""How much faster are barrier matrices of three kinds of networks than with a plain loop?

The sweeps are real: a network is pre-trained on digits and fine-tuned thirteen times. The loop uses
as many evenly spaced α values as it needs for the same accuracy of each barrier, and at least the
eleven of the papers. Times include opening the checkpoints and evaluating, but not imports and
loading the task's data.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NoReturn

from tests.benchmarks.adaptive_barriers import DENSE, GRIDS, TOLERANCE, Found, error
from tests.benchmarks.barrier_matrix import plain_matrix
from tests.benchmarks.processes import WORKER, import_all, run, stopwatch
from tests.benchmarks.table import lines, number, spread

if TYPE_CHECKING:
    from soupcore import Task

# Half of an MLP's pass is its first layer, whose output is linear in α. Products of that layer that
# are kept for each ingredient gave 4 here, and nothing for networks that begin with a convolution.
GOALS = {"MLP": 2.5, "CNN with BatchNorm": 5.0, "ViT": 2.5}
INGREDIENTS = 13
TURNS = 3
CHECKED = 6  # pairs evaluated on the dense grid; all 78 would take half an hour
PRE_TRAINING = {"MLP": (10, 0.05), "CNN with BatchNorm": (4, 0.05), "ViT": (20, 0.001)}
FINE_TUNING = 2  # epochs
RATES = (0.2, 0.5, 1.0)  # relative to the learning rate of pre-training


def fine_tune(net: str, folder: str) -> None:
    """Write a sweep: pre-train a network, and fine-tune it with several learning rates."""
    import torch
    from safetensors.torch import save_file

    from tests.benchmarks.made import NETS

    train = _task(net).split("train")
    epochs, rate = PRE_TRAINING[net]
    torch.manual_seed(0)
    base = NETS[net]()
    _train(base, train.inputs, train.targets, epochs, rate)
    Path(folder).mkdir()
    for index in range(INGREDIENTS):
        torch.manual_seed(1 + index)
        model = NETS[net]()
        model.load_state_dict(base.state_dict())
        _train(model, train.inputs, train.targets, FINE_TUNING, rate * RATES[index % len(RATES)])
        save_file(model.state_dict(), Path(folder) / f"run-{index:02}.safetensors")


def with_adaptive_alphas(net: str, folder: str, target: str) -> None:
    """Find the barriers of all pairs with an empty store, then again with stored results."""
    import soupcore

    task = _task(net)
    import_all()
    seconds = stopwatch()
    sweep = soupcore.Sweep.from_folder(folder)
    evaluator = soupcore.Evaluator(task, device="cpu")
    found = soupcore.barriers(sweep, evaluator, alphas=soupcore.Adaptive(TOLERANCE))
    cpu, wall = seconds()

    def no_model() -> NoReturn:
        raise AssertionError("All results are in the store, but a point is evaluated.")

    task.build_model = no_model
    again = soupcore.Evaluator(task, device="cpu")
    soupcore.barriers(sweep, again, alphas=soupcore.Adaptive(TOLERANCE))
    evaluations = INGREDIENTS + sum(len(path.alphas) - 2 for path in found.paths.values())
    barriers = [path.barrier for path in found.paths.values()]
    Path(target).write_text(json.dumps(asdict(Found(barriers, evaluations, cpu, wall))))


def with_a_plain_loop(net: str, folder: str, target: str, alphas: str, turn: str) -> None:
    """Compute a part of the matrix with a plain loop."""
    files = sorted(Path(folder).glob("*.safetensors"))
    found = plain_matrix(_task(net), files, int(alphas), slice(int(turn), None, TURNS))
    Path(target).write_text(json.dumps(asdict(found)))


def with_a_dense_grid(net: str, folder: str, target: str) -> None:
    """Find the barriers of some pairs on the dense grid and on parts of it."""
    import numpy as np

    import soupcore
    from soupcore.connectivity import evaluate_lines

    sweep = soupcore.Sweep.from_folder(folder)
    pairs = [[*combinations(sweep.names(), 2)][place] for place in _checked()]
    ends = [(sweep[a].mixture, sweep[b].mixture) for a, b in pairs]
    paths = evaluate_lines(ends, soupcore.Evaluator(_task(net), device="cpu"), DENSE)
    rises = np.array([path.losses - path.chord for path in paths])
    barriers = {grid: rises[:, :: (DENSE - 1) // (grid - 1)].max(axis=1).tolist() for grid in GRIDS}
    Path(target).write_text(json.dumps(barriers))


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report.

    Raises:
        AssertionError: A barrier differs from that on the dense grid by more than the tolerance, or
            the second call evaluated a point.
    """
    cells = [("", "CPU s", "evaluations", "plain loop, CPU s", "on α", "ratio", "goal", "largest")]
    checks = []
    for net, goal in GOALS.items():
        place = folder / net.split()[0]
        sweep, target = place / "sweep", place / "found"
        place.mkdir()
        run(fine_tune, net, sweep, workspace=place)
        run(with_a_dense_grid, net, sweep, target, workspace=place)
        grids = {int(n): found for n, found in json.loads(target.read_text()).items()}
        alphas = next(n for n in GRIDS if error(grids[n], grids[DENSE]) <= TOLERANCE)
        ours, loop = [], []
        for turn in range(TURNS):
            empty = place / f"workspace-{turn}"
            run(with_adaptive_alphas, net, sweep, target, workspace=empty, environment=WORKER)
            found = Found(**json.loads(target.read_text()))
            ours.append(found.cpu_seconds)
            run(with_a_plain_loop, net, sweep, target, alphas, turn, workspace=place)
            loop.append(json.loads(target.read_text())["cpu_seconds"])
        off = error([found.barriers[place] for place in _checked()], grids[DENSE])
        if off > TOLERANCE:
            raise AssertionError(f"{net}: a barrier is off by {off:.4f}, more than {TOLERANCE}.")
        checks.append(f"{net} {off:.4f}")
        cells.append(
            (
                net,
                spread(ours),
                str(found.evaluations),
                number(sum(loop)),
                str(alphas),
                number(sum(loop) / median(ours)),
                f"{goal:g}",
                number(max(found.barriers)),
            )
        )
    pairs = INGREDIENTS * (INGREDIENTS - 1) // 2
    return [
        f"Barriers of all {pairs} pairs of {INGREDIENTS} fine-tuned networks, each to within "
        f"{TOLERANCE}; the second call evaluated nothing. Evaluations are those on all examples; "
        f"in addition, each line is evaluated at two points on a part. {TURNS} turns: all pairs by "
        f"soupcore in the environment of a worker, then every {TURNS}rd pair by the loop",
        *lines(cells),
        f"Checked on {DENSE} α, {CHECKED} pairs each: off by at most {', '.join(checks)}.",
    ]


def _task(net: str) -> "Task":
    import torch
    from sklearn.datasets import load_digits
    from torch.nn.functional import interpolate

    import soupcore
    from tests.benchmarks.made import NETS

    digits = load_digits()
    images = interpolate(torch.from_numpy(digits.images).float()[:, None] / 16, (16, 16))
    labels = torch.from_numpy(digits.target)
    splits = {
        "train": soupcore.Split("train", images[:1000], labels[:1000]),
        "select": soupcore.Split("select", images[1000:], labels[1000:]),
    }
    return soupcore.ClassificationTask(NETS[net], splits, name=net)


def _train(model: Any, images: Any, labels: Any, epochs: int, rate: float) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    if any(isinstance(module, torch.nn.LayerNorm) for module in model.modules()):
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), rate)
    else:
        optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, nesterov=True)
    model.train()
    for _ in range(epochs):
        for batch in torch.split(torch.randperm(len(images)), 64):
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(model(images[batch]), labels[batch]))
            optimizer.step()
    model.eval()


def _checked() -> Sequence[int]:
    pairs = INGREDIENTS * (INGREDIENTS - 1) // 2
    return range(0, pairs, -(-pairs // CHECKED))
