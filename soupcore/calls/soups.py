"""Calls whose results are evaluations or stored soups."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from soupcore.calls.base import Call, OfSoup, Report, Result
from soupcore.calls.code import Code, followed, fractions
from soupcore.calls.context import Context
from soupcore.errors import RecipeError, TaskError
from soupcore.evaluation import Evaluation
from soupcore.mixtures import Mixture
from soupcore.progress import part
from soupcore.recipes import RECIPES, Pass, Recipe, Soup, Step, manual, other_statistics_of


@dataclass(frozen=True)
class IngredientScores(Call):
    """The evaluations of ingredients on splits."""

    kind = "evaluate"
    is_shared = True
    names: tuple[str, ...]
    splits: tuple[str, ...]

    def work(self, context: Context, report: Report) -> Result:
        """Evaluate split by split, which completes the table column by column."""
        points = context.mixtures(self.names)
        for index, split in enumerate(self.splits):
            progress = part(report, index, len(self.splits))
            context.evaluator.evaluate_all(points, split, on_progress=progress)
        return {"evaluations": len(points) * len(self.splits)}

    def result(self, context: Context) -> dict[str, dict[str, Evaluation | None]]:
        """Return the stored evaluations, `{split: {name: evaluation or None}}`."""
        points = context.mixtures(self.names)
        return {
            split: dict(zip(self.names, context.evaluations.stored(points, split), strict=True))
            for split in self.splits
        }

    def code(self, context: Context) -> Code:
        """Return Python for the evaluations by split, as `found`."""
        return Code(
            f"names = {list(self.names)!r}\n"
            "points = [sweep[name].mixture for name in names]\n"
            "found = {\n"
            "    split: dict(zip(names, evaluator.evaluate_all(points, split), strict=True))\n"
            f"    for split in {list(self.splits)!r}\n"
            "}\n"
        )


@dataclass(frozen=True)
class MetricIntervals(Call):
    """The missing intervals of stored evaluations by a chosen primary metric, from their records.

    It covers the ingredients, the base and the soups of the sweep, and needs no forward pass.
    Result of the job: `{"intervals": number}`.
    """

    kind = "intervals"

    def lacking(self, context: Context) -> list[tuple[str, Mixture]]:
        """Return the evaluations that lack an interval: their splits and their points."""
        soups = context.soups.of_task(
            context.folder, context.task_spec, context.evaluations.estimate
        )
        base = [context.sweep.base] if context.sweep.base else []
        points = [each.mixture for each in [*base, *context.sweep.ingredients.values()]]
        points = list(dict.fromkeys([*points, *(stored.soup.mixture for stored in soups)]))
        found = []
        for split in context.task.reported:
            known = context.evaluations.stored(points, split)
            found += [
                (split, point)
                for point, evaluation in zip(points, known, strict=True)
                if evaluation is not None and evaluation.lacks_interval
            ]
        return found

    def work(self, context: Context, report: Report) -> Result:
        """Compute and store the intervals."""
        found = self.lacking(context)
        for index, (split, point) in enumerate(found):
            context.evaluator.evaluate(point, split, on_progress=part(report, index, len(found)))
        return {"intervals": len(found)}

    def code(self, context: Context) -> Code:
        """Return Python for the `intervals` of the ingredients by split and name."""
        return Code(
            "intervals = {}\n"
            "for split in task.reported:\n"
            "    for name, ingredient in sweep.ingredients.items():\n"
            "        found = evaluator.evaluate(ingredient.mixture, split)\n"
            "        intervals[split, name] = found.score_interval\n"
        )


@dataclass(frozen=True)
class RecipeSoup(Call):
    """The soup of a recipe, and its evaluations on every split; without a task, only the soup.

    Result of the job: `{"soup": id, "other": id or None}`. The other soup has the other BatchNorm
    statistics, if the network has any. While the job runs, the result has the `trace` or the
    `passes`.
    """

    kind = "soup"
    is_shared = True
    recipe: str
    names: tuple[str, ...]
    parameters: Mapping[str, Any]

    def share(self, context: Context, report: Report) -> None:
        """Evaluate the single ingredients, if the recipe begins with them."""
        ranks = self._recipe.ranks and self.parameters.get("order") != "random"
        if context.has_task and ranks:
            points = context.mixtures(self.names)
            context.evaluator.evaluate_all(points, context.task.select, on_progress=report)

    def work(self, context: Context, report: Report) -> Result:
        """Run the recipe, evaluate the soup on every split, and store it."""
        evaluator = context.evaluator if context.has_task else None
        known: dict[str, Any] = {}
        stages = 3 if evaluator is not None and evaluator.task.can_re_estimate else 2

        def on_step(steps: Sequence[Step] | Sequence[Pass]) -> None:
            key = "trace" if isinstance(steps[0], Step) else "passes"
            known[key] = [step.to_json() for step in steps]

        def with_trace(done: int, total: int) -> None:
            report(done, total, dict(known))

        soup = self._recipe.follow(
            context.sweep,
            evaluator,
            self.names,
            on_progress=part(with_trace, 0, stages),
            on_step=on_step,
            **self.parameters,
        )
        if evaluator is None:
            return {"soup": context.keep_soup(soup, context.offered), "other": None}
        soup.take_statistics_of(evaluator)
        # Stored before its evaluation, so that cancelling the evaluation does not lose the soup.
        known["soup"] = context.keep_soup(soup, context.offered)
        soup.evaluate(evaluator, on_progress=part(with_trace, 1, stages))
        context.keep_soup(soup, context.offered)
        other = other_statistics_of(soup, evaluator)
        if other is not None:
            other.evaluate(
                evaluator.with_statistics("averaged"), on_progress=part(with_trace, 2, stages)
            )
            context.keep_soup(other, context.offered)
        return {"soup": soup.id, "other": other and other.id}

    def code(self, context: Context) -> Code:
        """Return Python that builds and evaluates the soup, as `soup`."""
        evaluated = "soup.evaluate(evaluator)\n" if context.has_task else ""
        return Code(f"soup = {followed(self.recipe, self.names, self.parameters)}\n{evaluated}")

    @property
    def _recipe(self) -> Recipe:
        recipe = RECIPES.get(self.recipe)
        if recipe is None:
            raise RecipeError(f"There is no recipe {self.recipe!r}.")
        return recipe


@dataclass(frozen=True)
class SeveralSoups(Call):
    """The soups of several recipes, one after the other; see `RecipeSoup`.

    Result of the job, also while it runs: `{"soups": [{"recipe", "soup", "other"}, …]}`, in the
    order of the recipes. If a soup cannot be built, its entry has a `failure`, a sentence, in place
    of the ids, and the others are still built.

    Attributes:
        recipes: `{"recipe": name, "parameters": {name: value}}` of each.
        names: The ingredients.
    """

    kind = "soups"
    is_shared = True
    recipes: tuple[Mapping[str, Any], ...]
    names: tuple[str, ...]

    @property
    def calls(self) -> list[RecipeSoup]:
        """The calls for the soups."""
        return [RecipeSoup(each["recipe"], self.names, each["parameters"]) for each in self.recipes]

    def work(self, context: Context, report: Report) -> Result:
        """Build the soups in order.

        Raises:
            RecipeError: No soup can be built.
        """
        found: list[dict[str, Any]] = []
        for index, call in enumerate(self.calls):
            of_call = _OfCall(report, index, len(self.recipes), found)
            of_call(0, 1)
            try:
                built: Mapping[str, Any] = call.work(context, of_call)
            except (RecipeError, TaskError) as error:
                built = {"failure": str(error)}
            found.append({"recipe": call.recipe, **built})
        if all("failure" in each for each in found):
            raise RecipeError(" ".join(dict.fromkeys(each["failure"] for each in found)))
        return {"soups": found}

    def share(self, context: Context, report: Report) -> None:
        """Evaluate points of the soups, in order; see `RecipeSoup.share`."""
        for call in self.calls:
            call.share(context, report)

    def code(self, context: Context) -> Code:
        """Return Python that builds and evaluates the soups, as `soups` by recipe."""
        pieces = [
            call.code(context) + Code(f"soups[{call.recipe!r}] = soup\n") for call in self.calls
        ]
        return sum(pieces, start=Code("soups = {}\n"))


@dataclass(frozen=True)
class SoupScores(OfSoup):
    """The evaluations of a stored soup on every split. Result of the job: `{"soup": id}`."""

    kind = "scores"

    def work(self, context: Context, report: Report) -> Result:
        """Evaluate the soup on the splits without an evaluation, and store its scores."""
        stored = self.stored(context)
        evaluator = context.evaluator.with_statistics("averaged")
        stored.soup.evaluate(evaluator, on_progress=report)
        return {"soup": context.keep_soup(stored.soup, stored.offered)}

    def code(self, context: Context) -> Code:
        """Return Python that rebuilds and evaluates the soup, as `soup`."""
        return self.soup_code(context) + Code("soup.evaluate(evaluator)\n")


@dataclass(frozen=True)
class OtherStatistics(OfSoup):
    """A stored soup with the other BatchNorm statistics. Result of the job: `{"soup": id}`."""

    kind = "statistics"

    def work(self, context: Context, report: Report) -> Result:
        """Build, evaluate and store the other soup."""
        stored = self.stored(context)
        soup = other_statistics_of(stored.soup, context.evaluator)
        if soup is None:
            raise RecipeError("The network has no BatchNorm, or the task has no training data.")
        soup.evaluate(context.evaluator.with_statistics("averaged"), on_progress=report)
        return {"soup": context.keep_soup(soup, stored.offered)}

    def code(self, context: Context) -> Code:
        """Return Python that builds and evaluates the other soup, as `other`."""
        estimate = self.stored(context).soup.estimate
        estimated = (
            f"soup.re_estimate(evaluator, examples={estimate.examples})\n" if estimate else ""
        )
        return self.soup_code(context) + Code(
            f"{estimated}other = soupcore.other_statistics_of(soup, evaluator)\n"
            'other.evaluate(evaluator.with_statistics("averaged"))\n'
        )


@dataclass(frozen=True)
class ByHand(Call):
    """A call with coefficients chosen by the user: exact fractions as text, by name."""

    coefficients: Mapping[str, str]
    splits: tuple[str, ...]

    @classmethod
    def of(
        cls, coefficients: Mapping[str, Fraction], splits: Sequence[str], **more: Any
    ) -> "ByHand":
        """Return the call for coefficients."""
        return cls({name: str(c) for name, c in coefficients.items()}, tuple(splits), **more)

    def made(self, context: Context) -> Soup:
        """Return the soup with these coefficients."""
        return manual(context.sweep, {name: Fraction(c) for name, c in self.coefficients.items()})

    @property
    def soup_code(self) -> Code:
        """Python that builds the soup, as `soup`."""
        terms = fractions(self.coefficients)
        return Code(f"soup = soupcore.manual(sweep, {terms})\n")


@dataclass(frozen=True)
class ManualSoup(ByHand):
    """The evaluations of a soup with given coefficients; the soup is stored if requested.

    Without a task there are no evaluations.

    Result of the job: `{"soup": id or None}`.
    """

    kind = "mixture"
    keep: bool

    def work(self, context: Context, report: Report) -> Result:
        """Evaluate the soup, and store it if requested."""
        soup = self.made(context)
        if context.has_task:
            soup.evaluate(context.evaluator, self.splits, on_progress=report)
        return {"soup": context.keep_soup(soup, context.offered) if self.keep else None}

    def code(self, context: Context) -> Code:
        """Return Python that builds and evaluates the soup, as `soup`."""
        evaluated = f"soup.evaluate(evaluator, {list(self.splits)!r})\n"
        return self.soup_code + Code(evaluated if context.has_task else "")


@dataclass(frozen=True)
class Preview(ByHand):
    """The approximate scores of a soup with given coefficients, in bfloat16.

    Nothing is stored. Result of the job: `{"previews": {split: fields of a Preview}}`, where
    `reference` is the name of the ingredient used to measure the error.
    """

    kind = "preview"

    def work(self, context: Context, report: Report) -> Result:
        """Evaluate in bfloat16."""
        mixture = self.made(context).mixture
        names = {each.digest: name for name, each in context.sweep.ingredients.items()}
        found = {}
        for index, split in enumerate(self.splits):
            progress = part(report, index, len(self.splits))
            seen = context.evaluator.preview(mixture, split, on_progress=progress)
            found[split] = asdict(seen) | {"reference": names.get(seen.reference, "the base")}
        return {"previews": found}

    def code(self, context: Context) -> Code:
        """Return Python for the previews by split, as `previews`."""
        splits = list(self.splits)
        return self.soup_code + Code(
            "previews = {\n"
            f"    split: evaluator.preview(soup.mixture, split) for split in {splits!r}\n"
            "}\n"
        )


@dataclass(frozen=True)
class _OfCall:
    """The report of one of several calls, including earlier soups."""

    report: Report
    index: int
    count: int
    found: Sequence[Mapping[str, Any]]

    def __call__(self, done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        total = max(total, 1)
        known = {"soups": [*self.found], "running": self.index, **(partial or {})}
        self.report(self.index * total + min(done, total), self.count * total, known)
