"""What is known of ingredients and soups, as tables to show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import pandas as pd
import streamlit as st

from pages.components import asking, services
from pages.components.state import View, soup_label
from soupcore import Evaluation, Mixture, Soup

Known = dict[str, dict[str, Evaluation | None]]


@dataclass(frozen=True)
class StoredSoup:
    """A soup of the store.

    Attributes:
        label: What it is called on the pages: its recipe and the beginning of its id.
        soup: The soup, made again from its recipe.
    """

    label: str
    soup: Soup


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
    for row in services.store().soups(view.folder):
        if row.body["task"] != view.task_spec:
            continue
        digests = row.body["digests"]
        present = {name: view.sweep[name].digest for name in digests if _has(view, name)}
        if present == digests:
            soup = Soup.from_json(view.sweep, row.body)
            if soup.id == row.id and soup.estimate == view.evaluator.estimate:
                found.append(StoredSoup(soup_label(soup.recipe, soup.id), soup))
    return found


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


def offer_evaluation(view: View, stored: StoredSoup) -> None:
    """Offer to evaluate a soup on the splits where it is not known; they were cut off before."""
    known = evaluations(view, {"soup": stored.soup.mixture})["soup"]
    missing = [split for split, found in known.items() if found is None]
    if missing:
        asking.button(
            f"Evaluate {stored.label} on {asking.splits(missing)}",
            "scores",
            f"Evaluate {stored.label}",
            view.request | {"soup": stored.soup.id},
            key=f"evaluate-{stored.soup.id}",
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


def _has(view: View, name: str) -> bool:
    return name in view.sweep.ingredients or (
        view.sweep.base is not None and name == view.sweep.base.name
    )
