"""Write the tables of the README: parameters of each recipe, and its scores on the sample.

    python -m sample_data.results        (`make results`)

The scores have the columns of Wortsman et al. 2022 (arXiv:2203.05482), Table 3, plus the cost. Each
recipe starts with an empty store, so that its cost does not depend on the others. Everything except
the seconds is reproducible.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from torch import Tensor

import soupcore
from soupcore import RECIPES, Evaluation, Evaluator, Mixture, Store, Sweep
from soupcore.evaluation import UpperBound
from soupcore.progress import Progress, no_progress
from soupcore.recipes import Choice, Number, Parameter, Recipe
from soupcore.tasks import Unit

PROJECT = Path(__file__).parents[1]
SAMPLE = PROJECT / "sample_data" / "digits"
RESULTS = ("<!-- results: written by `make results` -->", "<!-- results: end -->")
DESCRIPTIONS = ("<!-- recipes: written by `make results` -->", "<!-- recipes: end -->")
NONE = "–"
SENSIBLE = 0.02  # the largest learning rate that an expert would keep before seeing any accuracy

Scores = tuple[float, float, float]  # select, report, mean shift


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: The recipe and its parameters.
        of: Number of ingredients in the soup, and number of candidates.
        scores: Formatted scores; empty if the sample has no ingredients for the recipe.
        evaluations: Passes over select.
        seconds: CPU time.
    """

    name: str
    of: str
    scores: tuple[str, ...] = ()
    evaluations: float | None = None
    seconds: float | None = None

    def cells(self) -> list[str]:
        """Return the cells as text."""
        cost = NONE if self.evaluations is None else f"{self.evaluations:.3g}"
        took = NONE if self.seconds is None else f"{self.seconds:.1f}"
        return [self.name, self.of, *(self.scores or [NONE] * 3), cost, took]


class Counting(Evaluator):
    """An evaluator that counts passes over select, including fractions of rejected candidates."""

    count = 0.0

    def evaluate_all(
        self,
        mixtures: Sequence[Mixture],
        split: str,
        *,
        keep_outputs: bool = True,
        on_progress: Progress = no_progress,
        progress: bool = True,
    ) -> list[Evaluation]:
        """Evaluate several points; see `Evaluator.evaluate_all`."""
        if split == self.task.select:
            self.count += len(self.missing(mixtures, split))
        return super().evaluate_all(
            mixtures, split, keep_outputs=keep_outputs, on_progress=on_progress
        )

    def evaluate_or_reject(
        self,
        mixture: Mixture,
        incumbent: Evaluation,
        *,
        strictly: bool = False,
        difficulty: Tensor | None = None,
        on_progress: Progress = no_progress,
    ) -> Evaluation | UpperBound:
        """Evaluate a point unless it scores worse; see `Evaluator.evaluate_or_reject`."""
        is_known = not self.missing([mixture], incumbent.split)
        found = super().evaluate_or_reject(
            mixture,
            incumbent,
            strictly=strictly,
            difficulty=difficulty,
            on_progress=on_progress,
        )
        self.count += 0 if is_known else found.seen / found.n
        return found


class Table:
    """The rows so far, and the sweep and task that they are made with."""

    def __init__(self) -> None:
        self.sweep = Sweep.from_folder(SAMPLE / "sweep")
        self.task = soupcore.load_task(f"{SAMPLE / 'task.py'}:task")
        self.rows: list[Row] = []
        self.all = self.sweep.names()
        self.sensible = [name for name in self.all if self._is_sensible(name)]

    def _is_sensible(self, name: str) -> bool:
        values = self.sweep[name].hyperparameters
        return values["init"] == "base" and float(values["learning_rate"] or 0) <= SENSIBLE

    @contextmanager
    def fresh(self) -> Iterator[Counting]:
        """Provide an evaluator with an empty store."""
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder)
            yield Counting(self.task, store, device="cpu", batch_size=256)
            store.close()

    def scores(self, evaluator: Evaluator, mixture: Mixture) -> Scores:
        """Evaluate a point on select, report and the shifts."""
        return self.summary(lambda split: evaluator.evaluate(mixture, split).score)

    def summary(self, score: Callable[[str], float]) -> Scores:
        """Return the scores on select and report, and the mean over the shifts."""
        (report,), shifts = (
            self.task.splits_with_role("report"),
            self.task.splits_with_role("shift"),
        )
        return score(self.task.select), score(report), mean(score(split) for split in shifts)

    def add(
        self,
        name: str,
        of: str,
        scores: Scores,
        evaluations: float | None = None,
        seconds: float | None = None,
    ) -> None:
        """Add a row and print it, to show progress."""
        self.rows.append(
            Row(name, of, tuple(map(self.task.score_unit.number, scores)), evaluations, seconds)
        )
        print(" | ".join(self.rows[-1].cells()))

    def recipe(
        self,
        recipe: str,
        names: Sequence[str],
        how: str = "",
        *,
        over: str = "",
        best: int | None = None,
        **parameters: Any,
    ) -> None:
        """Run a recipe and add its row.

        Args:
            recipe: Name of the recipe.
            names: Candidate ingredients.
            how: Text after the title.
            over: A parameter to choose by the select score from the values of the paper.
            best: Use only this number of ingredients, the best on select.
            parameters: The other parameters.
        """
        known = RECIPES[recipe]
        with self.fresh() as evaluator:
            started = time.process_time()
            used = names if best is None else self.ranked(evaluator)[:best]
            if over:
                drawn = soupcore.curve(recipe, over, self.sweep, evaluator, used, **parameters)
                soup = drawn.best
                symbol = next(
                    p.symbol for p in known.parameters if isinstance(p, Number) and p.name == over
                )
                how = f"{how}, " * bool(how) + f"{symbol} = {soup.parameters[over]:g}"
            else:
                soup = known.follow(self.sweep, evaluator, used, **parameters)
            soup.state_dict()
            seconds = time.process_time() - started
            evaluations = evaluator.count + len(soup.passes)
            taken = len(soup.ingredients)
            self.add(
                known.title + f", {how}" * bool(how),
                str(taken) if taken == len(names) else f"{taken} of {len(names)}",
                self.scores(evaluator, soup.mixture),
                evaluations,
                seconds,
            )

    def ranked(self, evaluator: Evaluator) -> list[str]:
        """Return all ingredients, sorted by select score, best first."""
        points = [self.sweep[name].mixture for name in self.all]
        found = evaluator.evaluate_all(points, self.task.select)
        scores = dict(zip(self.all, (each.score for each in found), strict=True))
        return sorted(self.all, key=lambda name: -scores[name])


def main() -> None:
    """Make the tables and write them into the README."""
    table = Table()
    _comparators(table)
    _recipes(table)
    _ensembles(table)
    readme = PROJECT / "README.md"
    text = between_markers(readme.read_text(), DESCRIPTIONS, descriptions())
    readme.write_text(between_markers(text, RESULTS, markdown(table.rows)))


def _comparators(table: Table) -> None:
    with table.fresh() as evaluator:
        table.add("The base", NONE, table.scores(evaluator, table.sweep["base"].mixture))
    with table.fresh() as evaluator:
        started = time.process_time()
        best = table.sweep[table.ranked(evaluator)[0]].mixture
        seconds, k = time.process_time() - started, len(table.all)
        scores = table.scores(evaluator, best)
        table.add("Best ingredient", f"1 of {k}", scores, k, seconds)


def _recipes(table: Table) -> None:
    every, sensible = table.all, table.sensible
    table.recipe("uniform", every)
    table.recipe("uniform", sensible)
    table.recipe("greedy", every)
    table.recipe("greedy", every, "accepting > only", accept=">")
    table.recipe("greedy", every, "by loss", metric="loss")
    table.recipe("greedy", every, "with a backward pass", backward=True)
    _random_orders(table)
    table.recipe("learned", every)
    table.recipe("learned", every, "Σα = 1", space="hyperplane")
    table.recipe("learned", every, "by AdamW", optimizer="adamw")
    table.recipe("learned", every, "by layer", per="layer")
    table.recipe("learned", every, "by tensor", per="tensor")
    table.recipe("weighted", every, over="power")
    table.recipe("wise_ft", sensible, over="alpha")
    for snapshots in ("swa", "ema"):  # the sample has no snapshots of one run
        table.rows.append(Row(RECIPES[snapshots].title, NONE))
    table.recipe("task_arithmetic", sensible, over="scale")
    table.recipe("ties", sensible, over="scale")
    table.recipe("ties", sensible, over="density")
    table.recipe("ties", sensible, "trimmed by tensor", over="scale", trim="tensor")
    table.recipe("dare", sensible, over="scale")
    table.recipe("dare", sensible, "with TIES", over="scale", combine="ties")
    table.recipe("model_stock", sensible)
    table.recipe("slerp", every, "the best two", over="t", best=2)


def _random_orders(table: Table) -> None:
    with table.fresh() as evaluator:
        started = time.process_time()
        orders = soupcore.greedy_orders(table.sweep, evaluator, table.all)
        seconds, used = time.process_time() - started, evaluator.count
        for soup in orders.soups:
            soup.evaluate(evaluator)
        by_soup = [
            table.summary(lambda split, soup=soup: soup.evaluations[split].score)  # type: ignore[misc]
            for soup in orders.soups
        ]
    count = len(orders.soups)
    taken = mean(len(soup.ingredients) for soup in orders.soups)
    table.rows.append(
        Row(
            f"{RECIPES['greedy'].title}, random order ({count}: mean ± sd)",
            f"{taken:.0f} of {len(table.all)}",
            tuple(_spread(table.task.score_unit, column) for column in zip(*by_soup, strict=True)),
            used / count,
            seconds / count,
        )
    )
    print(" | ".join(table.rows[-1].cells()))


def _spread(unit: Unit, scores: Sequence[float]) -> str:
    return f"{unit.number(mean(scores))} ± {unit.number(stdev(scores))}"


def _ensembles(table: Table) -> None:
    with table.fresh() as evaluator:
        started = time.process_time()
        points = {name: table.sweep[name].mixture for name in table.all}
        evaluator.evaluate_all(list(points.values()), table.task.select)
        chosen = soupcore.greedy_ensemble(evaluator, points)
        seconds, k = time.process_time() - started, len(points)
        if chosen is None:
            raise RuntimeError("evaluations are missing from the store right after they were made")
        _ensemble(table, evaluator, "Ensemble", table.sensible, str(len(table.sensible)), 0, 0.0)
        of = f"{chosen.passes} of {k}"
        _ensemble(table, evaluator, "Greedy ensemble", chosen.members, of, k, seconds)


def _ensemble(
    table: Table,
    evaluator: Evaluator,
    name: str,
    members: Sequence[str],
    of: str,
    evaluations: float,
    seconds: float,
) -> None:
    mixtures = [table.sweep[member].mixture for member in members]

    def score(split: str) -> float:
        evaluator.evaluate_all(mixtures, split)
        found = soupcore.ensemble(evaluator, mixtures, split)
        return float("nan") if found is None else found.score

    label = f"{name} ({len(members)} forward passes)"
    table.add(label, of, table.summary(score), evaluations, seconds)


def markdown(rows: Sequence[Row]) -> str:
    """Return the table of results in Markdown."""
    head = ["recipe", "of", "select", "report", "mean shift", "evaluations", "seconds"]
    lines = [head, ["---", "---:", "---:", "---:", "---:", "---:", "---:"]]
    lines += [row.cells() for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def descriptions() -> str:
    """Return the table of recipes, their parameters and needs in Markdown."""
    lines = [["recipe", "paper", "parameters", "needs"], ["---"] * 4]
    lines += [
        [
            f"{recipe.title}: `{recipe.name}`",
            recipe.paper,
            "<br>".join(map(_parameter, recipe.parameters)) or NONE,
            _needs(recipe),
        ]
        for recipe in RECIPES.values()
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _parameter(parameter: Parameter) -> str:
    default = f"`{parameter.name}={parameter.default!r}`"
    if isinstance(parameter, Number):
        return f"{default} ({parameter.minimum} to {parameter.maximum})"
    if isinstance(parameter, Choice):
        others = (f"`{choice!r}`" for choice in parameter.choices if choice != parameter.default)
        return " or ".join([default, *others])
    return default


def _needs(recipe: Recipe) -> str:
    needs = ["a base"] * recipe.needs_base + ["evaluations"] * recipe.chooses
    needs += ["two ingredients"] * (recipe.takes == (2, 2))
    return ", ".join(needs) or NONE


def between_markers(text: str, markers: tuple[str, str], table: str) -> str:
    """Return the text with everything between the markers replaced by the table.

    Raises:
        ValueError: The text does not contain each marker once, in this order.
    """
    begin, end = markers
    before, found, rest = text.partition(begin)
    _, also_found, after = rest.partition(end)
    if not found or not also_found or begin in rest or end in after:
        raise ValueError(f"The README needs one line {begin} and one line {end} after it.")
    return f"{before}{begin}\n{table}\n{end}{after}"


if __name__ == "__main__":
    main()
