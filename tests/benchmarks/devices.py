"""How much faster is a pass with the evaluator than with a plain loop, on the best device?"""

import json
from fractions import Fraction
from pathlib import Path

from tests.benchmarks.passes import BATCH, EXAMPLES, LOSS_TOLERANCE, NETS
from tests.benchmarks.processes import run, stopwatch
from tests.benchmarks.table import multiples

TURNS = 5
POINTS = 17  # per turn
WARM_UP = 2  # turns

PLAIN, OURS = "new state dict, load_state_dict, DataLoader", "soupcore.Evaluator"


def measure(net: str, folder: str, target: str) -> None:
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader, TensorDataset

    import soupcore
    from tests.benchmarks.made import NETS, make_data, make_sweep

    images, labels = make_data(net, EXAMPLES)
    make_sweep(Path(folder), net, 2)
    sweep = soupcore.Sweep.from_folder(folder)
    splits = {"select": soupcore.Split("select", images, labels)}
    task = soupcore.ClassificationTask(NETS[net], splits, name=net)
    one, other = (sweep[name] for name in sweep.names())
    states = [ingredient.checkpoint.state_dict() for ingredient in (one, other)]
    evaluator = soupcore.Evaluator(task, soupcore.Store(f"{folder}-store"))
    device = evaluator.device
    loader = DataLoader(TensorDataset(images, labels), batch_size=BATCH)
    model = task.build_model().to(device).eval()

    def plain(alpha: float) -> float:
        mixed = {n: (1 - alpha) * states[0][n] + alpha * states[1][n] for n in states[0]}
        model.load_state_dict(mixed)
        loss = 0.0
        with torch.no_grad():
            for inputs, targets in loader:
                outputs = model(inputs.to(device))
                loss += float(cross_entropy(outputs, targets.to(device), reduction="sum"))
        return loss / EXAMPLES

    taken: dict[str, list[float]] = {PLAIN: [], OURS: []}
    apart = 0.0
    count = POINTS * (TURNS + WARM_UP)
    for turn in range(TURNS + WARM_UP):
        alphas = [Fraction(turn * POINTS + index + 1, count + 1) for index in range(POINTS)]
        points = [soupcore.interpolate(one.mixture, other.mixture, alpha) for alpha in alphas]
        seconds = stopwatch()
        expected = [plain(float(alpha)) for alpha in alphas]
        taken[PLAIN].append(seconds()[1] / POINTS)
        seconds = stopwatch()
        found = evaluator.evaluate_all(points, "select", keep_outputs=False)
        taken[OURS].append(seconds()[1] / POINTS)
        apart = max(apart, *(abs(f.loss - e) for f, e in zip(found, expected, strict=True)))
    figures = {
        "taken": {name: [1e3 * each for each in values[WARM_UP:]] for name, values in taken.items()}
    }
    Path(target).write_text(
        json.dumps(figures | {"apart": apart, "device": str(device), "notes": evaluator.notes})
    )


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report.

    Raises:
        AssertionError: The results differ.
    """
    report: list[str] = []
    for net in NETS:
        place = folder / net.split()[0]
        run(measure, net, place, place.with_suffix(".json"), workspace=folder)
        found = json.loads(place.with_suffix(".json").read_text())
        if found["apart"] > LOSS_TOLERANCE:
            raise AssertionError(f"Losses differ by {found['apart']:.1e}.")
        report += [
            f"{net}: a pass of {EXAMPLES} images on {found['device']}, {TURNS} turns of {POINTS}",
            *multiples(found["taken"], "wall ms", {}),
            f"Checked: losses differ by at most {found['apart']:.1e}.",
            *(f"Noted: {note}" for note in found["notes"]),
            "",
        ]
    return report[:-1]
