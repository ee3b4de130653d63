"""The analysis of a sweep: its steps, their estimated durations, and the call that runs them.

The steps, in order:

1. Evaluate the ingredients.
2. Screen the lines between them for barriers.
3. Build the uniform soup of the main basin, the greedy soup of all ingredients and, for small
   classifiers, the learned soup of the main basin.
4. Score the greedy ensemble.
5. Without a report split, cross-fit greedy.
6. Measure the distances between the weights, which no other step needs.

Each step is a call whose results are stored, so it is done only once.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, count
from math import comb
from statistics import median
from typing import Any

import numpy as np

from soupcore.calls import (
    Call,
    Code,
    Context,
    GreedyEnsembleScores,
    IngredientScores,
    Optimism,
    Paths,
    RecipeSoup,
    Report,
    Result,
    WeightGeometry,
)
from soupcore.connectivity.adaptive import EVALUATIONS_PER_LINE
from soupcore.connectivity.geometry import reference_and_checkpoints
from soupcore.display import counted
from soupcore.errors import RecipeError, TaskError
from soupcore.overview import GREEDY, Overview
from soupcore.progress import part as part_of
from soupcore.recipes import RECIPES
from soupcore.sweeps import Sweep

PART = 200  #: examples of the timed passes
TIMED = 3  #: ingredients that are evaluated to time a pass

_ALL_PAIRS = 40  # ingredients; with more, only the lines from the best one are screened
_OVERHEAD = 2  # reading the ingredients of a mixture and storing results, relative to the passes
_HALVES = 20  # runs of greedy for the cross-fitted estimate
_DESCENT = 3  # a pass with gradients in passes without, roughly

# Limits for the learned soup as a step: numbers of all ingredients together, and examples of the
# select split. They are fixed, so that the speed of a machine does not decide which soups there
# are.
_LEARNED_NUMBERS = 100_000_000
_LEARNED_EXAMPLES = 10_000

# Bytes of weights up to which the distances are a step. Those of more weights take minutes.
_LARGEST_WEIGHTS = 8_000_000_000
# Measured on a slow machine: bytes of weights read, and inner products stored, in a second.
_READ = 50_000_000
_STORED = 1_000

Pair = tuple[str, str]


@dataclass(frozen=True)
class Step:
    """A step of the analysis.

    Attributes:
        name: A short name.
        title: Display name, as an imperative.
        call: The call that runs it.
        examples: Approximate number of examples that still have to pass through the network.
        is_done: Whether its results are stored.
        failure: Why it has no result; empty if it has one or was not tried.
        seconds: Estimated time of its other work, in seconds.
    """

    name: str
    title: str
    call: Call
    examples: int
    is_done: bool
    failure: str = ""
    seconds: float = 0.0

    @property
    def is_soup(self) -> bool:
        """Whether the step builds a soup."""
        return isinstance(self.call, RecipeSoup)

    def key(self, overview: Overview) -> str:
        """Return the identity of a soup's step, under which its id is stored: 64 hex digits."""
        task, estimate = overview.context.task, overview.context.evaluations.estimate
        arguments = self.call.arguments
        # The uniform soup and the one learned by the loss are the same by any metric.
        is_by_metric = self.name == "greedy"
        identity = [
            arguments,
            [overview.sweep.ingredients[name].digest for name in arguments["names"]],
            task.results_key if is_by_metric else task.key,
            [task.split(split).digest for split in task.reported],
            estimate.key if estimate else "",
        ]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def steps(overview: Overview) -> list[Step]:
    """Return the steps of the analysis, given the stored results.

    Later steps depend on earlier ones: the main basin is known once the lines are screened.
    """
    task, names = overview.context.task, overview.names
    found = [_evaluations(overview)]
    if task.has_examples and len(names) > 1:
        found.append(_pairs(overview))
    main = _main_basin(overview)
    of = "the main basin"
    if found[-1].is_done:  # the basins are known
        of = "all ingredients" if len(main) == len(names) else f"{of} ({len(main)})"
    found.append(_soup(overview, "uniform", f"Build the uniform soup of {of}", main))
    found.append(_soup(overview, "greedy", "Build the greedy soup of all ingredients", names))
    if _is_learned_cheap(overview, main):
        found.append(_soup(overview, "learned", f"Build the learned soup of {of}", main))
    if task.why_no_kept_outputs is None:
        call = GreedyEnsembleScores(names)
        is_done = call.result(overview.context) is not None
        title = "Score the greedy ensemble"
        found.append(Step("ensemble", title, call, 0, is_done))
    if overview.report is None and len(names) > 1:
        bias = Optimism(names, GREEDY)
        is_done = bias.result(overview.context) is not None
        trials = 0 if is_done else _HALVES * (len(names) - 1) * len(task.split(task.select))
        title = "Cross-fit greedy, as there is no test split"
        found.append(Step("bias", title, bias, trials, is_done))
    distances = _distances(overview)
    if distances.is_done or _nbytes(overview.sweep) <= _LARGEST_WEIGHTS:
        found.append(distances)
    return found


@dataclass(frozen=True)
class Analysis(Call):
    """All steps of the analysis that are not done yet.

    The intermediate and final result of the job is `{"steps": [{"title", "state", "failure"}, …]}`.
    If the recipe or the task does not allow a soup, the reason is stored, and the other steps
    continue.
    """

    kind = "analyze"
    is_shared = True

    def code(self, context: Context) -> Code:
        """Return Python that runs the same steps and makes the `verdict`."""
        return Code(
            f"context = Context(sweep, evaluator, {context.folder!r}, {context.task_spec!r})\n"
            "Analysis().work(context, lambda done, total, partial=None: None)\n"
            "verdict = Overview.of(context).verdict\n",
            (
                "from soupcore.plan import Analysis",
                "from soupcore.calls import Context",
                "from soupcore.overview import Overview",
            ),
        )

    def work(self, context: Context, report: Report) -> Result:
        """Do the steps in order."""
        plan = steps(Overview.of(context))
        total = max(1, sum(step.examples for step in plan if not step.is_done))
        done = 0
        # The steps change: the main basin decides whether there is a learned soup.
        for index in count():
            known = Overview.of(context)
            plan = steps(known)
            if index >= len(plan):
                break
            step = plan[index]
            if step.is_done:
                continue
            length = min(step.examples, total - done)
            of_step = _StepReport(report, done, length, total, {"steps": _states(plan, index)})
            of_step(0, 1)
            _run(known, step, of_step)
            done += length
        return {"steps": _states(plan, len(plan))}

    def share(self, context: Context, report: Report) -> None:
        """Evaluate checkpoints and lines; the worker of the job runs the other steps."""
        done: list[Step] = []
        while True:
            left = [step for step in steps(Overview.of(context)) if not step.is_done]
            if not left or left[0].is_soup or left[0].name == "distances" or left[0] in done:
                return
            left[0].call.share(context, report)
            done.append(left[0])


@dataclass(frozen=True)
class TimedPasses(Call):
    """Evaluations of some ingredients on a part of the select split, to estimate durations.

    The first pass takes longer than the others, which reuse the loaded network.
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
            evaluator.evaluate(point, select, on_progress=part_of(report, index, len(some)))
        return {}


def price(overview: Overview, wanted: Iterable[Step]) -> float | None:
    """Estimate the duration of steps from the passes so far.

    Returns:
        Seconds; None before the first pass.
    """
    wanted = list(wanted)
    of_passes = seconds(overview, sum(step.examples for step in wanted))
    return None if of_passes is None else of_passes + sum(step.seconds for step in wanted)


def seconds(overview: Overview, examples: int) -> float | None:
    """Estimate the duration of passes over a number of examples from the passes so far.

    Returns:
        Seconds; None before the first pass.
    """
    points = [each.mixture for each in overview.sweep.ingredients.values()]
    known = [found for by_split in overview.runs.values() for found in by_split.values() if found]
    if not known and overview.context.task.has_examples:
        part = overview.context.task.part(overview.context.task.select, PART)
        known = [found for found in overview.context.evaluations.stored(points, part) if found]
    # Points with the same weights share one pass; its time is 0 for all but one of them.
    paces = [found.seconds / found.n for found in known if found.seconds > 0 and found.n]
    return _OVERHEAD * median(paces) * examples if paces else None


def seconds_of_geometry(sweep: Sweep) -> float:
    """Estimate the seconds that measuring angles and distances takes on a slow machine."""
    _, checkpoints = reference_and_checkpoints(sweep)
    return _nbytes(sweep) / _READ + comb(len(checkpoints) + 1, 2) / _STORED


def _nbytes(sweep: Sweep) -> int:
    """Return the size of all weights of a sweep in bytes; all checkpoints have the same shapes."""
    reference, checkpoints = reference_and_checkpoints(sweep)
    return (len(checkpoints) + 1) * sum(info.nbytes for info in reference.tensors.values())


def _evaluations(overview: Overview) -> Step:
    task = overview.context.task
    missing = sum(
        len(task.split(split))
        for by_split in overview.runs.values()
        for split, found in by_split.items()
        if found is None
    )
    checkpoints = counted(len(overview.runs), "checkpoint")
    title = f"Evaluate {checkpoints} on {counted(len(task.reported), 'split')}"
    call = IngredientScores(tuple(overview.runs), tuple(task.reported))
    return Step("evaluate", title, call, missing, missing == 0)


def _pairs(overview: Overview) -> Step:
    task, names = overview.context.task, overview.names
    wanted, pairs = _wanted(overview), overview.pairs
    settled = np.zeros((len(names), len(names)), dtype=bool)
    a, b = pairs.pairs[pairs.settled].T
    settled[a, b] = settled[b, a] = True
    at = {name: index for index, name in enumerate(names)}
    missing = [(one, other) for one, other in wanted if not settled[at[one], at[other]]]
    part = overview.screen
    call = Paths(pairs=tuple(missing), alphas="adaptive", splits=(task.select,), part=part)
    n = part or len(task.split(task.select))
    every = len(wanted) == comb(len(names), 2)
    which = f"all {len(wanted):,} pairs" if every else f"{len(wanted):,} pairs with the best run"
    which = which if len(wanted) != 1 else "the only pair"
    on = f" on {n:,} examples" if task.has_examples else ""
    title = f"Screen {which} for barriers{on}"
    return Step("pairs", title, call, EVALUATIONS_PER_LINE * n * len(missing), not missing)


def _wanted(overview: Overview) -> list[Pair]:
    """Return the pairs to screen: all, or those with the best ingredient if there are many."""
    names = overview.names
    if len(names) <= _ALL_PAIRS:
        return [*combinations(names, 2)]
    hub = overview.best or names[0]
    return [(hub, name) for name in names if name != hub]


def _main_basin(overview: Overview) -> Sequence[str]:
    """Return the ingredients of the largest basin; all of them if none has two."""
    largest = overview.basins[0].names if len(overview.pairs) else ()
    return largest if len(largest) > 1 else overview.names


def _soup(overview: Overview, recipe: str, title: str, names: Sequence[str]) -> Step:
    """Return the step that builds a soup; it is done if the soup is stored with all its scores."""
    task, k = overview.context.task, len(names)
    parameters = RECIPES[recipe].check({})
    call = RecipeSoup(recipe, tuple(names), parameters)
    on_select = len(task.split(task.select))
    trials = RECIPES[recipe].trials(k, parameters) * on_select
    if recipe == "learned":
        trials *= _DESCENT
    step = Step(recipe, title, call, 0, is_done=False)
    row = overview.context.evaluations.store.result(step.key(overview))
    known = row.body if row is not None else {}
    scored = overview.of_soups.get(known.get("soup", ""), {})
    is_done = "why_none" in known or (bool(scored) and None not in scored.values())
    final = sum(len(task.split(split)) for split in task.reported)
    examples = 0 if is_done else trials + final
    return replace(step, examples=examples, is_done=is_done, failure=known.get("why_none", ""))


def _distances(overview: Overview) -> Step:
    """Return the step that measures the weights.

    It is done if the inner products of all pairs are stored. They are counted and not read, since
    reading them takes long in a large sweep.
    """
    sweep = overview.sweep
    reference, checkpoints = reference_and_checkpoints(sweep)
    digests = {each.digest for each in (reference, *checkpoints)}
    known = overview.context.store.count_inner_products(reference.digest, [*digests])
    is_done = known == comb(len(digests) + 1, 2)
    took = 0.0 if is_done else seconds_of_geometry(sweep)
    title = "Measure the distances between the weights"
    return Step("distances", title, WeightGeometry(), 0, is_done, seconds=took)


def _is_learned_cheap(overview: Overview, names: Sequence[str]) -> bool:
    task = overview.context.task
    tensors = next(iter(overview.sweep.ingredients.values())).checkpoint.tensors
    numbers = len(names) * sum(info.numel for info in tensors.values())
    return (
        task.is_classification
        and len(names) > 1
        and numbers <= _LEARNED_NUMBERS
        and len(task.split(task.select)) <= _LEARNED_EXAMPLES
    )


@dataclass(frozen=True)
class _StepReport:
    """Reports the progress of a step as that of the analysis, without its intermediate results.

    Attributes:
        report: Reports the progress of the analysis.
        before: Examples done before the step.
        length: Examples of the step.
        total: Examples of the analysis.
        partial: Intermediate result of the analysis.
    """

    report: Report
    before: int
    length: int
    total: int
    partial: Result

    def __call__(self, done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        self.report(self.before + self.length * done // max(total, 1), self.total, self.partial)


def _run(known: Overview, step: Step, report: Report) -> None:
    """Run a step. If it is a soup, store its id, or the reason why there is none."""
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


def _states(plan: list[Step], running: int) -> list[dict[str, str]]:
    """Return the titles and states of the steps, as in the result of the job."""
    states = [
        "done" if step.is_done else "running" if index == running else "waiting"
        for index, step in enumerate(plan)
    ]
    return [
        {"title": step.title, "state": state, "failure": step.failure}
        for step, state in zip(plan, states, strict=True)
    ]
