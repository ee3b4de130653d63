"""Speed and memory against named baselines, measured in the same run: `make bench`.

Takes about ten minutes, and 1.3 GB in the temporary folder while it runs.
"""

import tempfile
from pathlib import Path

from tests.benchmarks import adaptive_barriers, barrier_matrix, uniform_soup
from tests.benchmarks.processes import describe_machine, run


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="stockpot-bench-") as name:
        folder = Path(name)
        run(describe_machine, workspace=folder)
        print("Each figure: median (lowest to highest) of runs that alternate with the baseline's.")
        print("CPU s: user and system time of all threads. Ratio: baseline ÷ soupcore.")
        for benchmark in (
            uniform_soup.benchmark,
            barrier_matrix.benchmark,
            adaptive_barriers.benchmark,
        ):
            print("", *benchmark(folder), sep="\n", flush=True)


if __name__ == "__main__":
    main()
