"""Calls whose results are evaluations, soups of the store, or their files."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from soupcore.calls.base import Call, Context, Report, Result
from soupcore.errors import RecipeError
from soupcore.progress import part
from soupcore.provenance import base_models_of, model_card, write_hub_folder
from soupcore.recipes import RECIPES, Pass, Recipe, Soup, Step, manual, other_statistics_of
from soupcore.workspace import private_folder
from soupcore.writers.forms import Form

_HASHED_AT_ONCE = 1 << 20  # bytes


@dataclass(frozen=True)
class IngredientScores(Call):
    """The evaluations of ingredients on splits."""

    kind = "evaluate"
    names: tuple[str, ...]
    splits: tuple[str, ...]

    def work(self, context: Context, report: Report) -> Result:
        """Evaluate split by split, so that the first column of the table fills first."""
        points = context.mixtures(self.names)
        for index, split in enumerate(self.splits):
            progress = part(report, index, len(self.splits))
            context.evaluator.evaluate_all(points, split, on_progress=progress)
        return {"evaluations": len(points) * len(self.splits)}


@dataclass(frozen=True)
class RecipeSoup(Call):
    """The soup of a recipe, and its evaluations on every split; without a task, only the soup.

    The job tells `{"soup": id, "other": id or None}`. The other soup has the other BatchNorm
    statistics, where the network has any. While it runs, it tells the `trace` or the `passes`.
    """

    kind = "soup"
    recipe: str
    names: tuple[str, ...]
    parameters: Mapping[str, Any]

    def work(self, context: Context, report: Report) -> Result:
        """Follow the recipe, evaluate the soup on every split, and keep it."""
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
        # Kept before it is evaluated on every split: a cancel then, or in a recipe that gives the
        # best so far, keeps what was found.
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

    @property
    def _recipe(self) -> Recipe:
        recipe = RECIPES.get(self.recipe)
        if recipe is None:
            raise RecipeError(f"There is no recipe {self.recipe!r}.")
        return recipe


@dataclass(frozen=True)
class SoupScores(Call):
    """The evaluations of a soup of the store on every split. The job tells `{"soup": id}`."""

    kind = "scores"
    soup: str

    def work(self, context: Context, report: Report) -> Result:
        """Evaluate the soup on the splits that were cut off before, and keep the scores."""
        stored = context.soups[self.soup]
        evaluator = context.evaluator.with_statistics("averaged")
        stored.soup.evaluate(evaluator, on_progress=report)
        return {"soup": context.keep_soup(stored.soup, stored.offered)}


@dataclass(frozen=True)
class OtherStatistics(Call):
    """A soup of the store with its other BatchNorm statistics. The job tells `{"soup": id}`."""

    kind = "statistics"
    soup: str

    def work(self, context: Context, report: Report) -> Result:
        """Make the other soup, evaluate it and keep it."""
        stored = context.soups[self.soup]
        soup = other_statistics_of(stored.soup, context.evaluator)
        if soup is None:
            raise RecipeError("The network has no BatchNorm, or the task no training data.")
        soup.evaluate(context.evaluator.with_statistics("averaged"), on_progress=report)
        return {"soup": context.keep_soup(soup, stored.offered)}


@dataclass(frozen=True)
class ByHand(Call):
    """A call about coefficients that a user chose, exact fractions as text by name."""

    coefficients: Mapping[str, str]
    splits: tuple[str, ...]

    @classmethod
    def of(
        cls, coefficients: Mapping[str, Fraction], splits: Sequence[str], **more: Any
    ) -> "ByHand":
        """Return the call for coefficients."""
        return cls({name: str(c) for name, c in coefficients.items()}, tuple(splits), **more)

    def made(self, context: Context) -> Soup:
        """Return the soup of the coefficients."""
        return manual(context.sweep, {name: Fraction(c) for name, c in self.coefficients.items()})


@dataclass(frozen=True)
class ManualSoup(ByHand):
    """A soup of given coefficients and its evaluations, and the soup itself if it is to be kept.

    Without a task there are no evaluations.

    The job tells `{"soup": id or None}`.
    """

    kind = "mixture"
    keep: bool

    def work(self, context: Context, report: Report) -> Result:
        """Evaluate the soup, and keep it where asked to."""
        soup = self.made(context)
        if context.has_task:
            soup.evaluate(context.evaluator, self.splits, on_progress=report)
        return {"soup": context.keep_soup(soup, context.offered) if self.keep else None}


@dataclass(frozen=True)
class Preview(ByHand):
    """The approximate scores of a soup of given coefficients, in bfloat16.

    Nothing is stored. The job tells `{"previews": {split: fields of a Preview}}`, where
    `reference` is the name of the ingredient that the error was measured on.
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


@dataclass(frozen=True)
class SoupFiles(Call):
    """The files of a soup of the store, in a form (see `soupcore.writers.forms.Form`).

    The job tells `{"soup": id, "files": names}`.
    """

    kind = "weights"
    soup: str
    form: Mapping[str, Any]

    def work(self, context: Context, report: Report) -> Result:
        """Write the files into the store's folder, and keep their SHA-256."""
        store, soup = context.store, context.soups[self.soup].soup
        if context.has_task:
            evaluator = context.evaluator.with_statistics("averaged")
            if soup.estimate is not None:
                examples = soup.estimate.examples
                soup.re_estimate(evaluator, examples=examples)
                evaluator = evaluator.with_statistics("re-estimated", examples=examples)
            known = {s: evaluator.stored([soup.mixture], s)[0] for s in evaluator.task.reported}
            soup.evaluations.update({split: found for split, found in known.items() if found})
        form = Form(**self.form)
        total = 2 * form.nbytes(soup)  # written, then read again for the SHA-256
        done = 0

        def on_bytes(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            report(min(done, total), total)

        folder = private_folder(store.soup_folder(soup.id, form.key))
        store.add_soup_files(soup.id, form.key, {})  # whatever is there is about to change
        path = folder / form.file_name(soup)
        if form.as_folder:
            card = model_card(soup, base_models=base_models_of(soup), **_scored_by(context))
            files = write_hub_folder(
                soup, private_folder(path), form.dtype, card=card, on_bytes=on_bytes
            )
        else:
            files = soup.save(path, form.dtype, form.shard_size, on_bytes=on_bytes)
        digests = {file.relative_to(folder).as_posix(): _sha256(file, on_bytes) for file in files}
        store.add_soup_files(soup.id, form.key, digests)
        return {"soup": soup.id, "files": list(digests)}


def _scored_by(context: Context) -> dict[str, Any]:
    """Return what a card tells of the task, if there is one."""
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
