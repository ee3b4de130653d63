"""The stored results of a sweep and a task; no network is evaluated.

The Overview page, the report and the verdict use them. Soups and runs are ranked by their score on
the select split. Of equal scores the first wins: the first ingredient in the order of the sweep, or
the soup that was built first. A soup with fitted coefficients must be ahead of the others by more
than chance to be the soup of the verdict; see `choose_headline`.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from soupcore.analysis.verdict import (
    BasinFacts,
    EnsembleFacts,
    Facts,
    Gain,
    SoupFacts,
    Verdict,
    verdict,
)
from soupcore.calls import Context, GreedyEnsembleScores, Optimism
from soupcore.connectivity import Basin, PairSummaries, basins, known_pairs, summaries
from soupcore.connectivity.basins import CONNECTED, basin_numbers
from soupcore.evaluation import Evaluation
from soupcore.evaluation.measuring import compare
from soupcore.recipes import RECIPES, Soup
from soupcore.stored_soups import StoredSoup, recipe_title
from soupcore.sweeps import Sweep
from soupcore.sweeps.tables import Scalar
from soupcore.tasks import TaskInfo

if TYPE_CHECKING:
    import pandas as pd

BySplit = Mapping[str, Evaluation | None]

GREEDY = {"accept": ">=", "metric": "score"}  # parameters of the cross-fitted estimate


def best_on_select(
    known: Mapping[str, BySplit], select: str, names: Iterable[str] | None = None
) -> str | None:
    """Return the name with the best score on the select split, the first of equals.

    Args:
        known: `{name: {split: evaluation}}`.
        select: Name of the select split.
        names: The names to choose from; by default, all.

    Returns:
        The name; None if there is no defined score.
    """
    return next(iter(ranked(known, select, names)), None)


def ranked(
    known: Mapping[str, BySplit], select: str, names: Iterable[str] | None = None
) -> list[str]:
    """Return the names with a defined score on the select split, the best first.

    Equals keep their order. The arguments are those of `best_on_select`.
    """
    scored = {
        name: found.score
        for name in (known if names is None else names)
        if (found := known[name][select]) is not None and math.isfinite(found.score)
    }
    return sorted(scored, key=lambda name: -scored[name])


def choose_headline(
    task: TaskInfo[Any],
    known: Mapping[str, BySplit],
    soups: Mapping[str, Soup],
    alone: Collection[str] = (),
) -> tuple[str | None, str | None]:
    """Return the soup that the verdict is about, chosen on the select split alone.

    It is the soup with the best score there, the first of equals, with one exception. A recipe such
    as `learned` fits its coefficients to the examples of the select split. Its score there is a
    training score, and more optimistic than that of a soup that was only chosen there. So a fitted
    soup is the soup of the verdict only if it is ahead of the best soup without fitted coefficients
    by more than chance: if the 95 % interval of their paired difference on the select split is
    above 0. This reduces the optimism but does not remove it. Cross-fitting would remove it, at the
    cost of many fits.

    Args:
        task: The task.
        known: `{key: {split: evaluation}}`.
        soups: `{key: soup}`.
        alone: Keys of soups that equal the best run. A fitted soup is not compared with them.

    Returns:
        The key of the soup; None if no score is defined. And the key of a fitted soup with a better
        score on the select split that was passed over; None if there is none.
    """
    fitted = [key for key, soup in soups.items() if _is_fitted(soup)]
    others = [key for key in soups if key not in fitted and key not in alone]
    first = best_on_select(known, task.select, soups)
    other = best_on_select(known, task.select, others)
    if first is None or first not in fitted or other is None:
        return first, None
    one, two = known[first][task.select], known[other][task.select]
    if one is None or two is None:
        return first, None
    interval = compare(task, one, two).interval
    if interval is not None and interval[0] > 0:
        return first, None
    return other, first


def _is_fitted(soup: Soup) -> bool:
    """Return whether the coefficients of a soup were fitted to the select split."""
    recipe = RECIPES.get(soup.recipe)
    return recipe is not None and recipe.fits


@dataclass(frozen=True)
class Overview:
    """The stored results of a sweep and a task.

    Attributes:
        context: The sweep and its stored evaluations.
        soups: The stored soups of the sweep, oldest first.
    """

    context: Context
    soups: Sequence[StoredSoup]

    @classmethod
    def of(cls, context: Context) -> "Overview":
        """Return the stored results of a context, with the soups of its folder and task."""
        estimate = context.evaluations.estimate
        return cls(context, context.soups.of_task(context.folder, context.task_spec, estimate))

    @property
    def sweep(self) -> Sweep:
        """The sweep."""
        return self.context.sweep

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the ingredients, in the order of the sweep."""
        return tuple(self.sweep.ingredients)

    @cached_property
    def _found(self) -> tuple[dict[str, BySplit], dict[str, BySplit]]:
        base = self.sweep.base
        points = {name: each.mixture for name, each in self.sweep.ingredients.items()}
        points |= {base.name: base.mixture} if base else {}
        soups = {stored.soup.id: stored.soup.mixture for stored in self.soups}
        found: list[dict[str, Evaluation | None]] = [{} for _ in (*points, *soups)]
        for split in self.context.task.reported:
            known = self.context.evaluations.stored([*points.values(), *soups.values()], split)
            for by_split, evaluation in zip(found, known, strict=True):
                by_split[split] = evaluation
        k = len(points)
        return dict(zip(points, found[:k], strict=True)), dict(zip(soups, found[k:], strict=True))

    @property
    def runs(self) -> dict[str, BySplit]:
        """The evaluations of the ingredients and the base, by name and split."""
        return self._found[0]

    @property
    def of_soups(self) -> dict[str, BySplit]:
        """The evaluations of the soups, by id and split."""
        return self._found[1]

    @property
    def report(self) -> str | None:
        """Name of the first report split, which soups are compared on; None without one."""
        return next(iter(self.context.task.splits_with_role("report")), None)

    @property
    def evaluated(self) -> list[str]:
        """The ingredients that were evaluated on the select split."""
        return [name for name in self.names if self.runs[name][self.context.task.select]]

    @cached_property
    def best(self) -> str | None:
        """The best ingredient on the select split; see `best_on_select`."""
        return best_on_select(self.runs, self.context.task.select, self.names)

    @cached_property
    def ranked(self) -> list[str]:
        """The ingredients, the best on the select split first, those without a score last."""
        best = ranked(self.runs, self.context.task.select, self.names)
        return list(dict.fromkeys([*best, *self.names]))

    @cached_property
    def _headline(self) -> tuple[str | None, str | None]:
        soups = {stored.soup.id: stored.soup for stored in self.soups}
        alone = [soup_id for soup_id, soup in soups.items() if self._is_best_run(soup)]
        return choose_headline(self.context.task, self.of_soups, soups, alone)

    def _is_best_run(self, soup: Soup) -> bool:
        key = self.context.evaluations.key
        return self.best is not None and key(soup.mixture) == key(self.sweep[self.best].mixture)

    @property
    def headline(self) -> StoredSoup | None:
        """The soup of the verdict (see `choose_headline`); None if no soup has a score."""
        return self._of_id(self._headline[0])

    @property
    def passed_over(self) -> StoredSoup | None:
        """A fitted soup with a better score on select that is not ahead by more than chance."""
        return self._of_id(self._headline[1])

    def _of_id(self, soup_id: str | None) -> StoredSoup | None:
        return next((stored for stored in self.soups if stored.soup.id == soup_id), None)

    @property
    def screen(self) -> int | None:
        """Examples of the select split that pairs are screened on; None for all of a small one."""
        n = len(self.context.task.split(self.context.task.select))
        return summaries.SCREEN if n >= 2 * summaries.SCREEN else None

    @cached_property
    def pairs(self) -> PairSummaries:
        """The evaluated pairs on the select split, on a part of it where that is all there is."""
        evaluations, select = self.context.evaluations, self.context.task.select
        whole = known_pairs(self.sweep, evaluations, self.names, split=select)
        if self.screen is None:
            return whole
        part = self.context.task.part(select, self.screen)
        return whole.or_screened(known_pairs(self.sweep, evaluations, self.names, split=part))

    @cached_property
    def basins(self) -> list[Basin]:
        """The basins according to the evaluated pairs, the largest first."""
        pairs = self.pairs
        return basins(pairs.names, pairs.matrix("barrier"), CONNECTED, known=pairs.known)

    @cached_property
    def basin_numbers(self) -> dict[str, int]:
        """The number of the basin of each ingredient; see `soupcore.connectivity.basins`."""
        return basin_numbers(self.pairs) if len(self.pairs) else {}

    def basin_table(self) -> "pd.DataFrame":
        """Return the ingredients around the best one, as `soupcore.figures.basin_map` takes them.

        Returns:
            Index: names. Columns: `barrier`, the loss barrier on the line to the best ingredient;
            `score` on the select split; `basin`, whether the ingredient is in the main basin.
            Ingredients that lack one of the two numbers are left out; empty if all others do.
        """
        import pandas as pd

        columns = ["barrier", "score", "basin"]
        if self.best is None:
            return pd.DataFrame(columns=columns)
        barriers = self.pairs.matrix("barrier")[self.names.index(self.best)]
        main = set(self.basins[0].names)
        rows = {}
        for name, barrier in zip(self.names, barriers.tolist(), strict=True):
            found = self.runs[name][self.context.task.select]
            if found is not None and math.isfinite(barrier) and math.isfinite(found.score):
                rows[name] = (barrier, found.score, name in main)
        table = pd.DataFrame(
            list(rows.values()), index=pd.Index(list(rows), name="name"), columns=columns
        )
        return table if len(table) > 1 else table.iloc[:0]

    def gain(self, soup_id: str, split: str) -> Gain | None:
        """Return the paired difference of a soup and the best ingredient; None if unknown."""
        soup = self.of_soups[soup_id][split]
        alone = None if self.best is None else self.runs[self.best][split]
        if soup is None or alone is None:
            return None
        found = compare(self.context.task, soup, alone)
        return Gain(split, found.n, found.difference, found.interval)

    @cached_property
    def facts(self) -> Facts:
        """The facts that the verdict follows from."""
        task = self.context.task
        split = self.report or task.select
        best = None if self.best is None else self.runs[self.best][split]
        return Facts(
            metric=task.metric,
            select=task.select,
            report=self.report,
            runs=len(self.names),
            evaluated=len(self.evaluated),
            best=self.best,
            best_score=None if best is None else best.score,
            soup=self._soup_facts,
            cross_fit=self._cross_fit,
            basins=self._basin_facts,
            ensemble=self._ensemble_facts,
        )

    @property
    def verdict(self) -> Verdict:
        """The verdict in sentences."""
        return verdict(self.facts)

    @property
    def _soup_facts(self) -> SoupFacts | None:
        stored, task = self.headline, self.context.task
        if stored is None or self.best is None:
            return None
        soup = stored.soup
        on_select = self.gain(soup.id, task.select)
        if on_select is None:
            return None
        shifts = [self.gain(soup.id, split) for split in task.splits_with_role("shift")]
        on_report = self.gain(soup.id, self.report) if self.report else None
        return SoupFacts(
            title=title(soup),
            members=len(members(soup)),
            is_best_run=self._is_best_run(soup),
            is_greedy=soup.recipe == "greedy",
            name=stored.annotation.name,
            passed_over=self._passed_over,
            on_select=on_select,
            on_report=on_report,
            on_shifts=tuple(gain for gain in shifts if gain is not None),
            is_any_proven=on_report is not None
            and on_report.outcome == "even"
            and self._is_any_proven(),
        )

    @property
    def _passed_over(self) -> str:
        stored = self.passed_over
        if stored is None:
            return ""
        return f"{title(stored.soup)} ({len(members(stored.soup))} of {len(self.names)})"

    def _is_any_proven(self) -> bool:
        gains = [self.gain(soup_id, self.report) for soup_id in self.of_soups if self.report]
        return any(gain is not None and gain.outcome in ("better", "worse") for gain in gains)

    @property
    def _cross_fit(self) -> float | None:
        if self.report is not None:
            return None
        found = Optimism(self.names, GREEDY).result(self.context)
        return None if found is None else found["gain_delivered"]

    @property
    def _basin_facts(self) -> BasinFacts | None:
        pairs = self.pairs
        if not len(pairs):
            return None
        hub = self._hub
        own = next((basin for basin in self.basins if hub in basin.names), self.basins[0])
        main = set(own.names)
        barriers = pairs.column("barrier")
        if hub:
            barriers = barriers[(pairs.pairs == self.names.index(hub)).any(axis=1)]
        finite = barriers[np.isfinite(barriers)]
        screened = pairs.column("n")[pairs.screened]
        return BasinFacts(
            main=len(main),
            apart=self._apart(main),
            known=len(pairs),
            pairs=math.comb(len(self.names), 2),
            lowest=float(finite.min()) if len(finite) else None,
            threshold=CONNECTED,
            loss_name=self.context.task.loss_name,
            screened=int(screened.max()) if len(screened) else None,
            hub=hub,
        )

    @property
    def _hub(self) -> str:
        """The best run if its lines to all others are known, but other pairs are not; else ""."""
        known = self.pairs.known
        is_hub = self.best is not None and known[self.names.index(self.best)].all()
        return str(self.best) if is_hub and not known.all() else ""

    def _apart(self, main: Collection[str]) -> tuple[str, ...]:
        """Return the ingredients outside the main basin, with a distinguishing hyperparameter."""
        own = {name: each.hyperparameters for name, each in self.sweep.ingredients.items()}
        outside = [name for name in self.names if name not in main]
        keys = {key for name in outside for key in own[name]}
        inside = {key: [own[name].get(key) for name in main] for key in keys}
        return tuple(
            f"{name} ({why})" if (why := _difference(own[name], inside)) else name
            for name in outside
        )

    @property
    def _ensemble_facts(self) -> EnsembleFacts | None:
        if self.context.task.why_no_ensemble is not None:
            return None
        found = GreedyEnsembleScores(self.names).result(self.context)
        split = self.report or self.context.task.select
        if found is None or "why_none" in found or found["scores"].get(split) is None:
            return None
        return EnsembleFacts(len(found["members"]), found["scores"][split])


def title(soup: Soup) -> str:
    """Return the title of a soup's recipe."""
    return recipe_title(soup.recipe)


def members(soup: Soup) -> list[str]:
    """Return the ingredients in a soup; those with coefficient 0 are not in it."""
    return [name for name in soup.ingredients if soup.coefficients.get(name) != 0]


def is_learning_rate(hyperparameter: str) -> bool:
    """Return whether a hyperparameter is a learning rate, according to its name."""
    return hyperparameter.lower().startswith(("learning", "lr"))


def _difference(own: Mapping[str, Scalar], inside: Mapping[str, Sequence[Scalar]]) -> str:
    """Return a hyperparameter that distinguishes an ingredient from the main basin; "" if none.

    A text differs if all values in the basin are another text. A learning rate differs if it is
    higher than all in the basin.

    Args:
        own: The hyperparameters of the ingredient.
        inside: The values of each hyperparameter in the main basin.
    """
    for key, value in own.items():
        others = inside[key]
        if isinstance(value, str):
            if len({*others}) == 1 and isinstance(others[0], str) and others[0] != value:
                return f"{key} {value}"
        elif is_learning_rate(key) and isinstance(value, int | float):
            rates = [rate for rate in others if isinstance(rate, int | float)]
            if rates and value > max(rates):
                return f"{key} {value:g}"
    return ""
