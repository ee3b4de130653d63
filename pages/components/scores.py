"""Stored scores and soups on pages: look-ups, texts, warnings, choices, and logged metrics."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import streamlit as st

from pages.components import jobs
from pages.components.display import plain
from pages.components.state import View
from soupcore import Evaluation, Mixture, Soup, Sweep
from soupcore.calls import IngredientScores, SoupScores
from soupcore.calls.code import soup_again
from soupcore.checkpoints.run_folders import is_lower_better
from soupcore.display import counted
from soupcore.overview import BySplit, Overview, best_on_select
from soupcore.plan import seconds
from soupcore.stored_soups import StoredSoup
from soupcore.tasks import TaskInfo, Unit
from soupcore.tasks.unit import UNKNOWN

LabelVisibility = Literal["visible", "collapsed"]
Known = dict[str, BySplit]

_NAMED = 6  # undefined scores, or soups with low scores
_TERMS = 8  # ingredients of a soup that are listed
_LONGEST_FRACTION = 8  # characters; longer ones are shown as decimal numbers


def evaluations(view: View, points: Mapping[str, Mixture]) -> Known:
    """Return the stored evaluations of points, `{name: {split: evaluation or None}}`."""
    splits = view.task.reported
    found = [view.evaluations.stored(list(points.values()), split) for split in splits]
    rows = (dict(zip(splits, row, strict=True)) for row in zip(*found, strict=True))
    return dict(zip(points, rows, strict=True))


def of_all(view: View, stored: Iterable[StoredSoup] = ()) -> Known:
    """Return the stored evaluations of the ingredients, the base, and soups of the overview.

    Returns:
        `{name: {split: evaluation or None}}`, with soups by their labels.
    """
    of_soups = {soup.label: view.overview.of_soups[soup.soup.id] for soup in stored}
    return view.overview.runs | of_soups


def ingredients(view: View) -> dict[str, Mixture]:
    """Return the mixtures of the ingredients by name."""
    return {name: ingredient.mixture for name, ingredient in view.sweep.ingredients.items()}


def soups(view: View) -> list[StoredSoup]:
    """Return the stored soups of this sweep and task, oldest first; without a task, all of them.

    Only soups with the chosen BatchNorm statistics are included. Soups of missing ingredients are
    left out, since their weights cannot be computed, and so are soups whose recipe gives other
    weights in this version.
    """
    return view.soups.of_task(view.folder, view.task_spec, view.estimate)


@dataclass(frozen=True)
class Point:
    """A base, an ingredient or a soup, as an end of lines and a corner of planes.

    Attributes:
        mixture: Its mixture.
        kind: `base`, `ingredient` or `soup`.
        end: Its identity in a call.
        code: Python expression for it, given `sweep`.
    """

    mixture: Mixture
    kind: str
    end: str | dict[str, str]
    code: str


def points_of_files(view: View) -> dict[str, Point]:
    """Return the base, if there is one, and the ingredients, by name."""
    found = {}
    for name in [*([view.sweep.base.name] if view.sweep.base else []), *view.sweep.ingredients]:
        kind = "ingredient" if name in view.sweep.ingredients else "base"
        found[name] = Point(view.sweep[name].mixture, kind, name, f"sweep[{name!r}]")
    return found


def points_of_soups(soups: Iterable[StoredSoup]) -> dict[str, Point]:
    """Return soups by label."""
    found = {}
    for stored in soups:
        code = f"{soup_again(stored.soup, stored.soups)}.mixture"
        found[stored.label] = Point(stored.soup.mixture, "soup", {"soup": stored.soup.id}, code)
    return found


def points(view: View) -> dict[str, Point]:
    """Return the base, the ingredients and the soups, by the names that they have on the pages."""
    return points_of_files(view) | points_of_soups(soups(view))


def names_as_ingredients(view: View, stored: Collection[StoredSoup]) -> dict[str, str]:
    """Return the names of soups as ingredients of the sweep, `{id: name}`.

    A name is the soup's handle, since a user may change its label; with the whole id if another
    ingredient or soup has that handle.
    """
    handles = Counter([*view.sweep.ingredients, *(soup.handle for soup in stored)])
    return {
        soup.soup.id: soup.handle
        if handles[soup.handle] == 1
        else f"{soup.soup.recipe} {soup.soup.id}"
        for soup in stored
    }


def task_notes(task: TaskInfo[Any]) -> str:
    """Return the majority class, weights and precision of a task, as Markdown for a caption.

    A network that always predicts the majority class has its share as accuracy.
    """
    parts = []
    majority = task.split(task.select).majority
    if majority is not None:
        parts.append(f"majority class {100 * majority:.1f} % of {plain(task.select)}")
    weighted = [plain(name) for name in task.reported if task.split(name).is_weighted]
    if weighted:
        parts.append(f"examples are **weighted** on {', '.join(weighted)}")
    if task.precision != "float32":
        parts.append(f"evaluated in **{task.precision}**")
    return "".join(f" · {part}" for part in parts)


def advice(task: TaskInfo[Any]) -> str:
    """Return a sentence that names the splits whose scores are not optimistic."""
    has_test, has_shifts = (bool(task.splits_with_role(role)) for role in ("report", "shift"))
    if has_test or has_shifts:
        named = " and ".join(["test"] * has_test + ["the shifted splits"] * has_shifts)
        return f"Judge by {named}."
    if not task.has_examples:
        return "There is no test split."
    return (
        "There is no test split; the cross-fitted estimates under Evidence, on the page of a soup, "
        "correct for the choice."
    )


def shift_mean(view: View, known: Mapping[str, Evaluation | None]) -> float | None:
    """Return the mean score over all shift splits; None unless all are evaluated."""
    return view.task.mean_shift({s: found.score for s, found in known.items() if found})


def metrics(view: View, soup: Soup) -> None:
    """Show the known scores of a soup on select, on report and under shift, if there is a task."""
    if not view.has_task:
        return
    known = evaluations(view, {"soup": soup.mixture})["soup"]
    unit = view.task.score_unit
    with st.container(horizontal=True):
        for split, evaluation in known.items():
            if evaluation is not None and view.task.splits[split].role != "shift":
                name = f"{plain(view.task.score_name)} on {plain(view.task.split_title(split))}"
                st.metric(name, unit.text(evaluation.score), width=220)
        if (shift := shift_mean(view, known)) is not None:
            name = f"mean shift {plain(view.task.score_name)}"
            st.metric(name, unit.text(shift), width=200)


def with_interval(unit: Unit, found: Evaluation | None) -> str:
    """Return a score with half the width of its 95 % interval, such as 85.00 ± 2.64."""
    return UNKNOWN if found is None else with_spread(unit, found.score, half_width(found))


def with_spread(unit: Unit, score: float | None, spread: float) -> str:
    """Return a score with a spread, unless the score is unknown or the spread is NaN."""
    text = unit.number(score)
    if text == UNKNOWN or math.isnan(spread):
        return text
    return f"{text} ± {unit.gain(spread).removeprefix('+')}"


def half_width(found: Evaluation | None) -> float:
    """Return half the width of a score's 95 % interval; NaN if that is 0, infinite or unknown."""
    if found is None:
        return math.nan
    low, high = found.score_interval
    return (high - low) / 2 if 0 < high - low < math.inf else math.nan


def offer_evaluation(view: View, stored: StoredSoup, *, key: str) -> None:
    """Show a button that evaluates a soup on the missing splits, if any.

    Args:
        view: The view.
        stored: The soup.
        key: Distinguishes several buttons for the same soup on a page.
    """
    known = evaluations(view, {"soup": stored.soup.mixture})["soup"]
    missing = [split for split, found in known.items() if found is None]
    if missing:
        jobs.call_button(
            view,
            f"Evaluate {plain(stored.label)} on {plain(jobs.splits_text(missing))}",
            SoupScores(stored.soup.id),
            f"Evaluate {stored.label}",
            key=f"evaluate-{key}-{stored.soup.id}",
            primary=False,
            price=seconds(view.overview, sum(len(view.task.split(each)) for each in missing)),
        )


def offer_ingredients(view: View, *, key: str) -> None:
    """Show a button that evaluates the base and all ingredients on the splits of the results.

    Args:
        view: The view.
        key: Distinguishes several buttons on a page.
    """
    names = [*view.sweep.ingredients, *([view.sweep.base.name] if view.sweep.base else [])]
    jobs.call_button(
        view,
        "Evaluate all ingredients",
        IngredientScores(tuple(names), tuple(view.task.reported)),
        f"Evaluate {counted(len(names), 'checkpoint')}",
        key=f"evaluate-ingredients-{key}",
        help="Stored results are reused.",
    )


def show_undefined(view: View, known: Known) -> None:
    """Show which scores are undefined, and for how many examples."""
    if view.task.undefined == "exclude":
        st.caption("Scores are means over the examples where they are defined.")
    texts = [
        f"{plain(name)} on {plain(split)} ({_why_undefined(found)})"
        for name, by_split in known.items()
        for split, found in by_split.items()
        if found is not None and not math.isfinite(found.score)
    ]
    if texts:
        more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
        st.caption(f"Undefined scores: {', '.join(texts[:_NAMED])}{more}.")


def choose_soup(
    view: View,
    stored: Sequence[StoredSoup],
    label: str,
    *,
    label_visibility: LabelVisibility = "visible",
) -> StoredSoup:
    """Let the user choose a soup; the default is the soup of the verdict.

    Without a visible label, the list is only shown if there are several.
    """
    by_id = {soup.soup.id: soup for soup in stored}
    ids = list(by_id)
    picked = st.session_state["soup"]
    shown = picked if picked in by_id else best_soup(view, stored).soup.id
    if len(ids) == 1 and label_visibility == "collapsed":
        return by_id[shown]
    # The options are ids, not soups: a widget keeps its options, and would return a soup as it was
    # before its weights were written.
    chosen = st.selectbox(
        label,
        ids,
        index=ids.index(shown),
        format_func=lambda soup_id: by_id[soup_id].label,
        width=360,
        label_visibility=label_visibility,
    )
    if chosen != shown:  # the default is not stored, since a better soup may be built
        st.session_state["soup"] = chosen
    return by_id[chosen]


def best_soup(view: View, stored: Sequence[StoredSoup]) -> StoredSoup:
    """Return the soup of the verdict; the newest if no soup is evaluated on the select split."""
    if not view.has_task:
        return stored[-1]
    return overview(view, stored).headline or stored[-1]


def overview(view: View, stored: Collection[StoredSoup]) -> Overview:
    """Return the overview of the sweep with these soups: that of the view if they are the same."""
    ids = [soup.soup.id for soup in stored]
    if ids == [soup.soup.id for soup in view.overview.soups]:
        return view.overview
    return Overview(view, [*stored])


def share(coefficient: Fraction) -> str:
    """Return a coefficient as text: a fraction if that is short, else a decimal number."""
    exact = str(coefficient)
    return exact if len(exact) <= _LONGEST_FRACTION else f"{float(coefficient):.4f}"


def describe(soup: Soup) -> str:
    """Return the composition of a soup as text; of many ingredients, only the largest."""
    if not soup.coefficients:
        sources = [*soup.ingredients, *([soup.base] if soup.base else [])]
        return f"merged weight by weight from {_few(sources)}"
    terms = soup.coefficients
    if len(terms) > _TERMS:
        if len(set(terms.values())) == 1 and sum(terms.values()) == 1:
            return f"mean of {len(terms)} ingredients"
        terms = dict(sorted(terms.items(), key=lambda term: -abs(term[1])))
    return _few([f"{name} × {share(coefficient)}" for name, coefficient in terms.items()])


def show_shortfall(view: View, soups: Sequence[StoredSoup]) -> None:
    """Warn of soups that score below the base or their best ingredient on select."""
    if not view.has_task:
        return
    lines = [line for stored in soups if (line := shortfall(view, stored))]
    if lines:
        more = [f"… and {len(lines) - _NAMED} more soups."] if len(lines) > _NAMED else []
        st.warning("  \n".join([*lines[:_NAMED], *more]), icon=":material/trending_down:")


def shortfall(view: View, stored: StoredSoup) -> str:
    """Return by how much a soup scores below the base or its best ingredient, as Markdown.

    Returns:
        A sentence; "" if the soup is not below either, as far as they are evaluated.
    """
    select, base = view.task.select, view.sweep.base
    members = {name: stored.sweep[name].mixture for name in stored.soup.ingredients}
    points = members | ({base.name: base.mixture} if base else {})
    known = evaluations(view, {**points, stored.label: stored.soup.mixture})
    best = best_on_select(known, select, members)
    others = {"the base": base.name if base else None}
    others |= {f"its best ingredient, {plain(best)}": best} if best else {}
    soup, unit = known[stored.label][select], view.task.score_unit
    texts = [
        f"{unit.gap(other.score - soup.score)} worse than {network} ({unit.text(other.score)})"
        for network, name in others.items()
        if name is not None
        and soup is not None
        and (other := known[name][select]) is not None
        and other.score > soup.score
    ]
    if soup is None or not texts:
        return ""
    return (
        f"**{plain(stored.label)}** scores {unit.text(soup.score)} on {plain(select)}: "
        f"{' and '.join(texts)}."
    )


def logged_metrics(sweep: Sweep) -> list[str]:
    """Return the logged metrics of a sweep that have a number for at least one ingredient."""
    names = dict.fromkeys(m for i in sweep.ingredients.values() for m in i.logged_metrics)
    return [name for name in names if logged_values(sweep, name)]


def logged_values(sweep: Sweep, metric: str) -> dict[str, float]:
    """Return the finite numbers of a logged metric, by ingredient."""
    by_name = {name: i.logged_metrics.get(metric) for name, i in sweep.ingredients.items()}
    return {
        name: float(value)
        for name, value in by_name.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def ranking_metric(sweep: Sweep) -> str | None:
    """Return the ranking metric; None if none is chosen, or the sweep has no such metric."""
    name: str = st.session_state["rank"]
    return name if name in logged_metrics(sweep) else None


def lower_is_better(metric: str) -> bool:
    """Whether lower values rank first: as the user chose, else by the name of the metric."""
    if st.session_state["rank"] == metric and st.session_state["better"] in ("lower", "higher"):
        return bool(st.session_state["better"] == "lower")
    return bool(is_lower_better(metric))


def ranked_by_logged(sweep: Sweep, names: list[str], metric: str) -> list[str]:
    """Return names by a logged metric, the best first; those without a value are last."""
    known = logged_values(sweep, metric)
    sign = 1 if lower_is_better(metric) else -1
    return sorted(names, key=lambda name: sign * known[name] if name in known else math.inf)


def logged_title(metric: str) -> str:
    """Return the column of a logged metric, which is marked as not measured here."""
    return metric if metric.endswith(" (logged)") else f"{metric} (logged)"


def _why_undefined(found: Evaluation) -> str:
    if undefined := found.undefined:
        return f"undefined for {undefined:,} of {found.n:,} examples"
    if failed := int(found.scores.isinf().sum()):
        return f"the network fails on {failed:,} of {found.n:,} examples"
    return "the metric has no finite value"


def _few(terms: Sequence[str]) -> str:
    if len(terms) <= _TERMS:
        return ", ".join(terms)
    return f"{', '.join(terms[:_NAMED])} and {len(terms) - _NAMED} more"
