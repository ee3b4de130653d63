"""The analysis of a sweep as one call: the steps of `soupcore.plan`, one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from soupcore.calls import Call, Code, Context, Report, Result
from soupcore.errors import RecipeError, TaskError
from soupcore.overview import Overview
from soupcore.plan import PART, TIMED, Step, steps
from soupcore.progress import part


@dataclass(frozen=True)
class Analysis(Call):
    """All steps of the analysis that are not done yet.

    The job tells `{"steps": [{"title", "state", "failure"}, …]}`, while it runs too. A soup that
    cannot be made, as its recipe or the task says, is noted with the reason, and the other steps
    go on.
    """

    kind = "analyze"
    is_shared = True

    def code(self, context: Context) -> Code:
        """Return Python that does the same and makes the `verdict`."""
        return Code(
            f"context = Context(sweep, evaluator, {context.folder!r}, {context.task_spec!r})\n"
            "Analysis().work(context, lambda done, total, partial=None: None)\n"
            "verdict = Overview.of(context).verdict\n",
            (
                "from soupcore.analyze import Analysis",
                "from soupcore.calls import Context",
                "from soupcore.overview import Overview",
            ),
        )

    def work(self, context: Context, report: Report) -> Result:
        """Do the steps in order."""
        plan = steps(Overview.of(context))
        total = max(1, sum(step.examples for step in plan if not step.is_done))
        done = 0
        # The main basin, which decides whether there is a learned soup, is known only on the way.
        for index in count():
            known = Overview.of(context)
            plan = steps(known)
            if index >= len(plan):
                break
            step = plan[index]
            if step.is_done:
                continue
            length = min(step.examples, total - done)
            of_step = _OfStep(report, done, length, total, {"steps": _told(plan, index)})
            of_step(0, 1)
            _do(known, step, of_step)
            done += length
        return {"steps": _told(plan, len(plan))}

    def share(self, context: Context, report: Report) -> None:
        """Evaluate checkpoints and lines; the worker of the job does the rest."""
        done: list[Step] = []
        while True:
            left = [step for step in steps(Overview.of(context)) if not step.is_done]
            if not left or left[0].is_soup or left[0].name == "distances" or left[0] in done:
                return
            left[0].call.share(context, report)
            done.append(left[0])


@dataclass(frozen=True)
class TimedPasses(Call):
    """Evaluations of some ingredients on a part of the select split, for the price of the rest.

    The first pass takes longer than the others, which find the network warm.
    """

    kind = "timed passes"

    def code(self, context: Context) -> Code:
        """Return Python that makes `timed`, the evaluations."""
        return Code(
            f"part = task.part(task.select, {PART})\n"
            f"some = list(sweep.ingredients.values())[:{TIMED}]\n"
            "timed = [evaluator.evaluate(each.mixture, part) for each in some]\n"
        )

    def work(self, context: Context, report: Report) -> Result:
        """Evaluate one ingredient after the other."""
        evaluator = context.evaluator
        select = evaluator.task.part(evaluator.task.select, PART)
        some = [each.mixture for each in context.sweep.ingredients.values()][:TIMED]
        for index, point in enumerate(some):
            evaluator.evaluate(point, select, on_progress=part(report, index, len(some)))
        return {}


@dataclass(frozen=True)
class _OfStep:
    """The report of a step, as part of the analysis; what the step tells besides is left out."""

    report: Report
    before: int
    length: int
    total: int
    told: Result

    def __call__(self, done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        self.report(self.before + self.length * done // max(total, 1), self.total, self.told)


def _do(known: Overview, step: Step, report: Report) -> None:
    store = known.context.evaluations.store
    try:
        found = step.call.work(known.context, report)
    except (RecipeError, TaskError) as error:
        if not step.is_soup:
            raise
        store.add_result(step.key(known), "step", {"why_none": str(error)})
        return
    if step.is_soup:
        store.add_result(step.key(known), "step", {"soup": found["soup"]})


def _told(plan: list[Step], running: int) -> list[dict[str, str]]:
    """Return the steps as a job tells them."""
    states = [
        "done" if step.is_done else "running" if index == running else "waiting"
        for index, step in enumerate(plan)
    ]
    return [
        {"title": step.title, "state": state, "failure": step.failure}
        for step, state in zip(plan, states, strict=True)
    ]
