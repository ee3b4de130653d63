"""What is known of ingredients and soups, as tables to show."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import mean
from typing import Any

import pandas as pd
import streamlit as st

from pages.components import asking, services
from pages.components.state import View
from soupcore import Evaluation, Mixture, Soup, StockpotError
from soupcore.jobs.stored_soups import StoredSoup as StoredSoup
from soupcore.jobs.stored_soups import StoredSoups

Known = dict[str, dict[str, Evaluation | None]]


def evaluations(view: View, points: Mapping[str, Mixture]) -> Known:
    """Return what is known of points: `{name: {split: evaluation or None}}`."""
    found: Known = {name: {} for name in points}
    for split in view.task.reported:
        known = view.evaluator.stored(list(points.values()), split)
        for name, evaluation in zip(points, known, strict=True):
            found[name][split] = evaluation
    return found


def ingredients(view: View) -> dict[str, Mixture]:
    """Return the ingredients as points."""
    return {name: ingredient.mixture for name, ingredient in view.sweep.ingredients.items()}


def soups(view: View) -> list[StoredSoup]:
    """Return the soups built of this sweep for this task, oldest first.

    They are those with the BatchNorm statistics that were chosen. Soups of ingredients that are no
    longer there are left out: their weights cannot be made. So are those that this version would
    make otherwise than the one that made them, and so knows nothing of.
    """
    found = []
    known = StoredSoups(services.store(), view.sweep)
    for row in services.store().soups(view.folder):
        if row.body["task"] != view.task_spec:
            continue
        try:
            stored = known.make(row.id, row.body)
        except StockpotError:
            continue
        if stored.soup.id == row.id and stored.soup.estimate == view.evaluator.estimate:
            found.append(stored)
    return found


def names_as_ingredients(view: View, stored: Collection[StoredSoup]) -> dict[str, str]:
    """Return the names that soups have among the sweep's ingredients: `{id: name}`.

    They are their labels; with the whole id where a file or another soup is called the same.
    """
    labels = Counter([*view.sweep.ingredients, *(soup.label for soup in stored)])
    return {
        soup.soup.id: soup.label
        if labels[soup.label] == 1
        else f"{soup.soup.recipe} {soup.soup.id}"
        for soup in stored
    }


def candidates(view: View, stored: StoredSoup) -> dict[str, Any]:
    """Return what a job is told to choose again from all that a soup was chosen from."""
    tried = {step.candidate for step in stored.soup.trace}
    soups = {name: soup_id for name, soup_id in stored.offered.items() if name in tried}
    names = [*view.sweep.names(tried - soups.keys()), *soups]
    return {"names": names, **({"soups": soups} if soups else {})}


def best_on_select(view: View, known: Known, names: Sequence[str]) -> str | None:
    """Return the name of the best on `select`, the first of equals; None where none is known."""
    scored = {
        name: evaluation.score
        for name in names
        if (evaluation := known[name][view.task.select]) is not None
    }
    return max(scored, key=lambda name: scored[name]) if scored else None


def shift_mean(view: View, known: Mapping[str, Evaluation | None]) -> float | None:
    """Return the mean score over all shift splits, None unless all of them are known."""
    found = [known[split] for split in view.task.splits_with_role("shift")]
    scores = [evaluation.score for evaluation in found if evaluation is not None]
    return mean(scores) if scores and len(scores) == len(found) else None


def metrics(view: View, soup: Soup) -> None:
    """Show what a soup scores on select, on report and under shift, as far as it is known."""
    known = evaluations(view, {"soup": soup.mixture})["soup"]
    with st.container(horizontal=True):
        for split, evaluation in known.items():
            if evaluation is not None and view.task.splits[split].role != "shift":
                st.metric(
                    f"{view.task.score_name} on {split}", f"{evaluation.score:.2%}", width=200
                )
        if (shift := shift_mean(view, known)) is not None:
            st.metric(f"mean {view.task.score_name} under shift", f"{shift:.2%}", width=240)


def offer_evaluation(view: View, stored: StoredSoup, *, key: str) -> None:
    """Offer to evaluate a soup on the splits where it is not known; they were cut off before.

    Args:
        view: What is looked at.
        stored: The soup.
        key: Tells the places apart that offer it of the same soup.
    """
    known = evaluations(view, {"soup": stored.soup.mixture})["soup"]
    missing = [split for split, found in known.items() if found is None]
    if missing:
        asking.button(
            f"Evaluate {stored.label} on {asking.splits(missing)}",
            "scores",
            f"Evaluate {stored.label}",
            view.request | {"soup": stored.soup.id},
            key=f"evaluate-{key}-{stored.soup.id}",
            primary=False,
        )


def scatter_table(view: View, known: Known, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Return report and mean shift by name, with the kind of each point."""
    reports = view.task.splits_with_role("report")
    rows = {
        name: {
            "report": _score(known[name], reports),
            "shift": shift_mean(view, known[name]),
            "kind": kind,
        }
        for name, kind in kinds.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["report", "shift", "kind"])
    return table.astype({"report": float, "shift": float})


def _score(known: Mapping[str, Evaluation | None], splits: list[str]) -> float | None:
    evaluation = known[splits[0]] if splits else None
    return evaluation.score if evaluation else None
