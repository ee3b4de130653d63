"""The analysis of a sweep as one job: the steps of `soupcore.plan`, one after the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from soupcore.calls import Context
from soupcore.errors import RecipeError, TaskError
from soupcore.jobs import connectivity_kinds, kinds
from soupcore.jobs.kinds import Report, Request, Result, WarmState
from soupcore.overview import Overview
from soupcore.plan import PART, TIMED, Step, steps
from soupcore.progress import part
from soupcore.stored_soups import StoredSoups


@dataclass(frozen=True)
class _Reported:
    """The report of a step, as part of the analysis; what the step tells besides is left out."""

    report: Report
    before: int
    length: int
    total: int
    told: Result

    def __call__(self, done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        self.report(self.before + self.length * done // max(total, 1), self.total, self.told)


def analyze(warm: WarmState, request: Request, report: Report) -> Result:
    """Do the steps of the analysis that are not done yet.

    A soup that cannot be made, as a recipe or the task says, is noted with the reason. The other
    steps go on.
    """
    plan = _plan(warm, request)
    total = max(1, sum(step.examples for step in plan if not step.is_done))
    done = 0
    for index in range(len(plan)):
        plan = _plan(warm, request)  # the main basin is known only now
        step = plan[index]
        if step.is_done:
            continue
        length = min(step.examples, total - done)
        on_progress = _Reported(report, done, length, total, {"steps": told_steps(plan, index)})
        on_progress(0, 1)
        _do(warm, request, step, on_progress)
        done += length
    return {"steps": told_steps(_plan(warm, request), len(plan))}


def time_pass(warm: WarmState, request: Request, report: Report) -> Result:
    """Evaluate some ingredients on a part of the select split, for the price of the rest.

    The first pass takes longer than the others, which find the network warm.
    """
    sweep, evaluator = warm.sweep(request), warm.evaluator(request)
    select = evaluator.task.part(evaluator.task.select, PART)
    some = [each.mixture for each in sweep.ingredients.values()][:TIMED]
    for index, point in enumerate(some):
        evaluator.evaluate(point, select, on_progress=part(report, index, len(some)))
    return {}


def told_steps(plan: list[Step], running: int) -> list[dict[str, str]]:
    """Return the steps as a job tells them: title, state and failure of each."""
    return [
        {
            "title": step.title,
            "state": "running"
            if index == running and not step.is_done
            else "done"
            if step.is_done
            else "waiting",
            "failure": step.failure,
        }
        for index, step in enumerate(plan)
    ]


def _plan(warm: WarmState, request: Request) -> list[Step]:
    return steps(_overview(warm, request))


def _overview(warm: WarmState, request: Request) -> Overview:
    sweep, evaluator = warm.sweep(request), warm.evaluator(request)
    known = StoredSoups(warm.store, sweep)
    soups = known.of_task(request["sweep"], request["task"], evaluator.estimate)
    return Overview(Context(sweep, evaluator), soups)


def _do(warm: WarmState, request: Request, step: Step, report: Report) -> None:
    kind = (kinds.KINDS | connectivity_kinds.KINDS)[step.kind]
    key = step.key(_overview(warm, request)) if step.kind == "soup" else None
    try:
        found = kind(warm, {**request, **step.arguments}, report)
    except (RecipeError, TaskError) as error:
        if key is None:
            raise
        warm.store.add_result(key, "step", {"why_none": str(error)})
        return
    if key is not None:
        warm.store.add_result(key, "step", {"soup": found["soup"]})


KINDS: dict[str, Callable[[WarmState, Request, Report], Result]] = {
    "analyze": analyze,
    "time": time_pass,
}
