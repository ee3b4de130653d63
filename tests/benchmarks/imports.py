"""How much longer does importing soupcore take than importing torch, as whole processes?

`import soupcore` alone loads nothing, since each public name loads its module on first use. The row
with `Sweep, RECIPES` is the cost for a script that opens a sweep and runs recipes.
"""

from pathlib import Path

from tests.benchmarks.processes import run
from tests.benchmarks.table import multiples

RUNS = 7
GOAL = "≤ 1.15"


def import_torch() -> None:
    import torch  # noqa: F401


def import_soupcore() -> None:
    import soupcore  # noqa: F401


def import_recipes() -> None:
    from soupcore import RECIPES, Sweep  # noqa: F401


def import_everything() -> None:
    from soupcore import (  # noqa: F401
        RECIPES,
        Evaluator,
        Store,
        Sweep,
        barriers,
        ensemble,
        load_task,
        model_card,
    )


WAYS = {
    "import torch": import_torch,
    "import soupcore": import_soupcore,
    "from soupcore import Sweep, RECIPES": import_recipes,
    "every public name": import_everything,
}


def benchmark(folder: Path) -> list[str]:
    """Measure, and return the report."""
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(RUNS):
        for name, way in WAYS.items():
            taken[name].append(run(way, workspace=folder).cpu_seconds)
    goals = {"import soupcore": GOAL, "from soupcore import Sweep, RECIPES": GOAL}
    return [
        f"Imports, whole processes, {RUNS} runs",
        *multiples(taken, "CPU s", goals),
    ]
