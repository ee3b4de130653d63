"""How much faster are greedy soups with early rejection of candidates?"""

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import run, stopwatch
from tests.benchmarks.table import Row, table

RUNS = 3
INGREDIENTS, EXAMPLES = 40, 10_000


def measure(which: str, folder: str, target: str) -> None:
    """Make the greedy soup with and without early rejection in turn, with evaluated ingredients."""
    import soupcore

    sweep, task = _sample() if which == "sample" else _made(Path(folder))
    n = len(task.split(task.select))
    figures: dict[str, Any] = {"ours": [], "full": [], "examples": 0, "of": 0, "same": True}
    soups = {}
    for number in range(RUNS):
        for early in (True, False):
            store = soupcore.Store(f"{folder}-{number}-{early}")
            evaluator = soupcore.Evaluator(task, store, device="cpu")
            alone = [ingredient.mixture for ingredient in sweep.ingredients.values()]
            evaluator.evaluate_all(alone, task.select)
            seconds = stopwatch()
            soups[early] = soupcore.greedy(sweep, evaluator, early_stop=early)
            figures["ours" if early else "full"].append(seconds())
        figures["same"] &= soups[True].id == soups[False].id
    figures["examples"] = sum(step.examples for step in soups[True].trace[1:])
    figures["of"] = n * (len(sweep) - 1)
    figures["accepted"] = len(soups[True].coefficients)
    Path(target).write_text(json.dumps(figures))


def benchmark(folder: Path) -> list[str]:
    """Measure, with files in the folder, and return the report.

    Raises:
        AssertionError: The soups are not the same.
    """
    rows, seen = [], []
    for which in ("sample", "made"):
        target = folder / f"greedy-{which}.json"
        run(measure, which, folder / f"greedy-{which}", target, workspace=folder)
        found = json.loads(target.read_text())
        if not found["same"]:
            raise AssertionError("Early rejection changed the soup.")
        label = "the sample" if which == "sample" else f"{INGREDIENTS} x {EXAMPLES:,}, made"
        rows.append(Row(f"{label}: examples", [found["examples"]], [found["of"]]))
        for index, unit in enumerate(("CPU s", "wall s")):
            ours, full = ([times[index] for times in found[way]] for way in ("ours", "full"))
            rows.append(Row(f"{label}: {unit}", ours, full))
        seen.append(f"{found['accepted']} ingredients in the soup of {label}")
    return [
        f"Greedy soups, evaluations of the ingredients stored, {RUNS} runs",
        *table(rows, "early rejection", "all examples of every candidate"),
        f"Checked: the soups and their scores are the same ({', '.join(seen)}).",
    ]


def _sample() -> tuple[Any, Any]:
    import soupcore
    from tests.benchmarks.barrier_matrix import SWEEP, TASK

    return soupcore.Sweep.from_folder(SWEEP), soupcore.load_task(TASK)


def _made(folder: Path) -> tuple[Any, Any]:
    import soupcore
    from tests.benchmarks.made import NETS, make_data, make_sweep

    make_sweep(folder, "MLP", INGREDIENTS, spread=0.3)
    images, labels = make_data("MLP", EXAMPLES)
    splits = {"select": soupcore.Split("select", images, labels)}
    task = soupcore.ClassificationTask(NETS["MLP"], splits, name="made")
    return soupcore.Sweep.from_folder(folder), task
