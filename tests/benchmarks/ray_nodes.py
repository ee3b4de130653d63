"""How much faster are two Ray nodes of one CPU each than one worker with one thread?

All pairs of a synthetic sweep are evaluated at their midpoint. Both evaluators are warm: they have
evaluated some ingredients before. Needs ray (`make test-integrations` installs it) and two idle
cores.
"""

import json
import os
import time
from pathlib import Path

from tests.benchmarks.processes import run
from tests.benchmarks.table import Row, table

RUNS = 3
INGREDIENTS = 40
EXAMPLES = 1000
NET = "CNN with BatchNorm"
GOAL = 1.7

TASK = f"""
import soupcore
from tests.benchmarks import made

images, labels = made.make_data({NET!r}, {EXAMPLES})
task = soupcore.ClassificationTask(
    lambda: made.network({NET!r}), {{"val": soupcore.Split("select", images, labels)}}
)
"""


def write(folder: str) -> None:
    """Write the sweep and the task."""
    from tests.benchmarks import made

    made.make_sweep(Path(folder) / "sweep", NET, INGREDIENTS)
    (Path(folder) / "task.py").write_text(TASK)


def evaluate(folder: str, nodes: str, target: str) -> None:
    """Evaluate all pairs on this machine (0 nodes) or on a cluster."""
    import torch

    import soupcore

    torch.set_num_threads(1)
    address = None
    if nodes != "0":
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")  # on a busy machine
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        for _ in range(int(nodes) - 1):
            cluster.add_node(num_cpus=1)
        address = cluster.address
    sweep = soupcore.Sweep.from_folder(Path(folder) / "sweep")
    task = soupcore.load_task(f"{folder}/task.py:task")
    evaluator = soupcore.Evaluator(task, device="cpu", ray=address)
    evaluator.evaluate_all([each.mixture for each in sweep.ingredients.values()], "val")
    started = time.perf_counter()
    found = soupcore.barriers(sweep, evaluator, alphas=3)
    seconds = time.perf_counter() - started
    losses = {" ".join(pair): path.losses.tolist() for pair, path in found.paths.items()}
    Path(target).write_text(json.dumps({"seconds": seconds, "losses": losses}))


def benchmark(folder: Path) -> list[str]:
    """Measure, with workspaces in the folder, and return the report.

    Raises:
        AssertionError: A loss of the cluster differs from that of one worker.
    """
    run(write, folder / "made", workspace=folder)
    seconds: dict[str, list[float]] = {"2": [], "0": []}
    for number in range(RUNS):
        losses = {}
        for nodes, measured in seconds.items():
            place = folder / f"{number}-{nodes}"
            place.mkdir()
            run(evaluate, folder / "made", nodes, place / "found", workspace=place)
            found = json.loads((place / "found").read_text())
            measured.append(found["seconds"])
            losses[nodes] = found["losses"]
        if losses["2"] != losses["0"]:
            raise AssertionError("The cluster's losses differ from those of one worker.")
    pairs = INGREDIENTS * (INGREDIENTS - 1) // 2
    return [
        f"Midpoints of all {pairs} pairs of {INGREDIENTS} networks ({NET}), {EXAMPLES} examples, "
        f"{RUNS} runs; goal ≥ {GOAL}. Losses are equal to the bit",
        *table(
            [Row("wall s", seconds["2"], seconds["0"])], "2 Ray nodes, 1 CPU each", "one worker"
        ),
    ]
