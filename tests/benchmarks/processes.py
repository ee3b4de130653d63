"""Runs functions in new processes and measures their cost."""

import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[2]

# The environment of workers in soupcore.jobs.supervisor, whose import here would import torch.
_KEPT = str(1 << 30)
WORKER = {"MALLOC_MMAP_THRESHOLD_": _KEPT, "MALLOC_TRIM_THRESHOLD_": _KEPT}

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


@dataclass(frozen=True)
class Cost:
    """Cost of a whole process, including its start and imports."""

    cpu_seconds: float
    peak_bytes: int


def run(
    function: Callable[..., None],
    *arguments: str | int | Path,
    workspace: Path,
    python: str = sys.executable,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Cost:
    """Call a module's function with string arguments in a new process, in the root of the project.

    On Linux, a process starts with the peak memory of its parent. So that the parent's is smaller
    than the measured one, the benchmarks import torch only in such functions.

    Raises:
        CalledProcessError: The function failed.
    """
    name = function.__name__
    code = f"import sys; from {function.__module__} import {name}; {name}(*sys.argv[1:])"
    own = {"STOCKPOT_WORKSPACE": str(workspace), "OMP_WAIT_POLICY": "passive"}
    with subprocess.Popen(
        [python, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | own | dict(environment),
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _MAXRSS_UNIT)


def import_all() -> None:
    """Import every public name, each of which otherwise loads its module on first use."""
    import soupcore

    for name in soupcore.__all__:
        getattr(soupcore, name)


def stopwatch() -> Callable[[], tuple[float, float]]:
    """Return a function that returns the CPU and wall seconds of this process since now."""
    cpu, wall = time.process_time(), time.perf_counter()
    return lambda: (time.process_time() - cpu, time.perf_counter() - wall)


def interleaved(
    ways: Mapping[str, Callable[[], object]], runs: int, result: Path, *, wall: bool = False
) -> dict[str, list[float]]:
    """Return the CPU seconds of several functions in this process, for each run.

    The functions run in turn, so that the load of the machine affects all of them. The first turn,
    with cold caches and memory not yet allocated, is not counted.

    Args:
        ways: The functions, by name.
        runs: Number of counted turns.
        result: A file that the functions write. It is removed before each call.
        wall: Return wall seconds instead.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(1 + runs):
        for name, way in ways.items():
            result.unlink(missing_ok=True)
            seconds = stopwatch()
            way()
            taken[name].append(seconds()[wall])
    return {name: values[1:] for name, values in taken.items()}


def memory_above() -> Callable[[], int]:
    """Return a function that returns the rise of peak memory since now, in bytes.

    Memory is the resident set, which includes pages of mapped files.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return lambda: (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * _MAXRSS_UNIT

    def kib(field: str) -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1])

    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current memory
    now = kib("VmRSS")
    return lambda: (kib("VmHWM") - now) * 1024


def describe_machine() -> None:
    import torch

    print(
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
        f"OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']}"
    )
