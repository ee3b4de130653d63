"""The run table: one row for each ingredient, the base and each soup, with stored results.

Cells show texts such as "85.00 ± 2.64" but hold numbers, so that the browser sorts them as numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from pages.components import scores
from pages.components.display import plain
from pages.components.soup_links import cell_text
from pages.components.state import View
from soupcore import Evaluation
from soupcore.connectivity import stored_distances
from soupcore.connectivity.basins import CONNECTED
from soupcore.figures.style import NEUTRAL, SOUP
from soupcore.overview import best_on_select
from soupcore.store.soups import Annotation, annotations
from soupcore.stored_soups import StoredSoup
from soupcore.sweeps.hyperparameters import run_columns
from soupcore.tasks.unit import UNKNOWN

INK, NAME, KIND = "", "name", "kind"
_BASELINE = "baseline"
_IN_SOUP, BASIN, _DISTANCE = "in soup", "basin", "distance to base"
_LAST = ("hash", "status")
_EVALUATED = "evaluated"
_THOUSAND, _MILLION, _LARGEST_WHOLE = 1e3, 1e6, 1e15


@dataclass(frozen=True)
class Column:
    """A column of the run table.

    Attributes:
        form: `text`, `score` (also differences of scores), `loss`, `count` or `number`.
        help: Explanation, as Markdown.
        is_shown: Whether it is shown unless the user hides it.
        is_lower_first: Whether the lowest value comes first in the default order.
        decimals: Decimals in exports; None for six significant digits.
        is_of_runs: Whether it is a hyperparameter or a logged metric.
        better: 1 if higher values are better, -1 if lower ones are, 0 if neither.
    """

    form: str = "text"
    help: str = ""
    is_shown: bool = True
    is_lower_first: bool = True
    decimals: int | None = None
    is_of_runs: bool = False
    better: int = 0


@dataclass(frozen=True)
class RunTable:
    """The run table: ingredients in the order of the sweep, the base, soups in order of age.

    Attributes:
        frame: One row for each; scores are in the unit of the metric.
        columns: `{title: Column}`, in the order of the page.
        texts: The text in the cells of scores and differences, `{title: texts}`.
        spreads: Half the widths of the scores' 95 % intervals, `{title: numbers}`.
        baseline: The row that differences are taken from; None if no ingredient is evaluated.
        ranked_by: The title of the score on the select split; None if no row has one.
        evaluations: `{name: {split: evaluation}}`; empty without a task.
        soups: `{name: soup}`.
        headline: Name of the soup of the verdict; None if no soup has a score on the select split.
        tags: All tags of the rows, sorted.
    """

    frame: pd.DataFrame
    columns: Mapping[str, Column]
    texts: Mapping[str, Sequence[str]]
    spreads: Mapping[str, Sequence[float]]
    baseline: str | None
    ranked_by: str | None
    evaluations: scores.Known
    soups: Mapping[str, StoredSoup]
    headline: str | None
    tags: Sequence[str] = ()

    @property
    def names(self) -> list[str]:
        """The names of the rows."""
        return list(self.frame[NAME])

    def values(self, title: str) -> list[Any]:
        """Return the values of a column; None where there is none."""
        return [None if pd.isna(value) else value for value in self.frame[title].tolist()]

    def order(self, rows: Sequence[int], title: str, *, descending: bool) -> list[int]:
        """Return rows sorted by a column: the baseline first, rows without a value last.

        Equal values keep the order of the sweep. Names are in that order too, so `lr2` is before
        `lr10`.
        """
        values = self.values(title)
        known = [row for row in sorted(rows) if values[row] is not None]
        if title == NAME:
            known = known[::-1] if descending else known
        else:
            known.sort(key=lambda row: _key(values[row]), reverse=descending)
        ordered = [*known, *(row for row in sorted(rows) if values[row] is None)]
        names = self.names
        return sorted(ordered, key=lambda row: names[row] != self.baseline)


def build(
    view: View,
    known: scores.Known,
    soups: Mapping[str, StoredSoup],
    *,
    pinned: str = "",
    ranking_metric: str | None = None,
) -> RunTable:
    """Collect the rows. Only stored results are read.

    Args:
        view: The view.
        known: The evaluations of the ingredients and the base; empty without a task.
        soups: Soups by their names in the table.
        pinned: Name of the baseline; by default the best ingredient on the select split.
        ranking_metric: The logged metric whose column comes first, for sweeps without a task.
    """
    base = {view.sweep.base.name: view.sweep.base} if view.sweep.base else {}
    files = dict(view.sweep.ingredients) | base
    names = [*files, *soups]
    kinds = ["base" if name in base else "ingredient" for name in files] + ["soup"] * len(soups)
    evaluations: scores.Known = {}
    baseline = headline = ranked_by = None
    if view.has_task:
        overview = scores.overview(view, soups.values())
        of_soups = {name: overview.of_soups[soup.soup.id] for name, soup in soups.items()}
        evaluations = {name: known[name] for name in files} | of_soups
        best = best_on_select(evaluations, view.task.select, view.sweep.ingredients)
        baseline = pinned if pinned in evaluations else best
        headline = None if overview.headline is None else overview.headline.label
    inks = {"base": NEUTRAL, "soup": SOUP}
    colours = view.colours
    made = _Columns({INK: [inks.get(k) or colours[n] for n, k in zip(names, kinds, strict=True)]})
    made.columns[INK] = Column(help="Colour used in all figures")
    made.add(NAME, names, Column())
    made.add(KIND, kinds, Column(help="Ingredient, base or soup"))
    if view.has_task:
        _add_scores(made, view, evaluations, baseline)
    in_soup = _coefficients(soups[headline]) if headline else {}
    label = plain(soups[headline].label) if headline else ""
    made.add_known(
        _IN_SOUP, [in_soup.get(name) for name in names],
        Column("number", f"Coefficient in {label}, the soup of the verdict",
               is_lower_first=False),
    )  # fmt: skip
    if view.has_task:
        numbers = view.basin_numbers
        made.add_known(
            BASIN, [numbers.get(name) for name in names],
            Column("count", "Number of the basin, 1 for the largest: ingredients connected by a "
                   f"chain of evaluated pairs with barriers up to {CONNECTED:g}. Basins can still "
                   "merge while pairs are missing."),
        )  # fmt: skip
    distances = stored_distances(view.sweep, view.store)
    if distances:
        distances |= dict.fromkeys(base, 0.0)
    made.add_known(
        _DISTANCE, [distances.get(name) for name in names],
        Column("number", "L2 distance between the weights, excluding BatchNorm statistics"),
    )  # fmt: skip
    ids = {name: each.digest for name, each in files.items()}
    ids |= {name: soup.soup.id for name, soup in soups.items()}
    by_id = annotations(view.store, ids.values())
    annotated = [by_id.get(ids[name], Annotation()) for name in names]
    made.add_known(
        "tags",
        [", ".join(each.tags) or None for each in annotated],
        Column(help="Tags, from Details"),
    )
    made.add_known(
        "note", [each.note or None for each in annotated], Column(help="Note, from Details")
    )
    _add_runs(made, view, names, ranking_metric)
    hash_help = "First characters of the digest of the weights, or of a soup's id"
    made.add("hash", [files[n].digest[:8] if n in files else soups[n].soup.id[:8] for n in names],
             Column(help=hash_help, is_shown=False))  # fmt: skip
    if view.has_task:
        statuses = [_status(evaluations[name]) for name in names]
        made.add("status", statuses, Column(is_shown={*statuses} != {_EVALUATED}))
        if any(by_split[view.task.select] for by_split in evaluations.values()):
            ranked_by = _titles(view)[view.task.select][0]
    return RunTable(
        made.frame, made.columns, made.texts, made.spreads, baseline, ranked_by, evaluations,
        soups, headline, sorted({tag for each in annotated for tag in each.tags}),
    )  # fmt: skip


def styled(table: RunTable, frame: pd.DataFrame, rows: list[int]) -> Styler:
    """Return rows with the text of each cell. The browser sorts them by the numbers."""
    shown = frame.copy()
    for title, texts in table.texts.items():
        cells = [_Cell(value, texts[row]) for value, row in zip(frame[title], rows, strict=True)]
        shown[title] = pd.Series(cells, dtype=object)
    shown[NAME] = shown[NAME].map(cell_text)
    forms: dict[str, Any] = {
        "text": _text,
        "score": _score_text,
        "loss": number_text,
        "number": number_text,
        "count": number_text,
    }
    formats = {title: forms[column.form] for title, column in table.columns.items()}
    is_baseline = (frame[NAME] == table.baseline).tolist()

    def emphasised(column: "pd.Series[Any]") -> list[str]:
        return ["font-weight: bold" if each else "" for each in is_baseline]

    made: Styler = (
        shown.style.format(formats)
        .map(lambda ink: f"color: {ink}; background-color: {ink}", subset=[INK])
        .apply(emphasised, subset=[title for title in table.columns if title != INK])
    )
    return made


def number_text(value: Any) -> str:
    """Return a number with three significant digits; whole numbers in full."""
    if pd.isna(value):
        return UNKNOWN
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.0f}" if _THOUSAND <= abs(value) < _MILLION else f"{value:.3g}"
    return str(int(value)) if abs(value) < _LARGEST_WHOLE else f"{float(value):.3g}"


class _Columns:
    """Columns of the table while it is built."""

    def __init__(self, data: dict[str, list[Any]]) -> None:
        self.data = data
        self.columns: dict[str, Column] = {}
        self.texts: dict[str, list[str]] = {}
        self.spreads: dict[str, list[float]] = {}

    def add(self, title: str, values: list[Any], column: Column) -> None:
        self.data[title] = values
        self.columns[title] = column

    def add_known(self, title: str, values: list[Any], column: Column) -> None:
        """Add a column unless all of its values are missing."""
        if any(value is not None for value in values):
            self.add(title, values, column)

    @property
    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(
            {title: _series(values, self.columns[title]) for title, values in self.data.items()}
        )


def _titles(view: View) -> dict[str | None, tuple[str, str, bool]]:
    """Return the columns of splits: `{split: (score, difference, is shown)}`; None: mean shift."""
    task, unit = view.task, view.task.score_unit
    named: dict[str | None, str] = {task.select: "validation"}
    report = next(iter(task.splits_with_role("report")), None)
    if report is not None:
        named[report] = "test"
    if task.splits_with_role("shift"):
        named[None] = "mean shift"
    main = list(named)
    for split in task.reported:
        if split not in named:
            taken = split in named.values()
            named[split] = f"{split} ({task.splits[split].role})" if taken else split
    return {
        split: (
            unit.label(f"{name} {task.score_name}"),
            unit.difference_label(f"Δ {name}"),
            split in main,
        )
        for split, name in named.items()
    }


def _add_scores(made: _Columns, view: View, known: scores.Known, baseline: str | None) -> None:
    task, unit = view.task, view.task.score_unit
    names = list(known)
    for split, (title, difference, is_shown) in _titles(view).items():
        if split is None:
            values = [scores.shift_mean(view, known[name]) for name in names]
            spreads = [math.nan] * len(names)
            what = "Mean score over the shift splits"
        else:
            evaluations = [known[name][split] for name in names]
            values = [e.score if e else None for e in evaluations]
            spreads = [scores.half_width(e) for e in evaluations]
            what = f"Score on {plain(split)} ± half of its 95 % confidence interval"
        column = Column(
            "score",
            what,
            is_shown,
            is_lower_first=unit.sign < 0,
            decimals=unit.decimals,
            better=unit.sign,
        )
        made.add(title, [_times(score, unit.factor) for score in values], column)
        made.texts[title] = [
            scores.with_spread(unit, *each) for each in zip(values, spreads, strict=True)
        ]
        made.spreads[title] = [spread * unit.scale for spread in spreads]
        origin = values[names.index(baseline)] if baseline is not None else None
        if origin is None:
            continue
        gains = [None if score is None else score - origin for score in values]
        what = f"Difference from {plain(str(baseline))}, the baseline"
        what += "; for paired intervals see the details of a row" if split else ""
        column = replace(column, help=what)
        made.add(difference, [_times(gain, unit.factor) for gain in gains], column)
        made.texts[difference] = [
            _BASELINE if name == baseline else unit.difference(gain)
            for name, gain in zip(names, gains, strict=True)
        ]
    losses = [e.loss if e else None for e in (known[name][task.select] for name in names)]
    made.add(task.loss_name, losses, Column("loss", f"Loss on {plain(task.select)}", better=-1))


def _add_runs(made: _Columns, view: View, names: Sequence[str], metric: str | None) -> None:
    """Add the hyperparameters and logged metrics; constant ones are hidden."""
    sweep = view.sweep
    files = dict(sweep.ingredients) | ({sweep.base.name: sweep.base} if sweep.base else {})
    rows: list[dict[str, Any]] = []
    for name in names:
        if name not in files:
            rows.append({})
            continue
        logged = {scores.logged_title(m): value for m, value in files[name].logged_metrics.items()}
        title = scores.logged_title(metric) if metric else ""
        first = {title: logged.get(title)} if title else {}
        rows.append({**first, **logged, **files[name].hyperparameters})
    shown = {*sweep.columns, *map(scores.logged_title, sweep.logged_columns)}
    shown |= {scores.logged_title(metric)} if metric else set()
    keys = list(dict.fromkeys(key for row in rows for key in row))
    for key, title in run_columns(keys, {*made.columns, *_LAST}).items():
        values = _uniform([row.get(key) for row in rows])
        known = [value for value in values if value is not None]
        is_number = all(type(value) in (int, float) for value in known)
        metric = key.removesuffix(" (logged)")
        is_higher_first = metric != key and not scores.lower_is_better(metric)
        column = Column(
            "number" if is_number else "text", _source(view, key), key in shown,
            is_lower_first=not is_higher_first, is_of_runs=True,
            better=0 if metric == key else 1 if is_higher_first else -1,
        )  # fmt: skip
        made.add(title, values, column)


def _coefficients(stored: StoredSoup) -> dict[str, float]:
    return {name: float(c) for name, c in stored.soup.coefficients.items()}


def _source(view: View, key: str) -> str:
    """Return where the values of a column come from, as Markdown."""
    names = (key, key.removesuffix(" (logged)"))
    origins = [
        i.origins[n] for i in view.sweep.ingredients.values() for n in names if n in i.origins
    ]
    files = [*dict.fromkeys(origin.partition(",")[0].rpartition("/")[2] for origin in origins)]
    source = f"From {plain(', '.join(files[:3]))}{', …' if len(files) > 3 else ''}."
    if key.endswith(" (logged)"):
        source += " Logged by the training tool, not measured here."
    return source


def _status(known: Mapping[str, Evaluation | None]) -> str:
    done = sum(evaluation is not None for evaluation in known.values())
    return _EVALUATED if done == len(known) else f"{done} of {len(known)} splits"


def _times(score: float | None, factor: float) -> float | None:
    return None if score is None else score * factor


def _series(values: list[Any], column: Column) -> "pd.Series[Any]":
    if column.form in ("score", "loss"):
        return pd.Series(values, dtype=float)
    known = [value for value in values if value is not None]
    if any(type(value) is int for value in known) and all(type(value) is int for value in known):
        return pd.Series(values, dtype="Int64" if len(known) < len(values) else "int64")
    return pd.Series(values, dtype=None)


def _uniform(values: list[Any]) -> list[Any]:
    """Return values as text if a column of a table cannot hold their types together."""
    values = [None if pd.isna(value) else value for value in values]
    known = [value for value in values if value is not None]
    if all(type(value) in (int, float) for value in known):
        if all(isinstance(value, float) or abs(value) < 1 << 63 for value in known):
            return values
    elif len({type(value) for value in known}) == 1:
        return values
    return [None if value is None else str(value) for value in values]


def _key(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


class _Cell(float):
    """A number in a table with its own display text."""

    text: str

    def __new__(cls, value: float, text: str) -> "_Cell":
        cell = super().__new__(cls, value)
        cell.text = text
        return cell


def _text(value: Any) -> str:
    return UNKNOWN if pd.isna(value) else str(value)


def _score_text(value: Any) -> str:
    return value.text if isinstance(value, _Cell) else UNKNOWN
