"""The command `stockpot worker`: runs jobs of a shared workspace on this machine."""

import argparse
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from soupcore.jobs.supervisor import Supervisor
from soupcore.store import Store

_DESCRIPTION = """
Run jobs of a shared workspace on this machine, beside the dashboard and other workers. All of them
share the database, the workspace folder ($STOCKPOT_WORKSPACE), the checkpoints and the task files,
each under the same path on all machines. The points of a job are shared between all workers of its
task. If a worker is lost, the others compute its points.
"""


def parser(
    folder: Callable[[str], Path], task: Callable[[str], str], ray: Mapping[str, Any]
) -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Args:
        folder: Checks a folder.
        task: Checks the location of a task.
        ray: Options of the argument `--ray`.
    """
    made = argparse.ArgumentParser(prog="stockpot worker", description=_DESCRIPTION)
    made.add_argument(
        "--task",
        type=task,
        action="append",
        required=True,
        help="task whose jobs it runs, as for the dashboard",
    )
    made.add_argument(
        "--device",
        action="append",
        help="cpu, cuda, cuda:1, mps or auto; one worker for each (auto)",
    )
    made.add_argument("--ray", **ray)
    made.add_argument(
        "--root", type=folder, action="append", default=[], help="folder that contains sweeps (any)"
    )
    made.add_argument(
        "--database",
        default=os.environ.get("STOCKPOT_DATABASE"),
        help="URL of the shared PostgreSQL; $STOCKPOT_DATABASE keeps its password out of the "
        "process list (the SQLite file of the workspace)",
    )
    return made


def serve(
    tasks: Sequence[str],
    devices: Sequence[str],
    roots: Sequence[Path],
    database: str | None,
    ray: str | None = None,
) -> None:
    """Run jobs until the process receives SIGINT or SIGTERM. Its own jobs can be resumed then.

    Args:
        tasks: The tasks whose jobs to run.
        devices: Devices for computation.
        roots: Folders that sweeps may be in; empty for any folder.
        database: URL of the database; None for that of the workspace.
        ray: Address of a Ray cluster that evaluates the points; see `Supervisor`.
    """
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    store = Store(url=database)
    supervisor = Supervisor(store, tasks, devices, roots, ray=ray)
    try:
        supervisor.start()
        print(f"Waiting for jobs in {store.folder}. Ctrl-C stops this worker.", flush=True)
        stopped.wait()
    finally:
        supervisor.stop()
        store.close()
