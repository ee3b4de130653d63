"""Running a function in a process of its own, and what that process cost."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


@dataclass(frozen=True)
class Cost:
    """What a whole process took: its start, its imports, its work."""

    cpu_seconds: float
    peak_bytes: int


def run(function: Callable[..., None], *arguments: str | Path, workspace: Path) -> Cost:
    """Call a module's function with text arguments in a new process, from the root of the project.

    On Linux a process starts out with the peak memory of the one that made it. So that what is
    measured is larger than what measures, the benchmarks import torch only in such functions.

    Raises:
        CalledProcessError: The function failed.
    """
    name = function.__name__
    code = f"import sys; from {function.__module__} import {name}; {name}(*sys.argv[1:])"
    environment = {"STOCKPOT_WORKSPACE": str(workspace), "OMP_WAIT_POLICY": "passive"}
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | environment,
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _MAXRSS_UNIT)


def stopwatch() -> Callable[[], tuple[float, float]]:
    """Return what says the CPU and the wall seconds since now, of this process alone."""
    cpu, wall = time.process_time(), time.perf_counter()
    return lambda: (time.process_time() - cpu, time.perf_counter() - wall)


def describe_machine() -> None:
    import torch

    print(
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']}"
    )
