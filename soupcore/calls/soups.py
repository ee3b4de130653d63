"""Calls whose results are evaluations, stored soups, or their files."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from soupcore.calls.base import Call, OfSoup, Report, Result
from soupcore.calls.code import Code, followed, fractions, options, source
from soupcore.calls.context import Context
from soupcore.errors import RecipeError
from soupcore.evaluation import Evaluation
from soupcore.mixtures import Mixture
from soupcore.progress import part
from soupcore.provenance import base_models_of, model_card, save_adapter, write_hub_folder
from soupcore.recipes import RECIPES, Pass, Recipe, Soup, Step, manual, other_statistics_of
from soupcore.workspace import private_folder
from soupcore.writers.forms import Form

_HASHED_AT_ONCE = 1 << 20  # bytes


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
            what = "trace" if isinstance(steps[0], Step) else "passes"
            known[what] = [step.to_json() for step in steps]

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
        # Stored before its evaluation on every split, so that cancelling this does not lose the
        # soup.
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
class SoupFiles(OfSoup):
    """The files of a stored soup, in a form (see `soupcore.writers.forms.Form`).

    Result of the job: `{"soup": id, "files": names}`.
    """

    kind = "weights"
    form: Mapping[str, Any]

    def work(self, context: Context, report: Report) -> Result:
        """Write the files into the store's folder, and store their SHA-256."""
        store, soup = context.store, with_known_scores(context, self.stored(context).soup)
        form = Form(**self.form)
        # Bytes written, then read again for the SHA-256. Adapters are small.
        total = 1 if form.as_adapter else 2 * form.nbytes(soup)
        done = 0

        def on_bytes(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            report(min(done, total), total)

        folder = private_folder(store.soup_folder(soup.id, form.key))
        store.add_soup_files(soup.id, form.key, {})  # existing files are about to change
        path = folder / form.file_name(soup)
        if form.as_folder:
            card = card_of(context, soup)
            files = write_hub_folder(
                soup, private_folder(path), form.dtype, card=card, on_bytes=on_bytes
            )
        elif form.as_adapter:
            save_adapter(soup, private_folder(path), form.rank)
            files = [*path.iterdir()]
        else:
            files = soup.save(path, form.dtype, form.shard_size, on_bytes=on_bytes)
        digests = {file.relative_to(folder).as_posix(): _sha256(file, on_bytes) for file in files}
        store.add_soup_files(soup.id, form.key, digests)
        return {"soup": soup.id, "files": list(digests)}

    def script(self, context: Context, *more: Code) -> str:
        """Return a script that rebuilds the weights, without an evaluator; see `Call.script`."""
        return source(sum(more, start=self.code(context)))

    def code(self, context: Context) -> Code:
        """Return Python that rebuilds the exact weights and saves them.

        It does not repeat any selection.
        """
        form = Form(**self.form)
        made = self.soup_again(context)
        settings = {"dtype": form.dtype, "shard_size": form.shard_size, "rank": form.rank}
        given = options({name: value for name, value in settings.items() if value})
        name = form.file_name(self.stored(context).soup)
        if form.as_adapter:
            return made + Code(f"soupcore.save_adapter(soup, {name!r}{given})\n")
        return made + Code(f"soup.save({name!r}{given})\n")

    def soup_again(self, context: Context) -> Code:
        """Return Python that rebuilds the exact weights, as `soup`."""
        soup = self.stored(context).soup
        # `manual` drops ingredients with coefficient 0, but the first ingredient determines the
        # form of the file.
        is_plain = all(soup.coefficients.values()) and soup.coefficients and not soup.fixed
        urls = context.sweep.urls  # may resolve to other files on another machine
        if is_plain and not urls and self._is_of_files(context):
            made = Code(
                f"sweep = {context.sweep_code}\n"
                f"soup = soupcore.manual(sweep, {fractions(soup.coefficients)})\n"
            )
        else:
            made = Code(
                f'manifest = json.loads(Path("{soup.recipe}-{soup.id}.json").read_text())\n'
                f"soup = soupcore.rebuild(manifest{'' if urls else f', {context.folder!r}'})\n",
                ("import json", "from pathlib import Path"),
            )
        if soup.estimate is not None:
            made += Code(
                f"task = soupcore.load_task({context.task_spec!r})\n"
                "evaluator = soupcore.Evaluator(task)\n"
                f"soup.re_estimate(evaluator, examples={soup.estimate.examples})\n"
            )
        return made

    def _is_of_files(self, context: Context) -> bool:
        files = context.sweep.ingredients.keys() - context.included.keys()
        return files >= set(self.stored(context).soup.ingredients)


def with_known_scores(context: Context, soup: Soup) -> Soup:
    """Return a stored soup with its statistics and its stored evaluations."""
    if context.has_task:
        evaluator = context.evaluator.with_statistics("averaged")
        if soup.estimate is not None:
            examples = soup.estimate.examples
            soup.re_estimate(evaluator, examples=examples)
            evaluator = evaluator.with_statistics("re-estimated", examples=examples)
        known = {s: evaluator.stored([soup.mixture], s)[0] for s in evaluator.task.reported}
        soup.evaluations.update({split: found for split, found in known.items() if found})
    return soup


def card_of(context: Context, soup: Soup) -> str:
    """Return the model card of a soup, with the names and the direction of the task's metric."""
    return model_card(soup, base_models=base_models_of(soup), **_scored_by(context))


def _scored_by(context: Context) -> dict[str, Any]:
    """Return the card's information on the task, if there is one."""
    if not context.has_task:
        return {}
    task = context.task
    return {
        "score_name": task.score_name,
        "higher_is_better": task.metric.higher_is_better,
        "select": task.select,
    }


def _sha256(path: Path, on_bytes: Callable[[int], None]) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASHED_AT_ONCE):
            sha.update(block)
            on_bytes(len(block))
    return sha.hexdigest()
