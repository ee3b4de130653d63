"""The section with the table of soups, ensembles and ingredients, on each split with intervals."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from soupcore.calls import EnsembleScores, GreedyEnsembleScores
from soupcore.evaluation import Evaluation
from soupcore.overview import Overview, members, ranked, title
from soupcore.report import html
from soupcore.report.html import Cell, Part
from soupcore.stored_soups import StoredSoup
from soupcore.tasks import Unit
from soupcore.tasks.unit import UNKNOWN

_Interval = tuple[float, float]


@dataclass(frozen=True)
class _Row:
    """A row of the table.

    Attributes:
        name: Name of the soup, the ensemble or the checkpoint.
        kind: Kind of the row.
        about: Recipe and size of a soup.
        passes: Number of forward passes per example.
        scores: `{split: score}`; None if not stored.
        intervals: `{split: 95 % interval}`; None if there is none.
    """

    name: str
    kind: str
    about: str
    passes: int
    scores: Mapping[str, float | None]
    intervals: Mapping[str, _Interval | None]


def results(known: Overview) -> str:
    """Return the section: the table, its numbers, and an explanation."""
    task = known.context.task
    unit, splits = task.score_unit, task.reported
    rows = _rows(known)
    best = {split: max(_known(rows, split), default=None) for split in splits}
    lines: list[list[Part]] = [
        [
            Cell(row.name, row.about),
            row.kind,
            str(row.passes),
            *(_cell(unit, row, split, best[split]) for split in splits),
        ]
        for row in rows
    ]
    heads: list[Part] = ["name", "kind", "passes", *(_head(known, split) for split in splits)]
    # The soup of the verdict comes first.
    shown = html.table(heads, lines, left=2, marked=[0] if known.headline else [])
    numbers = _frame(known)
    decimals = {} if unit.decimals is None else dict.fromkeys(numbers.columns[3:], unit.decimals)
    return shown + html.files(numbers, "results", decimals) + html.note(_note(known))


def _frame(known: Overview) -> pd.DataFrame:
    """Return the numbers of the table in full precision.

    Returns:
        One row per soup, ensemble and checkpoint. For each split the value of the metric, in the
        unit of its column, and the ends of its 95 % interval. NaN if these are not stored.
    """
    task, unit = known.context.task, known.context.task.score_unit
    rows = []
    for row in _rows(known):
        found: dict[str, object] = {"name": row.name, "kind": row.kind, "passes": row.passes}
        for split in task.reported:
            score, interval = row.scores[split], row.intervals[split]
            low, high = interval[:: unit.sign] if interval else (math.nan, math.nan)
            column = unit.label(f"{task.score_name} on {split}")
            found[column] = math.nan if score is None else score * unit.factor
            found[f"{column}: low"] = low * unit.factor
            found[f"{column}: high"] = high * unit.factor
        rows.append(found)
    return pd.DataFrame(rows)


def _interval_of(found: Evaluation | None) -> _Interval | None:
    """Return the interval of a score; None if there is none or it would suggest certainty."""
    return found.score_interval if found and _is_wide(found.score_interval) else None


def _interval_text(unit: Unit, interval: _Interval | None) -> str:
    """Return an interval of scores, such as "82.20 to 87.46"; "" without one."""
    if interval is None:
        return ""
    low, high = interval[:: unit.sign]
    return f"{unit.number(low)} to {unit.number(high)}"


def _is_wide(interval: _Interval) -> bool:
    return interval[0] < interval[1]  # not NaN


def _rows(known: Overview) -> list[_Row]:
    """Return soups (that of the verdict first), ensembles, and ingredients with the base."""
    soups = {soup.soup.id: soup for soup in known.soups}
    first = [known.headline.soup.id] if known.headline is not None else []
    best = ranked(known.of_soups, known.context.task.select)
    found = [
        _row(soups[key].label, "soup", known.of_soups[key], _made_of(known, soups[key]))
        for key in dict.fromkeys([*first, *best, *soups])
    ]
    found += _ensembles(known)
    if known.best is not None:
        found.append(_row(known.best, "best ingredient", known.runs[known.best]))
    if known.sweep.base is not None:
        name = known.sweep.base.name
        found.append(_row(name, "base", known.runs[name]))
    others = [name for name in known.ranked if name != known.best]
    return found + [_row(name, "ingredient", known.runs[name]) for name in others]


def _row(name: str, kind: str, known: Mapping[str, Evaluation | None], about: str = "") -> _Row:
    scores = {split: found.score if found else None for split, found in known.items()}
    intervals = {split: _interval_of(found) for split, found in known.items()}
    return _Row(name, kind, about, 1, scores, intervals)


def _made_of(known: Overview, stored: StoredSoup) -> str:
    return f"{title(stored.soup)}, {len(members(stored.soup))} of {len(known.names)}"


def _ensembles(known: Overview) -> list[_Row]:
    """Return the ensembles with stored scores: of the best soup's ingredients, and greedy."""
    context = known.context
    if context.task.why_no_ensemble is not None:
        return []
    found = []
    if known.headline is not None:
        names = tuple(known.headline.soup.ingredients)
        of_soup = EnsembleScores(names).result(context.including(known.headline.soups))
        if of_soup is not None:
            name = f"ensemble of {known.headline.label}'s ingredients"
            found.append(_ensemble(known, name, len(names), of_soup["scores"]))
    greedy = GreedyEnsembleScores(known.names).result(context)
    if greedy is not None and "why_none" not in greedy:
        count = len(greedy["members"])
        found.append(_ensemble(known, "greedy ensemble", count, greedy["scores"]))
    return found


def _ensemble(known: Overview, name: str, passes: int, scores: Mapping[str, float | None]) -> _Row:
    splits = known.context.task.reported
    by_split = {split: scores.get(split) for split in splits}
    return _Row(name, "ensemble", "", passes, by_split, dict.fromkeys(splits))


def _known(rows: Sequence[_Row], split: str) -> list[float]:
    scores = (row.scores[split] for row in rows)
    return [score for score in scores if score is not None and math.isfinite(score)]


def _cell(unit: Unit, row: _Row, split: str, best: float | None) -> Cell:
    score = row.scores[split]
    is_best = score is not None and score == best
    return Cell(unit.number(score), _interval_text(unit, row.intervals[split]), is_best)


def _head(known: Overview, split: str) -> Cell:
    n = len(known.context.task.split(split))
    # Long headings would make the table wider than a page.
    is_shift = split.startswith("shift/")
    name = split.removeprefix("shift/") if is_shift else known.context.task.split_title(split)
    below = ["shift"] if is_shift else []
    return Cell(name, ", ".join([*below, *([f"n = {n}"] if n > 1 else [])]))


def _note(known: Overview) -> str:
    task = known.context.task
    direction = "higher" if task.metric.higher_is_better else "lower"
    texts = [
        f"Scores are {task.score_unit.label(task.score_name)}; {direction} is better. "
        f"{UNKNOWN} = not evaluated or undefined; bold = best in the column."
    ]
    if task.has_examples:
        texts.append("Below a score: its 95 % interval.")
    if known.headline is not None:
        texts.append("The shaded soup is that of the verdict, chosen on validation.")
    texts.append("Passes = forward passes per example at inference.")
    if known.facts.ensemble is not None:
        texts.append("The greedy ensemble was chosen on validation too.")
    return " ".join(texts)
