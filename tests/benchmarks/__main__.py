"""Speed and memory compared with named baselines, measured in the same run.

`make bench` takes about half an hour, and needs up to 7 GB in the temporary folder.
`make bench ARGS="uniform digests"` measures only these tables.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import (
    adaptive_barriers,
    barrier_matrix,
    bfloat16,
    decoded,
    devices,
    digests,
    early_stop,
    imports,
    language,
    large,
    learned,
    matrices,
    memory,
    opening,
    pages,
    passes,
    peers,
    ray_nodes,
    recipes,
    reruns,
    transformer_pairs,
    uniform,
    whole_process,
)
from tests.benchmarks.processes import describe_machine, run

Benchmark = Callable[[Path], list[str]]

TABLES: dict[str, Benchmark] = {
    "uniform": uniform.benchmark,
    "memory": memory.benchmark,
    "bfloat16": bfloat16.benchmark,
    "imports": imports.benchmark,
    "whole-process": whole_process.benchmark,
    "digests": digests.benchmark,
    "opening": opening.benchmark,
    "barriers": barrier_matrix.benchmark,
    "adaptive": adaptive_barriers.benchmark,
    "matrices": matrices.benchmark,
    "passes": passes.benchmark,
    "greedy": early_stop.benchmark,
    "decoded": decoded.benchmark,
    "learned": learned.benchmark,
    "language": language.benchmark,
    "transformers": transformer_pairs.benchmark,
}

# These take long, or need much disk space or a browser, so they are measured only on request.
ON_DEMAND: dict[str, Benchmark] = {
    "peers": peers.benchmark,
    "recipes": recipes.benchmark,
    "large": large.benchmark,
    "reruns": reruns.benchmark,
    "pages": pages.benchmark,
    "devices": devices.benchmark,
    "ray": ray_nodes.benchmark,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    tables = TABLES | ON_DEMAND
    parser.add_argument(
        "table", nargs="*", default=[*TABLES], help=f"tables to measure: {', '.join(tables)}"
    )
    names = parser.parse_args().table
    if unknown := set(names) - tables.keys():
        parser.error(f"no table {min(unknown)!r}; available: {', '.join(tables)}")
    with tempfile.TemporaryDirectory(prefix="stockpot-bench-") as workspace:
        run(describe_machine, workspace=Path(workspace))
    print("Figures: median (lowest to highest) of runs that alternate with those of the baseline.")
    print("CPU s: user and system time of all threads. Ratio: baseline ÷ soupcore.")
    for name in names:
        with tempfile.TemporaryDirectory(prefix="stockpot-bench-") as folder:
            print("", *tables[name](Path(folder)), sep="\n", flush=True)


if __name__ == "__main__":
    main()
