"""Long computations whose results are stored.

A call is a computation with its arguments, as JSON. A worker runs it and stores the result under a
key that covers the weights, the task, the data and the arguments. A page makes the same call to
read the result, and computes nothing.
"""

import hashlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, ClassVar, Self

from soupcore.analysis import (
    calibration,
    cross_fit_greedy,
    ensemble,
    ensemble_outputs,
    fit_temperature,
    greedy_ensemble,
    leave_one_out,
    pair_ensembles,
    shapley_values,
    soup_vs_ensemble,
)
from soupcore.analysis.optimism import cross_fit_evaluations
from soupcore.analysis.soup_vs_ensemble import theory_points
from soupcore.errors import TaskError
from soupcore.evaluation import Evaluation, Evaluations, Evaluator
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, part
from soupcore.recipes import RECIPES, Number, Parts, Soup, curve, greedy_orders
from soupcore.stored_soups import StoredSoups
from soupcore.sweeps import Sweep, TensorRule
from soupcore.tasks import Task, TaskInfo

Result = dict[str, Any]
Keep = Callable[[Result], None]

_KEEP_EVERY = 1.0  # seconds between two writes of a result that grows


@dataclass(frozen=True)
class Context:
    """A sweep and the evaluations of a task on it.

    Attributes:
        sweep: The sweep; soups of the store may be among its ingredients.
        evaluations: The evaluations of a task; an `Evaluator` to run calls.
    """

    sweep: Sweep
    evaluations: Evaluations

    @property
    def evaluator(self) -> Evaluator:
        """The evaluations, as an evaluator.

        Raises:
            TypeError: They can only be read.
        """
        if not isinstance(self.evaluations, Evaluator):
            raise TypeError("A call is run with an Evaluator.")
        return self.evaluations

    @property
    def task(self) -> TaskInfo[Any]:
        """The task, or its description."""
        return self.evaluations.task

    @cached_property
    def soups(self) -> StoredSoups:
        """The soups of the store that can be made of the sweep."""
        return StoredSoups(self.evaluations.store, self.sweep)

    def mixtures(self, names: Iterable[str]) -> list[Mixture]:
        """Return where ingredients lie, with the tensors that take part in recipes.

        Raises:
            SweepError: There is no such ingredient.
        """
        named = list(names)
        sweep = self.sweep.for_recipe(named, uses_base=False)
        return [sweep[name].mixture for name in named]


@dataclass(frozen=True)
class Call(ABC):
    """A long computation and its arguments, all of them JSON."""

    #: What jobs and results of the computation are called.
    kind: ClassVar[str]

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Self:
        """Make a call of a job's request, which may say more than the arguments."""
        told = {name: request[name] for name in cls.__dataclass_fields__ if name in request}
        return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in told.items()})

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments, as JSON has them."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return found

    @abstractmethod
    def points(self, context: Context) -> list[Mixture]:
        """Return the points that the result depends on."""

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the splits that the result depends on; by default, all that results are for."""
        return task.reported

    @abstractmethod
    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Compute the result.

        Args:
            context: The sweep and an evaluator.
            on_progress: Called with units done and in all; raise in it to stop.
            keep: Called with the result so far, if it grows.
        """

    def key(self, context: Context) -> str:
        """Return the identity of the result: 64 hex digits."""
        evaluations = context.evaluations
        estimate = evaluations.estimate
        told = [
            self.kind,
            self.arguments,
            [point.key for point in self.points(context)],
            context.task.key,
            [context.task.split(name).digest for name in self.split_names(context.task)],
            estimate.key if estimate else "",
        ]
        if context.sweep.rule != TensorRule():
            told.append(context.sweep.rule.to_json())
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def result(self, context: Context) -> Result | None:
        """Return the complete result; None if it has not been computed."""
        row = context.evaluations.store.result(self.key(context))
        return row.body if row is not None and row.settled else None

    def known(self, context: Context) -> Result | None:
        """Return the result so far, complete or not; None if there is none."""
        row = context.evaluations.store.result(self.key(context))
        return row.body if row is not None else None

    def run_and_keep(self, context: Context, on_progress: Progress) -> Result:
        """Compute the result and keep it in the store, parts of it as they come."""
        store, key = context.evaluations.store, self.key(context)
        kept = 0.0

        def keep(so_far: Result) -> None:
            nonlocal kept
            if time.monotonic() - kept >= _KEEP_EVERY:
                store.add_result(key, self.kind, so_far, settled=False)
                kept = time.monotonic()

        found = self.run(context, on_progress, keep)
        store.add_result(key, self.kind, found)
        return found


@dataclass(frozen=True)
class OfIngredients(Call):
    """A call about some ingredients of the sweep."""

    names: tuple[str, ...]

    def points(self, context: Context) -> list[Mixture]:
        """Return the ingredients."""
        return context.mixtures(self.names)


@dataclass(frozen=True)
class EnsembleScores(OfIngredients):
    """The scores of the ensemble of some ingredients, on each split that results are shown on.

    The result is `{"scores": {split: score}}`.
    """

    kind = "ensemble"

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Average the members' outputs, evaluating those that were not kept."""
        return {"scores": _ensemble_scores(context, self.names, on_progress)}


@dataclass(frozen=True)
class GreedyEnsembleScores(OfIngredients):
    """The members of the greedy ensemble of some ingredients, and its scores.

    The result is `{"members": names, "scores": {split: score}}`, or `{"why_none": sentence}`.
    """

    kind = "greedy ensemble"

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Choose members on the select split, evaluating those whose outputs were not kept."""
        evaluator, points = context.evaluator, self.points(context)
        evaluator.evaluate_all(points, context.task.select, on_progress=part(on_progress, 0, 2))
        try:
            chosen = greedy_ensemble(evaluator, dict(zip(self.names, points, strict=True)))
        except TaskError as error:  # undefined scores choose nothing
            return {"why_none": str(error)}
        if chosen is None:
            raise RuntimeError("outputs that were just computed are not in the store")
        scores = _ensemble_scores(context, chosen.members, part(on_progress, 1, 2))
        return {"members": list(chosen.members), "scores": scores}


def _ensemble_scores(
    context: Context, names: Sequence[str], on_progress: Progress
) -> dict[str, float | None]:
    """Return the score of an ensemble on each split; None where it is undefined."""
    evaluator, members = context.evaluator, context.mixtures(names)
    found: dict[str, float | None] = {}
    splits = context.task.reported
    for index, split in enumerate(splits):
        evaluator.evaluate_all(members, split, on_progress=part(on_progress, index, len(splits)))
        scored = ensemble(evaluator, members, split)
        found[split] = _number(math.nan if scored is None else scored.score)
    return found


@dataclass(frozen=True)
class TwoModelEnsembles(OfIngredients):
    """The score of the ensemble of each pair of ingredients on a split.

    The result is `{"pairs": [[a, b, score], …]}`.
    """

    kind = "two-model ensembles"
    split: str

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the split."""
        return [self.split]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Average the outputs of both, evaluating ingredients whose outputs were not kept."""
        evaluator, points = context.evaluator, self.points(context)
        evaluator.evaluate_all(points, self.split, on_progress=part(on_progress, 0, 2))
        count = math.comb(len(points), 2)
        found: list[list[Any]] = []
        for a, b, both in pair_ensembles(evaluator, points, self.split):
            found.append([self.names[a], self.names[b], _number(both.score)])
            part(on_progress, 1, 2)(len(found), count)
        return {"pairs": found}


@dataclass(frozen=True)
class TwoModelTheory(OfIngredients):
    """The predicted and the actual gap between the two-model soup and ensemble of each pair.

    The result is `{"pairs": [[a, b, {…}], …]}` with the terms of `SoupVsEnsemble`.
    """

    kind = "two-model theory"
    split: str

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the split."""
        return [self.split]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Compare the soup of each pair with the ensemble of both."""
        evaluator = context.evaluator
        ends = dict(zip(self.names, self.points(context), strict=True))
        pairs = list(combinations(self.names, 2))
        needed = [point for a, b in pairs for point in theory_points(ends[a], ends[b])]
        evaluator.evaluate_all(needed, self.split, on_progress=part(on_progress, 0, 2))
        found: list[list[Any]] = []
        for a, b in pairs:
            terms = soup_vs_ensemble(evaluator, ends[a], ends[b], split=self.split)
            row = {
                "predicted": _number(terms.predicted_gap),
                "gap": _number(terms.gap),
                "β": _number(terms.beta),
                "curvature": _number(terms.curvature),
                "variance": _number(terms.variance),
            }
            found.append([a, b, row])
            part(on_progress, 1, 2)(len(found), len(pairs))
            keep({"pairs": found})
        return {"pairs": found}


@dataclass(frozen=True)
class Calibrations(Call):
    """Confidence against accuracy of a soup, of ingredients, and of the ensemble of the soup's.

    The result is `{"soup": both, "ensemble": both, "ingredients": {name: both}}`. Each `both` has
    the calibration `before` and `after` a temperature that was fitted on the select split (see
    `soupcore.analysis.Calibration.to_json`); or it is `{"why_none": sentence}`.
    """

    kind = "calibration"
    soup: str
    names: tuple[str, ...]
    split: str

    def points(self, context: Context) -> list[Mixture]:
        """Return the soup, its ingredients, and the others."""
        stored = context.soups[self.soup]
        members = [stored.sweep[name].mixture for name in stored.soup.ingredients]
        return [stored.soup.mixture, *members, *context.mixtures(self.names)]

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the select split and the one to look at."""
        return [task.select, self.split]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Evaluate those whose outputs were not kept, and calibrate all of them."""
        evaluator, task = context.evaluator, context.evaluator.task
        stored = context.soups[self.soup]
        splits = list(dict.fromkeys(self.split_names(task)))
        for index, split in enumerate(splits):
            progress = part(on_progress, index, len(splits) + 1)
            evaluator.evaluate_all(self.points(context), split, on_progress=progress)
        targets = {split: task.split(split).targets.cpu() for split in splits}

        def both(members: Sequence[Mixture]) -> Result:
            outputs = {split: ensemble_outputs(evaluator, members, split) for split in splits}
            on_select, there = outputs[task.select], outputs[self.split]
            if on_select is None or there is None:
                raise RuntimeError("outputs that were just computed are not in the store")
            try:
                temperature = fit_temperature(on_select, targets[task.select])
                return {
                    "before": calibration(there, targets[self.split]).to_json(),
                    "after": calibration(
                        there, targets[self.split], temperature=temperature
                    ).to_json(),
                }
            except TaskError as error:
                return {"why_none": str(error)}

        found: Result = {
            "soup": both([stored.soup.mixture]),
            "ensemble": both([stored.sweep[name].mixture for name in stored.soup.ingredients]),
            "ingredients": {},
        }
        for index, (name, point) in enumerate(
            zip(self.names, context.mixtures(self.names), strict=True), start=1
        ):
            found["ingredients"][name] = both([point])
            part(on_progress, len(splits), len(splits) + 1)(index, len(self.names))
        return found


@dataclass(frozen=True)
class Attribution(Call):
    """Which ingredients a soup owes its score on a split to.

    The result is `{"without": {name: score}, "shapley": {name: [value, standard error]}}`.
    """

    kind = "attribution"
    soup: str
    split: str

    def points(self, context: Context) -> list[Mixture]:
        """Return the soup and what it is made of; its recipe is in its id."""
        soup = context.soups[self.soup].soup
        return [soup.mixture, *(source.mixture for source in soup.sources.values())]

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the split."""
        return [self.split]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Evaluate soups of fewer ingredients."""
        stored = context.soups[self.soup]
        evaluator = context.evaluator.with_estimate(stored.soup.estimate)
        parts = Parts(stored.sweep, stored.soup)
        without = leave_one_out(evaluator, parts, self.split, on_progress=part(on_progress, 0, 2))
        shares = shapley_values(evaluator, parts, self.split, on_progress=part(on_progress, 1, 2))
        shapley = {name: [share.value, share.standard_error] for name, share in shares.items()}
        return {"without": without, "shapley": shapley}


@dataclass(frozen=True)
class Optimism(OfIngredients):
    """By how much choosing with greedy inflates scores (see `cross_fit_greedy`).

    The result has the fields of `soupcore.analysis.CrossFitGreedy`.
    """

    kind = "optimism"
    parameters: Mapping[str, Any]

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the select split."""
        return [task.select]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Follow greedy on halves of the select split."""
        points = dict(zip(self.names, self.points(context), strict=True))
        told = _greedy_parameters(self.parameters)
        return asdict(cross_fit_greedy(context.evaluator, points, **told, on_progress=on_progress))


@dataclass(frozen=True)
class GreedyOrders(OfIngredients):
    """The scores of greedy soups in several random orders.

    The result is `{"scores": {split: [score of each order]}}`.
    """

    kind = "orders"
    parameters: Mapping[str, Any]
    seeds: int

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Follow greedy once for each seed, and evaluate the soups."""
        found = greedy_orders(
            context.sweep,
            context.evaluator,
            self.names,
            seeds=range(self.seeds),
            on_progress=part(on_progress, 0, 2),
            **_greedy_parameters(self.parameters),
        )
        for index, soup in enumerate(found.soups):
            progress = part(part(on_progress, 1, 2), index, len(found.soups))
            soup.evaluate(context.evaluator, on_progress=progress)
        return {"scores": {split: found.scores(split) for split in context.task.reported}}


@dataclass(frozen=True)
class ParameterCurve(Call):
    """The scores of a recipe's soups with one parameter at several values.

    The soups are not kept, their evaluations are: making the one that is picked costs none.

    The result is `{"points": [{"value", "soup", "scores"}, …], "split", "best", "cross_fit"}`.
    There `cross_fit` has the mean scores `promised` and `delivered` by choosing the best value, or
    is None where these are not known; while the result grows, it has `points` only.
    """

    kind = "curve"
    recipe: str
    parameter: str
    names: tuple[str, ...]
    values: tuple[float, ...]
    parameters: Mapping[str, Any]

    @classmethod
    def of_soup(cls, soup: Soup, number: Number, names: Sequence[str]) -> Self:
        """Return the call whose curve over a parameter a soup is a point of."""
        others = {
            each.name: soup.parameters[each.name]
            for each in RECIPES[soup.recipe].parameters
            if each.name != number.name
        }
        return cls(soup.recipe, number.name, tuple(names), number.curve, others)

    def points(self, context: Context) -> list[Mixture]:
        """Return the ingredients, and the base where the sweep has one."""
        base = context.sweep.base
        return [*context.mixtures(self.names), *([base.mixture] if base is not None else [])]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Follow the recipe at each value, and evaluate the soups."""
        points: list[Result] = []

        def on_point(value: float, soup: Soup) -> None:
            points.append({"value": value, "soup": soup.id, "scores": soup.to_json()["scores"]})
            keep({"points": points})

        drawn = curve(
            self.recipe,
            self.parameter,
            context.sweep,
            context.evaluator,
            self.names,
            values=self.values,
            splits=self.split_names(context.task),
            on_progress=on_progress,
            on_point=on_point,
            **self.parameters,
        )
        best = drawn.values[drawn.soups.index(drawn.best)]
        found = [soup.evaluations[drawn.split] for soup in drawn.soups]
        return {
            "points": points,
            "split": drawn.split,
            "best": best,
            "cross_fit": _cross_fit(found, context.evaluator.task),
        }


@dataclass(frozen=True)
class BestIngredientBias(OfIngredients):
    """By how much picking the best of some ingredients inflates its score on the select split.

    The result has the fields of `soupcore.analysis.CrossFit`, or is `{"why_none": sentence}`.
    """

    kind = "best ingredient bias"

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the select split."""
        return [task.select]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Cross-fit the choice of the best, evaluating ingredients that are not known."""
        select = context.task.select
        found = context.evaluator.evaluate_all(
            self.points(context), select, on_progress=on_progress
        )
        try:
            estimate = cross_fit_evaluations(context.evaluator.task, found, ties_by_loss=False)
        except TaskError as error:
            return {"why_none": str(error)}
        if not math.isfinite(estimate.promised + estimate.delivered):
            return {"why_none": "Scores are undefined in some halves of the examples."}
        return asdict(estimate)


def _cross_fit(points: Sequence[Evaluation], task: Task) -> dict[str, float] | None:
    """Return the scores promised and delivered by the best; None where they are not known."""
    if points[0].n < 2:
        return None
    found = cross_fit_evaluations(task, points)
    # All of them failed then, or have no score in a half, which JSON has no word for.
    if not math.isfinite(found.promised + found.delivered):
        return None
    return {"promised": found.promised, "delivered": found.delivered}


def _greedy_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: parameters[name] for name in ("accept", "metric")}


def _number(value: float) -> float | None:
    """Return a number as JSON has it, which has no NaN and no infinity."""
    return value if math.isfinite(value) else None


CALLS: dict[str, type[Call]] = {
    call.kind: call
    for call in (
        EnsembleScores,
        GreedyEnsembleScores,
        TwoModelEnsembles,
        TwoModelTheory,
        Calibrations,
        BestIngredientBias,
        Attribution,
        Optimism,
        GreedyOrders,
        ParameterCurve,
    )
}
