"""The kinds of jobs and the functions that run them, and the state of a worker between jobs.

The kinds are opening a sweep, and all calls. Requests and results are JSON. Computed values are
stored immediately, so an interrupted job only computes the rest when it is queued again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from soupcore.calls import CALLS, Call, Context, OpenSweep, Report, Result
from soupcore.errors import SweepError, TaskError
from soupcore.evaluation import Evaluator
from soupcore.plan import Analysis, TimedPasses
from soupcore.progress import Progress, no_progress
from soupcore.store import Store
from soupcore.stored_soups import StoredSoups, including
from soupcore.sweeps import Sweep
from soupcore.sweeps.folder import stays_within
from soupcore.sweeps.opening import is_scanned
from soupcore.sweeps.remote_table import sweep_signature
from soupcore.tasks import load_task
from soupcore.tasks.loading import task_signature

Request = Mapping[str, Any]


class TaskChangedError(Exception):
    """A task's file was changed after this process ran it, so another process must run the job."""


class WarmState:
    """State that a worker keeps between jobs: the open sweep, the task, the model and its data.

    Args:
        store: Store of the results.
        tasks: The allowed tasks. Tasks are code, so requests cannot name others.
        device: Device for computation.
        roots: Folders that may contain sweeps, after resolving links; by default, any folder.
        ray: Address of a Ray cluster that evaluates points; see `Evaluator`.
    """

    def __init__(
        self,
        store: Store,
        tasks: Sequence[str],
        device: str = "auto",
        roots: Sequence[Path] | None = None,
        ray: str | None = None,
    ) -> None:
        self.store = store
        self.roots = roots
        self._tasks = frozenset(tasks)
        self._device = device
        self._ray = ray
        self._sweep: tuple[tuple[OpenSweep, str], Sweep] | None = None
        self._run: dict[str, str] = {}  # signatures of the tasks that were loaded
        self._evaluators: dict[str, Evaluator] = {}

    def may_open(self, request: Request) -> bool:
        """Return whether the sweep of a request, if it has one, is below one of the roots."""
        return "sweep" not in request or stays_within(self.roots)(Path(request["sweep"]))

    def sweep(self, request: Request, on_progress: Progress = no_progress) -> Sweep:
        """Return the sweep of a request, reopened only if its files changed.

        Args:
            request: See `OpenSweep`.
            on_progress: Called with bytes read and in total.

        Raises:
            SweepError: The folder cannot be opened or is outside the roots.
        """
        opening = OpenSweep.from_request(request)
        if not self.may_open(request):
            raise SweepError(f"{opening.folder} is not in a folder that the app was started with.")
        identity = (replace(opening, refresh=False), sweep_signature(opening.folder))
        if self._sweep is not None and self._sweep[0] == identity and not opening.refresh:
            return self._sweep[1]
        sweep = Sweep.from_folder(
            opening.folder,
            weights=opening.weights,
            snapshot=opening.snapshot,
            within=self.roots,
            refresh=opening.refresh,
            on_progress=on_progress,
        )
        # If the reader of a file was killed, the next request reads it again.
        self._sweep = (identity, sweep) if self.is_scanned(opening) else None
        return sweep

    def is_scanned(self, opening: OpenSweep) -> bool:
        """Return whether all files of a sweep were read before."""
        return is_scanned(opening.folder, opening.weights, opening.snapshot, within=self.roots)

    def context(self, request: Request) -> Context:
        """Return the context for a request's call.

        Args:
            request: As for `sweep` and `evaluator`, or without a task. `soups`, `{name: id}`, are
                stored soups to add as ingredients, and `tensors` the rule on tensors that take part
                in recipes (see `Sweep.with_tensors`).

        Raises:
            RecipeError: One of the soups cannot be rebuilt.
            SweepError: As for `sweep`, or a soup has the name of a checkpoint in it.
            TaskError: As for `evaluator`.
            TaskChangedError: As for `evaluator`.
        """
        files = self.sweep(request)
        soups = StoredSoups(self.store, files).by_name(request.get("soups", {}))
        return Context(
            including(files, soups).with_tensors(**request.get("tensors", {})),
            self.evaluator(request) if "task" in request else self.store,
            folder=request["sweep"],
            task_spec=request.get("task", ""),
            included=soups,
        )

    def evaluator(self, request: Request) -> Evaluator:
        """Return the evaluator of a request; its task is loaded once.

        Args:
            request: `task` is the location of the task, `batchnorm` the statistics to evaluate with
                (see `Evaluator.with_statistics`), `primary` the metric to choose by if it is not
                the first, `data` the split digests that the page expects.

        Raises:
            TaskError: The task is not allowed, or its data differ here.
            TaskChangedError: The task's file was changed after it was loaded.
        """
        task = request["task"]
        if task not in self._tasks:
            raise TaskError(f"The task {task!r} is not among those named when the app was started.")
        signature = task_signature(task)
        if self._run.setdefault(task, signature) != signature:
            raise TaskChangedError
        if task not in self._evaluators:
            self._evaluators[task] = Evaluator(
                load_task(task), self.store, device=self._device, ray=self._ray
            )
        evaluator = self._evaluators[task]
        for split, digest in request.get("data", {}).items():
            if evaluator.task.split(split).digest != digest:
                raise TaskError(
                    f"{task}: its split {split!r} has different data each time the file is run, so "
                    "results could not be reused. Seed its random numbers (torch.manual_seed(0)). "
                    "If its data changed on disk, restart the app."
                )
        if request.get("batchnorm") == "re-estimated":
            evaluator = evaluator.with_statistics("re-estimated")
        if "primary" in request:
            evaluator = evaluator.with_primary(request["primary"])
        return evaluator


def open_sweep(warm: WarmState, request: Request, report: Report) -> Result:
    """Scan every checkpoint of a folder for its digest and non-finite values.

    Remote checkpoints that are not in the cache are downloaded first.

    Raises:
        RemoteError: A remote file cannot be downloaded.
        SweepError: Reading a file ended without a result, for example if its reader was killed.
    """
    opening = OpenSweep.from_request(request)
    before = sweep_signature(opening.folder)
    sweep = warm.sweep(request, report)
    if not warm.is_scanned(opening) and sweep_signature(opening.folder) == before:
        found = next((f for f in sweep.fit.findings if f.severity == "misfit"), None)
        reason = f": {found.ingredient}: {found.problem}" if found else "."
        raise SweepError(f"{opening.folder}: not every checkpoint could be read completely{reason}")
    return {"ingredients": len(sweep), "findings": len(sweep.fit.findings)}


def _run_call(call: type[Call], warm: WarmState, request: Request, report: Report) -> Result:
    """Run a call, whose results are in the store."""
    return call.from_request(request).work(warm.context(request), report)


def _share_call(call: type[Call], warm: WarmState, request: Request, report: Report) -> None:
    """Evaluate points of a call that another worker runs."""
    call.from_request(request).share(warm.context(request), report)


_CALLS: tuple[type[Call], ...] = (*CALLS.values(), Analysis, TimedPasses)
KINDS: dict[str, Callable[[WarmState, Request, Report], Result]] = {
    OpenSweep.kind: open_sweep,
    **{call.kind: partial(_run_call, call) for call in _CALLS},
}

#: Kinds whose points idle workers may evaluate too.
SHARED: dict[str, Callable[[WarmState, Request, Report], None]] = {
    call.kind: partial(_share_call, call) for call in _CALLS if call.is_shared
}
