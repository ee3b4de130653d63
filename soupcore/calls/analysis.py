"""Calls that analyse existing weights: ensembles, theory, calibration, attribution."""

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from soupcore.analysis import (
    Share,
    calibrate,
    ensemble_scores,
    greedy_ensemble,
    leave_one_out,
    pair_ensembles,
    shapley_values,
    soup_vs_ensemble,
)
from soupcore.analysis.soup_vs_ensemble import theory_points
from soupcore.calls.base import Keep, OfIngredients, OfSoup, Result, StoredCall
from soupcore.calls.code import ANALYSIS, COMBINATIONS, Code
from soupcore.calls.connectivity import End, named_end, point_of
from soupcore.calls.context import Context
from soupcore.errors import TaskError
from soupcore.evaluation import by_class, by_group
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, part
from soupcore.recipes import Parts
from soupcore.tasks import Shown, TaskInfo

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class EnsembleScores(OfIngredients):
    """The scores of the ensemble of some ingredients, on each reported split.

    The result is `{"scores": {split: score}}`.
    """

    kind = "ensemble"

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Average the members' outputs; evaluate members without stored outputs."""
        scores = ensemble_scores(context.evaluator, self.points(context), on_progress=on_progress)
        return {"scores": _numbers(scores)}

    def code(self, context: Context) -> Code:
        """Return Python for the scores by split, as `scores`."""
        scored = "scores = analysis.ensemble_scores(evaluator, list(points.values()))\n"
        return self.points_code(context) + Code(scored, (ANALYSIS,))


@dataclass(frozen=True)
class GreedyEnsembleScores(OfIngredients):
    """The members of the greedy ensemble of some ingredients, and its scores.

    The result is `{"members": names, "scores": {split: score}}`, or `{"why_none": sentence}`.
    """

    kind = "greedy ensemble"

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Choose members on the select split; evaluate ingredients without stored outputs."""
        evaluator, points = context.evaluator, self.points(context)
        evaluator.evaluate_all(points, context.task.select, on_progress=part(on_progress, 0, 2))
        try:
            chosen = greedy_ensemble(evaluator, dict(zip(self.names, points, strict=True)))
        except TaskError as error:  # undefined scores
            return {"why_none": str(error)}
        if chosen is None:
            raise RuntimeError("outputs that were just computed are not in the store")
        members = context.mixtures(chosen.members)
        scores = ensemble_scores(evaluator, members, on_progress=part(on_progress, 1, 2))
        return {"members": list(chosen.members), "scores": _numbers(scores)}

    def code(self, context: Context) -> Code:
        """Return Python for the ensemble and its scores by split, as `chosen`, `scores`."""
        return self.points_code(context) + Code(
            "evaluator.evaluate_all(list(points.values()), task.select)\n"
            "chosen = soupcore.greedy_ensemble(evaluator, points)\n"
            "members = [points[name] for name in chosen.members]\n"
            "scores = analysis.ensemble_scores(evaluator, members)\n",
            (ANALYSIS,),
        )


@dataclass(frozen=True)
class ShownExamples(StoredCall):
    """Examples of a split for display (see `Task.show`).

    The result is `{"examples": [{"text": …, "shape": …, "pixels": …}, …]}`.
    """

    kind = "shown examples"
    split: str
    indices: tuple[int, ...]

    def points(self, context: Context) -> list[Mixture]:
        """Return no points: examples are the same for all networks."""
        return []

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the split."""
        return [self.split]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Call the task's `show` for each example."""
        found = []
        for done, index in enumerate(self.indices):
            shown = context.evaluator.task.show(self.split, index)
            if not isinstance(shown, Shown):
                raise TaskError(
                    f"`show` of the task {context.task.name!r} returned a {type(shown).__name__}; "
                    "return a soupcore.tasks.Shown."
                )
            found.append(shown.to_json())
            on_progress(done + 1, len(self.indices))
        return {"examples": found}

    def shown(self, context: Context) -> list[Shown] | None:
        """Return the examples; None if they are not stored."""
        found = self.result(context)
        return None if found is None else [Shown.from_json(body) for body in found["examples"]]

    def code(self, context: Context) -> Code:
        """Return Python for the examples, as `examples`."""
        return Code(
            f"examples = [task.show({self.split!r}, index) for index in {list(self.indices)!r}]\n"
        )


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
        """Average the outputs of each pair; evaluate ingredients without stored outputs."""
        evaluator, points = context.evaluator, self.points(context)
        evaluator.evaluate_all(points, self.split, on_progress=part(on_progress, 0, 2))
        count = math.comb(len(points), 2)
        found: list[list[Any]] = []
        for a, b, both in pair_ensembles(evaluator, points, self.split):
            found.append([self.names[a], self.names[b], _number(both.score)])
            part(on_progress, 1, 2)(len(found), count)
        return {"pairs": found}

    def code(self, context: Context) -> Code:
        """Return Python for the scores by pair, as `ensembles`."""
        return self.points_code(context) + Code(
            f"names, ends, split = list(points), list(points.values()), {self.split!r}\n"
            "evaluator.evaluate_all(ends, split)\n"
            "ensembles = {\n"
            "    (names[a], names[b]): both.score\n"
            "    for a, b, both in analysis.pair_ensembles(evaluator, ends, split)\n"
            "}\n",
            (ANALYSIS,),
        )


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
        """Compare the soup and the ensemble of each pair."""
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

    def code(self, context: Context) -> Code:
        """Return Python for the terms by pair, as `terms`."""
        return self.points_code(context) + Code(
            "terms = {\n"
            "    (a, b): soupcore.soup_vs_ensemble(\n"
            f"        evaluator, points[a], points[b], split={self.split!r}\n"
            "    )\n"
            "    for a, b in combinations(points, 2)\n"
            "}\n",
            (COMBINATIONS,),
        )


@dataclass(frozen=True)
class Calibrations(OfSoup, StoredCall):
    """Calibration of a soup, of ingredients, and of the ensemble of the soup's ingredients.

    The result is `{"soup": both, "ensemble": both, "ingredients": {name: both}}`. Each `both` has
    the calibration `before` and `after` temperature scaling on the select split (see
    `soupcore.analysis.Calibration.to_json`); or it is `{"why_none": sentence}`.
    """

    kind = "calibration"
    names: tuple[str, ...]
    split: str

    def points(self, context: Context) -> list[Mixture]:
        """Return the soup, its ingredients, and the other ingredients."""
        stored = context.soups[self.soup]
        members = [stored.sweep[name].mixture for name in stored.soup.ingredients]
        return [stored.soup.mixture, *members, *context.mixtures(self.names)]

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the select split and the reported one."""
        return [task.select, self.split]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Evaluate networks without stored outputs, and calibrate all."""
        evaluator = context.evaluator
        splits = list(dict.fromkeys(self.split_names(context.task)))
        for index, split in enumerate(splits):
            progress = part(on_progress, index, len(splits) + 1)
            evaluator.evaluate_all(self.points(context), split, on_progress=progress)

        def both(members: list[Mixture]) -> Result:
            try:
                before, after = calibrate(evaluator, members, self.split)
            except TaskError as error:
                return {"why_none": str(error)}
            return {"before": before.to_json(), "after": after.to_json()}

        stored = self.stored(context)
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

    def code(self, context: Context) -> Code:
        """Return Python for both calibrations by network, as `found`.

        Its keys are the label of the soup, "ensemble", and the names of the ingredients.
        """
        return self.soup_code(context) + Code(
            "networks = {\n"
            f"    {self.stored(context).label!r}: [soup.mixture],\n"
            '    "ensemble": [sweep[name].mixture for name in soup.ingredients],\n'
            f"    **{{name: [sweep[name].mixture] for name in {list(self.names)!r}}},\n"
            "}\n"
            "found = {\n"
            f"    name: analysis.calibrate(evaluator, members, {self.split!r})\n"
            "    for name, members in networks.items()\n"
            "}\n",
            (ANALYSIS,),
        )


@dataclass(frozen=True)
class Attribution(OfSoup, StoredCall):
    """Contribution of each ingredient to a soup's score on a split.

    The result is `{"without": {name: score}, "shapley": {name: [value, standard error]}}`.
    """

    kind = "attribution"
    split: str

    def points(self, context: Context) -> list[Mixture]:
        """Return the soup and its ingredients; its id covers the recipe."""
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

    def shares(self, context: Context) -> tuple[dict[str, Share], dict[str, float]] | None:
        """Return the Shapley values and the leave-one-out drops; None if not computed."""
        found = self.result(context)
        if found is None:
            return None
        return {name: Share(*each) for name, each in found["shapley"].items()}, found["without"]

    def code(self, context: Context) -> Code:
        """Return Python for both, as `shapley` and `without`."""
        return self.soup_code(context) + Code(
            "parts = soupcore.Parts(sweep, soup)\n"
            f"shapley = analysis.shapley_values(evaluator, parts, {self.split!r})\n"
            f"without = analysis.leave_one_out(evaluator, parts, {self.split!r})\n",
            (ANALYSIS,),
        )


@dataclass(frozen=True)
class Breakdown(StoredCall):
    """The mean score of each class and of each group of examples, of a model on a split.

    The result is `{"score": MetricInfo as JSON, "classes": rows, "groups": rows}`, each row with a
    name, the number of examples, the mean of `Task.score` and both ends of its 95 % interval.
    `classes` is absent if targets are not classes, and `groups` if the split has none.

    Attributes:
        model: The model, as an end of a line (see `soupcore.calls.connectivity`).
        split: The split.
    """

    kind = "breakdown"
    model: End
    split: str

    def points(self, context: Context) -> list[Mixture]:
        """Return the model."""
        return [point_of(context, self.model)]

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the split."""
        return [self.split]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Average the stored scores; evaluate the model if they are missing."""
        evaluator, (point,) = context.evaluator, self.points(context)
        found = evaluator.evaluate(point, self.split, on_progress=on_progress)
        task, split = evaluator.task, evaluator.task.split(self.split)
        has_classes, has_groups = split.classes() is not None, split.groups is not None
        return {
            "score": task.mean_score.to_json(),
            "classes": _rows(by_class(task, found)) if has_classes else [],
            "groups": _rows(by_group(task, found)) if has_groups else [],
        }

    def code(self, context: Context) -> Code:
        """Return Python for the table of classes or, without any, of groups, as `table`."""
        name, end = named_end(context, self.model)
        by = "by_class" if context.task.is_classification else "by_group"
        return Code(
            f"found = evaluator.evaluate({end}{'' if end.endswith('.mixture') else '.mixture'}, "
            f"{self.split!r})  # {name}\n"
            f"table = {by}(task, found)\n",
            (f"from soupcore.evaluation import {by}",),
        )


def by_pair(result: Result) -> dict[tuple[str, str], Any]:
    """Return the results by pair, with NaN for undefined numbers."""

    def number(value: Any) -> Any:
        if isinstance(value, dict):
            return {term: number(each) for term, each in value.items()}
        return math.nan if value is None else value

    return {(a, b): number(value) for a, b, value in result["pairs"]}


def _rows(table: "pd.DataFrame") -> list[list[Any]]:
    return [
        [str(name), int(n), *map(_number, numbers)]
        for name, (n, *numbers) in zip(table.index, table.itertuples(index=False), strict=True)
    ]


def _number(value: float) -> float | None:
    """Return a number for JSON, which has no NaN and no infinity."""
    return value if math.isfinite(value) else None


def _numbers(scores: dict[str, float]) -> dict[str, float | None]:
    return {split: _number(score) for split, score in scores.items()}
