"""The kinds of long work, one function each, from a request to a result.

Requests and results are JSON. What was computed goes to the store as it comes, so a job that is
cut off and asked for again does only the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Protocol

from soupcore.errors import RecipeError, TaskError
from soupcore.evaluation import Evaluator, Progress, no_progress
from soupcore.evaluation.evaluator import part
from soupcore.recipes import RECIPES, Soup, Step, manual
from soupcore.store import Store
from soupcore.sweeps import Sweep
from soupcore.sweeps.sweep import folder_signature
from soupcore.tasks import load_task
from soupcore.tasks.loading import task_signature

Request = Mapping[str, Any]
Result = dict[str, Any]


class Report(Protocol):
    """How a job tells what it has done; it raises to stop the job."""

    def __call__(self, done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        """Report units of work done and in all, and what is known already."""
        ...


class WarmState:
    """What stays warm between jobs: the open sweep, the task, the model and its data.

    Args:
        store: Where results go.
        tasks: The tasks that may be run; they are code, so no request can name another.
        device: Where to compute.
    """

    def __init__(self, store: Store, tasks: Sequence[str], device: str = "auto") -> None:
        self.store = store
        self._tasks = frozenset(tasks)
        self._device = device
        self._sweeps: dict[str, tuple[str, Sweep]] = {}
        self._evaluators: dict[str, tuple[str, Evaluator]] = {}

    def sweep(self, folder: str, on_progress: Progress = no_progress) -> Sweep:
        """Return the sweep in a folder, opened again only if its files changed."""
        signature = folder_signature(folder)
        if folder not in self._sweeps or self._sweeps[folder][0] != signature:
            sweep = Sweep.from_folder(folder, on_progress=on_progress)
            self._sweeps = {folder: (signature, sweep)}
        return self._sweeps[folder][1]

    def evaluator(self, task: str) -> Evaluator:
        """Return the evaluator of a task, loaded again only if its file changed."""
        if task not in self._tasks:
            raise TaskError(f"The task {task!r} is not among those named when the app was started.")
        signature = task_signature(task)
        if task not in self._evaluators or self._evaluators[task][0] != signature:
            evaluator = Evaluator(load_task(task), self.store, device=self._device)
            self._evaluators = {task: (signature, evaluator)}
        return self._evaluators[task][1]


def open_sweep(warm: WarmState, request: Request, report: Report) -> Result:
    """Read every checkpoint of a folder once: digests and values that are not finite."""
    sweep = warm.sweep(request["sweep"], report)
    return {"ingredients": len(sweep), "findings": len(sweep.fit.findings)}


def evaluate(warm: WarmState, request: Request, report: Report) -> Result:
    """Evaluate ingredients on splits, split by split so that the first column fills first."""
    sweep, evaluator = warm.sweep(request["sweep"]), warm.evaluator(request["task"])
    wanted = [(name, split) for split in request["splits"] for name in request["names"]]
    for index, (name, split) in enumerate(wanted):
        evaluator.evaluate(sweep[name].mixture, split, on_progress=part(report, index, len(wanted)))
    return {"evaluations": len(wanted)}


def make_soup(warm: WarmState, request: Request, report: Report) -> Result:
    """Follow a recipe, evaluate the soup on every split, and remember it."""
    sweep, evaluator = warm.sweep(request["sweep"]), warm.evaluator(request["task"])
    recipe = RECIPES.get(request["recipe"])
    if recipe is None:
        raise RecipeError(f"There is no recipe {request['recipe']!r}.")
    trace: list[dict[str, Any]] = []

    def on_step(steps: Sequence[Step]) -> None:
        trace[:] = [step.to_json() for step in steps]

    def with_trace(done: int, total: int) -> None:
        report(done, total, {"trace": list(trace)})

    soup = recipe.follow(
        sweep,
        evaluator,
        request["names"],
        on_progress=part(with_trace, 0, 2),
        on_step=on_step,
        **request["parameters"],
    )
    soup.evaluate(evaluator, on_progress=part(with_trace, 1, 2))
    return {"soup": _remember(warm, request, soup)}


def evaluate_mixture(warm: WarmState, request: Request, report: Report) -> Result:
    """Evaluate coefficients chosen by hand; remember the soup where asked to."""
    sweep, evaluator = warm.sweep(request["sweep"]), warm.evaluator(request["task"])
    soup = manual(sweep, {n: Fraction(text) for n, text in request["coefficients"].items()})
    soup.evaluate(evaluator, request["splits"], on_progress=report)
    return {"soup": _remember(warm, request, soup) if request["keep"] else None}


def write_weights(warm: WarmState, request: Request, report: Report) -> Result:
    """Write a soup's weights to a file of the store."""
    sweep, evaluator = warm.sweep(request["sweep"]), warm.evaluator(request["task"])
    row = warm.store.soup(request["soup"])
    if row is None:
        raise RecipeError(f"There is no soup {request['soup']!r} any more.")
    soup = Soup.from_json(sweep, row.body)
    known = {split: evaluator.stored([soup.mixture], split)[0] for split in evaluator.task.reported}
    soup.evaluations.update({split: found for split, found in known.items() if found})
    total = sum(info.nbytes for info in soup.mixture.tensors.values())
    done = 0

    def on_bytes(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        report(done, total)

    file = warm.store.folder / "soups" / f"{soup.recipe}-{soup.id}.safetensors"
    sha256 = soup.save(file, on_bytes)
    warm.store.add_soup_file(soup.id, file, sha256)
    return {"soup": soup.id, "sha256": sha256}


def _remember(warm: WarmState, request: Request, soup: Soup) -> str:
    warm.store.add_soup(soup.id, request["sweep"], soup.to_json() | {"task": request["task"]})
    return soup.id


KINDS: dict[str, Callable[[WarmState, Request, Report], Result]] = {
    "open": open_sweep,
    "evaluate": evaluate,
    "soup": make_soup,
    "mixture": evaluate_mixture,
    "weights": write_weights,
}
