"""How much faster are two Ray nodes of one CPU each than one worker with one thread?

All pairs of a synthetic sweep are evaluated at their midpoint. Both evaluators are warm: they have
evaluated the ingredients before. Then one of two nodes is killed in the middle. Needs ray
(`make test-integrations` installs it) and two idle cores; on a busy machine, only the CPU time and
the equality of the results count.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import run, stopwatch
from tests.benchmarks.table import Row, table

RUNS = 3
INGREDIENTS = 40
EXAMPLES = 500
NET = "CNN with BatchNorm"
GOAL = 1.7
KILLED = "killed"
AHEAD = 2  # chunks that an actor has

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
    """Evaluate all pairs on this machine (0 nodes), on a cluster, or on 2 nodes of which 1 dies."""
    import torch

    import soupcore
    from soupcore.evaluation.cluster import ClusterPass

    torch.set_num_threads(1)
    address: str | None = None
    cluster: Any = None
    dying: Any = None
    if nodes != "0":
        os.environ.setdefault("RAY_raylet_start_wait_time_s", "600")  # on a busy machine
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        dying = cluster.add_node(num_cpus=1)
        address = cluster.address
    sizes: list[int] = []
    chunk = ClusterPass._chunk

    def counted(self: ClusterPass, left: int) -> int:
        sizes.append(chunk(self, left))
        return sizes[-1]

    def kill(done: int, total: int) -> None:
        nonlocal dying
        if nodes == KILLED and dying is not None and done > total / 2:
            cluster.remove_node(dying, allow_graceful=False)
            dying = None

    ClusterPass._chunk = counted  # type: ignore[method-assign]
    sweep = soupcore.Sweep.from_folder(Path(folder) / "sweep")
    task = soupcore.load_task(f"{folder}/task.py:task")
    evaluator = soupcore.Evaluator(task, device="cpu", ray=address)
    evaluator.evaluate_all([each.mixture for each in sweep.ingredients.values()], "val")
    sizes.clear()
    before = _cpu_of_actors()
    seconds = stopwatch()
    found = soupcore.barriers(sweep, evaluator, alphas=3, on_progress=kill)
    own, wall = seconds()
    actors = [used - before.get(pid, 0.0) for pid, used in _cpu_of_actors().items()]
    losses = {" ".join(pair): path.losses.tolist() for pair, path in found.paths.items()}
    cpu = max(actors) if actors else own
    report = {
        "seconds": wall,
        "cpu": cpu,
        "losses": losses,
        "sent": sum(sizes),
        "most": max(sizes, default=0),
    }
    Path(target).write_text(json.dumps(report | {"killed": nodes == KILLED and dying is None}))


def benchmark(folder: Path) -> list[str]:
    """Measure, with workspaces in the folder, and return the report.

    Raises:
        AssertionError: A loss of the cluster differs from that of one worker, or a killed node
            costs more than its chunks.
    """
    run(write, folder / "made", workspace=folder)
    taken: dict[str, list[float]] = {"2": [], "0": []}
    cpu: dict[str, list[float]] = {"2": [], "0": []}
    found = {}
    for number in range(RUNS):
        for nodes in taken:
            found[nodes] = _evaluated(folder, nodes, f"{number}-{nodes}")
            taken[nodes].append(found[nodes]["seconds"])
            cpu[nodes].append(found[nodes]["cpu"])
        if found["2"]["losses"] != found["0"]["losses"]:
            raise AssertionError("The cluster's losses differ from those of one worker.")
    killed = _evaluated(folder, KILLED, KILLED)
    if not killed["killed"] or killed["losses"] != found["0"]["losses"]:
        raise AssertionError("A killed node changed the losses.")
    pairs = INGREDIENTS * (INGREDIENTS - 1) // 2
    twice = killed["sent"] - pairs
    if twice > AHEAD * killed["most"]:
        raise AssertionError(f"{twice} points were sent again after one node was killed.")
    return [
        f"Midpoints of all {pairs} pairs of {INGREDIENTS} networks ({NET}), {EXAMPLES} examples, "
        f"{RUNS} runs; goal ≥ {GOAL}. Losses are equal to the bit",
        *table(
            [
                Row("wall s", taken["2"], taken["0"]),
                Row("CPU s of the busiest process that evaluates", cpu["2"], cpu["0"]),
            ],
            "2 Ray nodes, 1 CPU each",
            "one worker",
        ),
        f"One of 2 nodes killed in the middle: {killed['seconds']:.1f} s, the same losses, {twice} "
        f"of {pairs} points sent again (chunks of up to {killed['most']})",
    ]


def _evaluated(folder: Path, nodes: str, name: str) -> Any:
    place = folder / name
    place.mkdir()
    run(evaluate, folder / "made", nodes, place / "found", workspace=place)
    return json.loads((place / "found").read_text())


def _cpu_of_actors() -> dict[int, float]:
    """Return the CPU seconds of each Ray actor that descends from this process."""
    processes = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            title = (place / "cmdline").read_bytes()
            _, _, rest = (place / "stat").read_text().rpartition(")")
            processes[int(place.name)] = title, rest.split()
    found = {}
    for pid, (title, fields) in processes.items():
        above = pid
        while above in processes and above != os.getpid():
            above = int(processes[above][1][1])
        if title.startswith(b"ray::Member") and above == os.getpid():
            found[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found
