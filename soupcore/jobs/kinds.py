"""The kinds of long work, one function each, from a request to a result.

Requests and results are JSON. What was computed goes to the store as it comes, so a job that is
cut off and asked for again does only the rest.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from soupcore.calls import CALLS, Call, Context
from soupcore.errors import RecipeError, SweepError, TaskError
from soupcore.evaluation import Evaluator
from soupcore.progress import Progress, no_progress, part
from soupcore.recipes import (
    RECIPES,
    Pass,
    Recipe,
    Soup,
    Step,
    manual,
    other_statistics_of,
)
from soupcore.store import Store
from soupcore.stored_soups import StoredSoup, StoredSoups, including
from soupcore.sweeps import Sweep
from soupcore.sweeps.checkpoints import Weights
from soupcore.sweeps.folder import folder_signature, stays_within
from soupcore.sweeps.snapshots import Snapshots
from soupcore.sweeps.sweep import is_scanned
from soupcore.tasks import load_task
from soupcore.tasks.loading import task_signature
from soupcore.workspace import private_folder
from soupcore.writers.forms import Form

Request = Mapping[str, Any]
Result = dict[str, Any]

_HASHED_AT_ONCE = 1 << 20  # bytes


class Report(Protocol):
    """How a job tells what it has done; it raises to stop the job."""

    def __call__(self, done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        """Report units of work done and in all, and what is known already."""
        ...


class TaskChangedError(Exception):
    """A task's file was changed after this process ran it, so another process has to do the job."""


class WarmState:
    """What stays warm between jobs: the open sweep, the task, the model and its data.

    Args:
        store: Where results go.
        tasks: The tasks that may be run; they are code, so no request can name another.
        device: Where to compute.
        roots: Folders that sweeps may be in, links followed; anywhere unless given.
    """

    def __init__(
        self,
        store: Store,
        tasks: Sequence[str],
        device: str = "auto",
        roots: Sequence[Path] | None = None,
    ) -> None:
        self.store = store
        self.roots = roots
        self._tasks = frozenset(tasks)
        self._device = device
        self._sweep: tuple[tuple[object, ...], Sweep] | None = None
        self._run: dict[str, str] = {}  # signatures of the tasks whose file was run
        self._evaluators: dict[str, Evaluator] = {}

    def may_open(self, request: Request) -> bool:
        """Whether the sweep of a request, if it has one, is below one of the roots."""
        return "sweep" not in request or stays_within(self.roots)(Path(request["sweep"]))

    def sweep(self, request: Request, on_progress: Progress = no_progress) -> Sweep:
        """Return the sweep of a request, opened again only if its files changed.

        Args:
            request: Its `sweep` is the folder, its `weights` which set to take of checkpoints with
                several, its `snapshot` which snapshot of runs with several (see
                `Sweep.from_folder`), its `soups` the soups of the store that are
                further ingredients, `{name: id}`.
            on_progress: Called with bytes read and in all.

        Raises:
            RecipeError: One of the soups cannot be made again.
            SweepError: The folder cannot be opened or lies outside the roots, or a soup has the
                name of a checkpoint in it.
        """
        folder, weights, snapshot = _opening(request)
        if not self.may_open(request):
            raise SweepError(f"{folder} is not below a folder that the app was started with.")
        identity = (folder, weights, snapshot, folder_signature(folder))
        if self._sweep is not None and self._sweep[0] == identity:
            sweep = self._sweep[1]
        else:
            sweep = Sweep.from_folder(
                folder,
                weights=weights,
                snapshot=snapshot,
                within=self.roots,
                on_progress=on_progress,
            )
            # Where the reader of a file was ended from outside, the next request reads it again.
            is_known = is_scanned(folder, weights, snapshot, within=self.roots)
            self._sweep = (identity, sweep) if is_known else None
        soups = StoredSoups(self.store, sweep).by_name(request.get("soups", {}))
        return including(sweep, soups)

    def evaluator(self, request: Request) -> Evaluator:
        """Return the evaluator of a request; its task is loaded once.

        Args:
            request: Its `task` is where the task is, its `batchnorm` which statistics to evaluate
                with (see `Evaluator.with_statistics`), its `data` the digests of the splits as
                the one who asks knows them.

        Raises:
            TaskError: The task may not be run, or gives other data here.
            TaskChangedError: The task's file was changed after it was loaded.
        """
        task = request["task"]
        if task not in self._tasks:
            raise TaskError(f"The task {task!r} is not among those named when the app was started.")
        signature = task_signature(task)
        if self._run.setdefault(task, signature) != signature:
            raise TaskChangedError
        if task not in self._evaluators:
            self._evaluators[task] = Evaluator(load_task(task), self.store, device=self._device)
        evaluator = self._evaluators[task]
        for split, digest in request.get("data", {}).items():
            if evaluator.task.split(split).digest != digest:
                raise TaskError(
                    f"{task}: its split {split!r} holds other data each time the file is run, so "
                    "results would not be found again. Seed its random numbers "
                    "(torch.manual_seed(0)). If its data were changed on disk, restart the app."
                )
        if request.get("batchnorm") == "re-estimated":
            evaluator = evaluator.with_statistics("re-estimated")
        return evaluator


def _opening(request: Request) -> tuple[str, Weights, Snapshots]:
    """Return the folder, the weight sets and the snapshots that a request names."""
    return request["sweep"], request.get("weights", ""), request.get("snapshot", "")


def open_sweep(warm: WarmState, request: Request, report: Report) -> Result:
    """Read every checkpoint of a folder once: digests and values that are not finite.

    Raises:
        SweepError: Reading a file ended without an answer, as where its reader was killed.
    """
    folder, weights, snapshot = _opening(request)
    before = folder_signature(folder)
    sweep = warm.sweep(request, report)
    is_known = is_scanned(folder, weights, snapshot, within=warm.roots)
    if not is_known and folder_signature(folder) == before:
        found = next((f for f in sweep.fit.findings if f.severity == "misfit"), None)
        reason = f": {found.ingredient}: {found.problem}" if found else "."
        raise SweepError(f"{folder}: not every checkpoint can be read to its end{reason}")
    return {"ingredients": len(sweep), "findings": len(sweep.fit.findings)}


def evaluate(warm: WarmState, request: Request, report: Report) -> Result:
    """Evaluate ingredients on splits, split by split so that the first column fills first."""
    sweep, evaluator = warm.sweep(request), warm.evaluator(request)
    points = [sweep[name].mixture for name in request["names"]]
    splits = request["splits"]
    for index, split in enumerate(splits):
        evaluator.evaluate_all(points, split, on_progress=part(report, index, len(splits)))
    return {"evaluations": len(points) * len(splits)}


def make_soup(warm: WarmState, request: Request, report: Report) -> Result:
    """Follow a recipe, evaluate the soup on every split, and remember it.

    Of a network with BatchNorm the soup is made with its other statistics too. Without a task the
    soup is not evaluated.
    """
    sweep = warm.sweep(request)
    evaluator = warm.evaluator(request) if "task" in request else None
    recipe = _recipe(request)
    known: dict[str, Any] = {}
    stages = 3 if evaluator is not None and evaluator.task.can_re_estimate else 2

    def on_step(steps: Sequence[Step] | Sequence[Pass]) -> None:
        what = "trace" if isinstance(steps[0], Step) else "passes"
        known[what] = [step.to_json() for step in steps]

    def with_trace(done: int, total: int) -> None:
        report(done, total, dict(known))

    soup = recipe.follow(
        sweep,
        evaluator,
        request["names"],
        on_progress=part(with_trace, 0, stages),
        on_step=on_step,
        **request["parameters"],
    )
    if evaluator is None:
        return {"soup": _remember(warm, request, soup, request.get("soups", {})), "other": None}
    soup.take_statistics_of(evaluator)
    # Remembered before it is evaluated on every split: a cancel then, or in a recipe that gives
    # the best so far, keeps what was found.
    offered = request.get("soups", {})
    known["soup"] = _remember(warm, request, soup, offered)
    soup.evaluate(evaluator, on_progress=part(with_trace, 1, stages))
    _remember(warm, request, soup, offered)
    other = other_statistics_of(soup, evaluator)
    if other is not None:
        other.evaluate(
            evaluator.with_statistics("averaged"), on_progress=part(with_trace, 2, stages)
        )
        _remember(warm, request, other, offered)
    return {"soup": soup.id, "other": other and other.id}


def score_soup(warm: WarmState, request: Request, report: Report) -> Result:
    """Evaluate a soup on every split that was cut off before."""
    stored = _stored_soup(warm, request)
    evaluator = warm.evaluator(request).with_statistics("averaged")
    stored.soup.evaluate(evaluator, on_progress=report)
    return {"soup": _remember(warm, request, stored.soup, stored.offered)}


def evaluate_mixture(warm: WarmState, request: Request, report: Report) -> Result:
    """Evaluate coefficients chosen by hand, if there is a task; remember the soup where asked."""
    soup = manual(
        warm.sweep(request), {n: Fraction(text) for n, text in request["coefficients"].items()}
    )
    if "task" in request:
        soup.evaluate(warm.evaluator(request), request["splits"], on_progress=report)
    if not request["keep"]:
        return {"soup": None}
    return {"soup": _remember(warm, request, soup, request.get("soups", {}))}


def other_statistics(warm: WarmState, request: Request, report: Report) -> Result:
    """Make a soup of the store with its other BatchNorm statistics, evaluate it and remember it."""
    stored, evaluator = _stored_soup(warm, request), warm.evaluator(request)
    soup = other_statistics_of(stored.soup, evaluator)
    if soup is None:
        raise RecipeError("The network has no BatchNorm, or the task no training data.")
    soup.evaluate(evaluator.with_statistics("averaged"), on_progress=report)
    return {"soup": _remember(warm, request, soup, stored.offered)}


def preview(warm: WarmState, request: Request, report: Report) -> Result:
    """Look at coefficients chosen by hand in bfloat16; nothing is remembered but the answer."""
    sweep, evaluator = warm.sweep(request), warm.evaluator(request)
    coefficients = {name: Fraction(text) for name, text in request["coefficients"].items()}
    mixture = manual(sweep, coefficients).mixture
    splits = request["splits"]
    names = {ingredient.digest: name for name, ingredient in sweep.ingredients.items()}
    found = {}
    for index, split in enumerate(splits):
        seen = evaluator.preview(mixture, split, on_progress=part(report, index, len(splits)))
        found[split] = asdict(seen) | {"reference": names.get(seen.reference, "the base")}
    return {"previews": found}


def write_weights(warm: WarmState, request: Request, report: Report) -> Result:
    """Write a soup's weights to files of the store, in the form that is asked for."""
    soup = _stored_soup(warm, request).soup
    if "task" in request:
        evaluator = warm.evaluator(request).with_statistics("averaged")
        if soup.estimate is not None:
            examples = soup.estimate.examples
            soup.re_estimate(evaluator, examples=examples)
            evaluator = evaluator.with_statistics("re-estimated", examples=examples)
        for split in evaluator.task.reported:
            (found,) = evaluator.stored([soup.mixture], split)
            if found is not None:
                soup.evaluations[split] = found
    form = Form(**request["form"])
    total = 2 * form.nbytes(soup)  # written, then read again for the SHA-256
    done = 0

    def on_bytes(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        report(min(done, total), total)

    folder = private_folder(warm.store.soup_folder(soup.id, form.key))
    warm.store.add_soup_files(soup.id, form.key, {})  # whatever is there is about to change
    files = soup.save(folder / form.file_name(soup), form.dtype, form.shard_size, on_bytes=on_bytes)
    digests = {file.name: _sha256(file, on_bytes) for file in files}
    warm.store.add_soup_files(soup.id, form.key, digests)
    return {"soup": soup.id, "files": list(digests)}


def run_call(call: type[Call], warm: WarmState, request: Request, report: Report) -> Result:
    """Run a call; its result is in the store."""
    context = Context(warm.sweep(request), warm.evaluator(request))
    call.from_request(request).run_and_keep(context, report)
    return {}


def _sha256(path: Path, on_bytes: Callable[[int], None]) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASHED_AT_ONCE):
            sha.update(block)
            on_bytes(len(block))
    return sha.hexdigest()


def _recipe(request: Request) -> Recipe:
    recipe = RECIPES.get(request["recipe"])
    if recipe is None:
        raise RecipeError(f"There is no recipe {request['recipe']!r}.")
    return recipe


def _stored_soup(warm: WarmState, request: Request) -> StoredSoup:
    return StoredSoups(warm.store, warm.sweep(request))[request["soup"]]


def _remember(warm: WarmState, request: Request, soup: Soup, offered: Mapping[str, str]) -> str:
    told = {"task": request.get("task"), "offered": dict(offered)}
    warm.store.add_soup(soup.id, request["sweep"], soup.to_json() | told)
    return soup.id


KINDS: dict[str, Callable[[WarmState, Request, Report], Result]] = {
    "open": open_sweep,
    "evaluate": evaluate,
    "soup": make_soup,
    "scores": score_soup,
    "mixture": evaluate_mixture,
    "preview": preview,
    "statistics": other_statistics,
    "weights": write_weights,
    **{kind: partial(run_call, call) for kind, call in CALLS.items()},
}
