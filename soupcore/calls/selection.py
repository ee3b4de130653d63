"""Calls about selection: its bias, greedy in random orders, and curves over a parameter."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from soupcore.analysis import cross_fit_evaluations, cross_fit_greedy
from soupcore.calls.base import Keep, OfIngredients, Report, Result, StoredCall
from soupcore.calls.code import ANALYSIS, CROSS_FIT_LEARNED, Code, options
from soupcore.calls.context import Context
from soupcore.errors import TaskError
from soupcore.evaluation import Evaluation
from soupcore.mixtures import Mixture
from soupcore.progress import Progress, part
from soupcore.recipes import (
    RECIPES,
    Curve,
    Number,
    Orders,
    Soup,
    cross_fit_learned,
    curve,
    greedy_orders,
)
from soupcore.tasks import Task, TaskInfo


@dataclass(frozen=True)
class Optimism(OfIngredients):
    """The selection bias of greedy (see `cross_fit_greedy`).

    The result has the fields of `soupcore.analysis.GreedyCrossFit`.
    """

    kind = "optimism"
    parameters: Mapping[str, Any]

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the select split."""
        return [task.select]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Run greedy on halves of the select split."""
        points = dict(zip(self.names, self.points(context), strict=True))
        parameters = _greedy_parameters(self.parameters)
        return asdict(
            cross_fit_greedy(context.evaluator, points, **parameters, on_progress=on_progress)
        )

    def code(self, context: Context) -> Code:
        """Return Python for the estimate, as `found`."""
        arguments = options(_greedy_parameters(self.parameters))
        estimated = f"found = analysis.cross_fit_greedy(evaluator, points{arguments})\n"
        return self.points_code(context) + Code(estimated, (ANALYSIS,))


@dataclass(frozen=True)
class SearchOptimism(OfIngredients):
    """The selection bias of a search by CMA-ES (see `cross_fit_learned`).

    The result has the fields of `soupcore.recipes.SearchCrossFit`.
    """

    kind = "search optimism"
    parameters: Mapping[str, Any]

    @classmethod
    def of_soup(cls, soup: Soup, names: Sequence[str]) -> Self | None:
        """Return the call for a soup; None unless CMA-ES found its coefficients."""
        if soup.recipe != "learned" or soup.parameters.get("optimizer") != "cma":
            return None
        searched = ("per", "space", "evaluations", "seed")
        return cls(tuple(names), {name: soup.parameters[name] for name in searched})

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the select split."""
        return [task.select]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Run the search on halves of the select split."""
        return asdict(
            cross_fit_learned(
                context.sweep,
                context.evaluator,
                self.names,
                on_progress=on_progress,
                **self.parameters,
            )
        )

    def code(self, context: Context) -> Code:
        """Return Python for the estimate, as `found`."""
        names, arguments = list(self.names), options(self.parameters)
        return Code(
            f"found = cross_fit_learned(sweep, evaluator, {names!r}{arguments})\n",
            (CROSS_FIT_LEARNED,),
        )


@dataclass(frozen=True)
class BestIngredientBias(OfIngredients):
    """The selection bias of picking the best ingredient on the select split.

    The result has the fields of `soupcore.analysis.CrossFit`, or is `{"why_none": sentence}`.
    """

    kind = "best ingredient bias"

    def split_names(self, task: TaskInfo[Any]) -> list[str]:
        """Return the select split."""
        return [task.select]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Cross-fit the choice of the best; evaluate ingredients that are not stored."""
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

    def code(self, context: Context) -> Code:
        """Return Python for the estimate, as `bias`."""
        return self.points_code(context) + Code(
            "found = evaluator.evaluate_all(list(points.values()), task.select)\n"
            "bias = analysis.cross_fit_evaluations(task, found, ties_by_loss=False)\n",
            (ANALYSIS,),
        )


@dataclass(frozen=True)
class GreedyOrders(OfIngredients):
    """The scores of greedy soups in several random orders.

    The result is `{"scores": {split: [score of each order]}}`.
    """

    kind = "orders"
    is_shared = True
    parameters: Mapping[str, Any]
    seeds: int

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Run greedy once for each seed, and evaluate the soups."""
        found = self._orders(context, range(self.seeds), part(on_progress, 0, 2))
        for index, soup in enumerate(found.soups):
            progress = part(part(on_progress, 1, 2), index, len(found.soups))
            soup.evaluate(context.evaluator, on_progress=progress)
        return {"scores": {split: found.scores(split) for split in context.task.reported}}

    def share(self, context: Context, report: Report) -> None:
        """Run greedy from the last seed on, while another worker starts at the first."""
        self._orders(context, range(self.seeds)[::-1], report)

    def _orders(self, context: Context, seeds: Sequence[int], on_progress: Progress) -> Orders:
        return greedy_orders(
            context.sweep,
            context.evaluator,
            self.names,
            seeds=seeds,
            on_progress=on_progress,
            **_greedy_parameters(self.parameters),
        )

    def code(self, context: Context) -> Code:
        """Return Python that builds and evaluates the soups, as `orders`."""
        arguments = options(_greedy_parameters(self.parameters))
        return Code(
            "orders = soupcore.greedy_orders(\n"
            f"    sweep, evaluator, {list(self.names)!r}, seeds=range({self.seeds}){arguments}\n"
            ")\n"
            "for soup in orders.soups:\n"
            "    soup.evaluate(evaluator)\n"
        )


@dataclass(frozen=True)
class ParameterCurve(StoredCall):
    """The scores of a recipe's soups with one parameter at several values.

    Evaluations are stored, but not soups: building the picked one needs no evaluation.

    The result is `{"points": [{"value", "soup", "scores"}, …], "split", "best", "cross_fit"}`.
    `cross_fit` has the mean scores `promised` and `delivered` of choosing the best value, or is
    None if these are unknown. A partial result has only `points`.
    """

    kind = "curve"
    is_shared = True
    recipe: str
    parameter: str
    names: tuple[str, ...]
    values: tuple[float, ...]
    parameters: Mapping[str, Any]

    @classmethod
    def of_soup(cls, soup: Soup, number: Number, names: Sequence[str]) -> Self:
        """Return the call for the curve over a parameter that contains a soup."""
        others = {
            each.name: soup.parameters[each.name]
            for each in RECIPES[soup.recipe].parameters
            if each.name != number.name
        }
        return cls(soup.recipe, number.name, tuple(names), number.curve, others)

    def points(self, context: Context) -> list[Mixture]:
        """Return the ingredients, and the base if the sweep has one."""
        base = context.sweep.base
        return [*context.mixtures(self.names), *([base.mixture] if base is not None else [])]

    def run(self, context: Context, on_progress: Progress, keep: Keep) -> Result:
        """Run the recipe at each value, and evaluate the soups."""
        points: list[Result] = []

        def on_point(value: float, soup: Soup) -> None:
            points.append({"value": value, "soup": soup.id, "scores": soup.to_json()["scores"]})
            keep({"points": points})

        drawn = self._curve(context, self.values, on_progress, on_point)
        best = drawn.values[drawn.soups.index(drawn.best)]
        found = [soup.evaluations[drawn.split] for soup in drawn.soups]
        return {
            "points": points,
            "split": drawn.split,
            "best": best,
            "cross_fit": _cross_fit(found, context.evaluator.task),
        }

    def share(self, context: Context, report: Report) -> None:
        """Evaluate from the last value on, while another worker starts at the first."""
        if RECIPES[self.recipe].chooses:
            return  # both workers would run the same search
        self._curve(context, self.values[::-1], report, lambda value, soup: None)

    def _curve(
        self,
        context: Context,
        values: Sequence[float],
        on_progress: Progress,
        on_point: Callable[[float, Soup], None],
    ) -> Curve:
        return curve(
            self.recipe,
            self.parameter,
            context.sweep,
            context.evaluator,
            self.names,
            values=values,
            splits=self.split_names(context.task),
            on_progress=on_progress,
            on_point=on_point,
            **self.parameters,
        )

    def code(self, context: Context) -> Code:
        """Return Python for the curve, as `curve`."""
        parameters = {"values": list(self.values), **self.parameters}
        (number,) = (p for p in RECIPES[self.recipe].parameters if p.name == self.parameter)
        if isinstance(number, Number) and number.curve == self.values:  # the default
            del parameters["values"]
        return Code(
            f"curve = soupcore.curve(\n    {self.recipe!r}, {self.parameter!r}, sweep, evaluator,\n"
            f"    {list(self.names)!r},\n    splits=task.reported{options(parameters)},\n)\n"
        )


def _cross_fit(points: Sequence[Evaluation], task: Task) -> dict[str, float] | None:
    """Return both mean scores of choosing the best; None if they are unknown."""
    if points[0].n < 2:
        return None
    found = cross_fit_evaluations(task, points)
    # NaN cannot be stored as JSON: all points failed, or have no score on a half.
    if not math.isfinite(found.promised + found.delivered):
        return None
    return {"promised": found.promised, "delivered": found.delivered}


def _greedy_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: parameters[name] for name in ("accept", "metric")}
