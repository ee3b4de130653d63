"""Calls that analyse weights as they are: ensembles, theory, calibration, attribution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from soupcore.analysis import (
    calibration,
    ensemble,
    ensemble_outputs,
    fit_temperature,
    greedy_ensemble,
    leave_one_out,
    pair_ensembles,
    shapley_values,
    soup_vs_ensemble,
)
from soupcore.analysis.soup_vs_ensemble import theory_points
from soupcore.calls.base import Context, Keep, OfIngredients, Result, StoredCall
from soupcore.errors import TaskError
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, part
from soupcore.recipes import Parts
from soupcore.tasks import TaskInfo


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
class Calibrations(StoredCall):
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
class Attribution(StoredCall):
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


def _number(value: float) -> float | None:
    """Return a number as JSON has it, which has no NaN and no infinity."""
    return value if math.isfinite(value) else None
