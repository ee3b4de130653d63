"""How much faster is a pass than with a plain loop, and does its time grow with the ingredients?"""

import json
import random
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.processes import run, stopwatch
from tests.benchmarks.table import Row, table

NETS = ("MLP", "CNN with BatchNorm", "ViT")
EXAMPLES = 1000
PAIRS, ALPHAS = 10, 9  # the first pair is a warm-up
INGREDIENTS = (10, 20, 40, 80)
BATCH = 128  # of the plain loop

LOSS_TOLERANCE = 1e-6


def measure_net(net: str, folder: str, target: str) -> None:
    """Evaluate points between ingredients with both methods in turn, in one process, by pair."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader, TensorDataset

    import soupcore
    from tests.benchmarks.made import NETS, make_data, make_sweep

    images, labels = make_data(net, EXAMPLES)
    make_sweep(Path(folder), net, PAIRS + 1)
    sweep = soupcore.Sweep.from_folder(folder)
    splits = {"select": soupcore.Split("select", images, labels)}
    task = soupcore.ClassificationTask(NETS[net], splits, name=net)
    evaluator = soupcore.Evaluator(task, device="cpu")
    states = {name: sweep[name].checkpoint.state_dict() for name in sweep.names()}
    loader = DataLoader(TensorDataset(images, labels), batch_size=BATCH)
    model = task.build_model()
    alphas = [Fraction(i, ALPHAS + 1) for i in range(1, ALPHAS + 1)]

    def plain(one: str, other: str, alpha: float) -> tuple[float, float]:
        ends = states[one], states[other]
        mixed = {n: (1 - alpha) * ends[0][n] + alpha * ends[1][n] for n in ends[0]}
        model.load_state_dict(mixed)
        model.eval()
        loss, correct = 0.0, 0.0
        with torch.no_grad():
            for inputs, targets in loader:
                logits = model(inputs)
                loss += cross_entropy(logits, targets, reduction="sum").item()
                correct += (logits.argmax(1) == targets).sum().item()
        return loss / EXAMPLES, correct

    figures: dict[str, list[Any]] = {"ours": [], "plain": [], "loss": [], "images": []}
    for one, other in zip(sweep.names(), sweep.names()[1:], strict=False):
        points = [soupcore.interpolate(sweep[one].mixture, sweep[other].mixture, a) for a in alphas]
        seconds = stopwatch()
        expected = [plain(one, other, float(alpha)) for alpha in alphas]
        figures["plain"].append(seconds())
        seconds = stopwatch()
        found = evaluator.evaluate_all(points, "select", keep_outputs=False)
        figures["ours"].append(seconds())
        for evaluation, (loss, correct) in zip(found, expected, strict=True):
            figures["loss"].append(abs(evaluation.loss - loss))
            figures["images"].append(abs(round(evaluation.score * EXAMPLES) - correct))
    Path(target).write_text(json.dumps(figures | {"notes": evaluator.notes}))


def measure_growth(ingredients: str, folder: str, target: str) -> None:
    """Evaluate midpoints of pairs with all ingredients in memory and with none, in turn."""
    import soupcore

    sweep, task = _growing(int(ingredients), folder)
    evaluators = {
        "resident": soupcore.Evaluator(task, soupcore.Store(f"{folder}-all"), device="cpu"),
        "streamed": soupcore.Evaluator(
            task, soupcore.Store(f"{folder}-none"), device="cpu", memory_budget=0
        ),
    }
    alone = [ingredient.mixture for ingredient in sweep.ingredients.values()]
    for evaluator in evaluators.values():
        evaluator.evaluate_all(alone, "select", keep_outputs=False)
    figures: dict[str, list[float]] = {name: [] for name in evaluators}
    points = _midpoints(sweep)
    for start in range(0, len(points), 5):
        for name, evaluator in evaluators.items():
            seconds = stopwatch()
            evaluator.evaluate_all(points[start : start + 5], "select", keep_outputs=False)
            figures[name].append(seconds()[0] / 5)
    Path(target).write_text(json.dumps(figures))


def measure_memory(ingredients: str, budget: str, folder: str, target: str) -> None:
    """Evaluate the same points with memory for some ingredients; write the rise of peak memory."""
    import resource

    import soupcore

    sweep, task = _growing(int(ingredients), folder)
    store = soupcore.Store(f"{folder}-memory-{budget}")
    size = next(iter(sweep.ingredients.values())).checkpoint.nbytes
    evaluator = soupcore.Evaluator(
        task, store, device="cpu", batch_size=BATCH, memory_budget=int(budget) * size
    )
    points = [ingredient.mixture for ingredient in sweep.ingredients.values()]
    evaluator.evaluate(points[0], "select")  # loads the network, the data and lazy libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    evaluator.evaluate_all([*points, *_midpoints(sweep)], "select", keep_outputs=False)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {"peak": (after - before) * 1024, "ingredient": size}
    Path(target).write_text(json.dumps(figures))


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report.

    Raises:
        AssertionError: The results of the two methods differ.
    """
    return [*_nets(folder), "", *_growth(folder)]


def _nets(folder: Path) -> list[str]:
    rows, notes, losses, images = [], [], [], []
    for net in NETS:
        place = folder / net.split()[0]
        run(measure_net, net, place, place.with_suffix(".json"), workspace=folder)
        found = json.loads(place.with_suffix(".json").read_text())
        for index, unit in enumerate(("CPU ms", "wall ms")):
            ours, plain = (
                [1e3 * pair[index] / ALPHAS for pair in found[way][1:]] for way in ("ours", "plain")
            )
            rows.append(Row(f"{net}, {unit} per pass", ours, plain))
        losses.append(max(found["loss"]))
        images.append(max(found["images"]))
        notes += [f"Noted, {net}: {note}" for note in found["notes"]]
    if max(losses) > LOSS_TOLERANCE or max(images) > 0:
        raise AssertionError(
            f"Losses differ by {max(losses):.1e}, correct images by {max(images)}."
        )
    return [
        f"A pass of {EXAMPLES} images of 16 x 16, at {ALPHAS} points between ingredients, for "
        f"{PAIRS - 1} pairs",
        *table(rows, "soupcore.Evaluator", "new state dict, load_state_dict, DataLoader"),
        f"Checked: losses differ by at most {max(losses):.1e} ({LOSS_TOLERANCE:.0e} allowed), "
        "and both methods classify the same number of images correctly.",
        *notes,
    ]


def _growth(folder: Path) -> list[str]:
    cells = [("ingredients", "resident, CPU ms per pass", "streamed", "streamed ÷ resident")]
    for k in INGREDIENTS:
        place, target = folder / f"growth-{k}", folder / f"growth-{k}.json"
        run(measure_growth, str(k), place, target, workspace=folder)
        found = json.loads(target.read_text())
        resident, streamed = (1e3 * median(found[way]) for way in ("resident", "streamed"))
        cells.append((str(k), f"{resident:.2f}", f"{streamed:.2f}", f"{streamed / resident:.2f}"))
    memory = []
    for budget in (0, 20, INGREDIENTS[-1]):
        target = folder / f"memory-{budget}.json"
        place = folder / f"growth-{INGREDIENTS[-1]}"
        run(measure_memory, str(INGREDIENTS[-1]), str(budget), place, target, workspace=folder)
        found = json.loads(target.read_text())
        allowed = budget * found["ingredient"] * 1.25  # a quarter more for shared activations
        memory.append(f"{found['peak'] / 1e6:.0f} MB with {allowed / 1e6:.0f} MB allowed")
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "Growth: midpoints of pairs of the MLP, evaluations of all ingredients stored",
        *("   ".join(map(str.rjust, row, widths)) for row in cells),
        f"Peak memory for {INGREDIENTS[-1]} ingredients above that for one: {', '.join(memory)}.",
    ]


def _growing(k: int, folder: str) -> tuple[Any, Any]:
    import soupcore
    from tests.benchmarks.made import NETS, make_data, make_sweep

    if not Path(folder).exists():
        make_sweep(Path(folder), "MLP", k)
    images, labels = make_data("MLP", EXAMPLES)
    splits = {"select": soupcore.Split("select", images, labels)}
    task = soupcore.ClassificationTask(NETS["MLP"], splits, name="MLP")
    return soupcore.Sweep.from_folder(folder), task


def _midpoints(sweep: Any) -> list[Any]:
    import soupcore

    pairs = list(combinations(sweep.names(), 2))
    chosen = random.Random(0).sample(pairs, 45)  # noqa: S311 - all pairs of ten ingredients
    return [soupcore.mean(sweep[name].mixture for name in pair) for pair in chosen]
