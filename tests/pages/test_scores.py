from types import SimpleNamespace
from typing import Any

import pytest
import streamlit as st
import torch
from torch import nn

from pages.components import scores
from pages.components.state import View
from soupcore import ClassificationTask, Evaluation, Evaluator, Split, uniform
from soupcore.evaluation import Evaluations
from soupcore.stored_soups import StoredSoup
from soupcore.tasks import TaskDescription
from tests.helpers import State, held_sweep


@pytest.mark.parametrize("is_taken", [False, True])
def test_a_soup_has_another_name_than_a_file(
    evaluator: Evaluator, states: dict[str, State], is_taken: bool
) -> None:
    soup = uniform(held_sweep(states), ["run1"])
    label = f"uniform {soup.id[:4]}"
    sweep = held_sweep(states | ({label: states["run2"]} if is_taken else {}))
    view = View(sweep, evaluator, "held", "task.py:task")
    stored = StoredSoup(soup, sweep)
    names = scores.names_as_ingredients(view, [stored])
    assert names == {soup.id: f"uniform {soup.id}" if is_taken else label}
    more = view.including({names[soup.id]: stored})
    assert len(more.sweep) == len(sweep) + 1
    assert more.request["soups"] == {names[soup.id]: soup.id}


def task_of(*roles: str, precision: str = "float32") -> ClassificationTask:
    splits = {
        f"{role}_{number}": Split(role, torch.zeros(11, 1), torch.arange(11) % 4)  # type: ignore[arg-type]
        for number, role in enumerate(roles)
    }
    return ClassificationTask(lambda: nn.Linear(1, 4), splits, precision=precision)  # type: ignore[arg-type]


@pytest.mark.parametrize("described", [False, True])
def test_a_caption_names_the_majority_class_and_the_precision(described: bool) -> None:
    tasks: list[Any] = [task_of("select"), task_of("select", precision="bfloat16 autocast")]
    if described:
        tasks = [TaskDescription.from_json(task.describe().to_json()) for task in tasks]
    plain, mixed = map(scores.task_notes, tasks)
    assert plain == " · majority class 27.3 % of select_0"
    assert mixed == plain + " · evaluated in **bfloat16 autocast**"


@pytest.mark.parametrize(
    ("roles", "sentence"),
    [
        (("report", "shift"), "Judge by test and the shifted splits."),
        (("report",), "Judge by test."),
        (("shift",), "Judge by the shifted splits."),
        ((), "There is no test split; the cross-fitted estimates under Evidence"),
    ],
)
def test_the_advice_names_the_splits_of_the_task(roles: tuple[str, ...], sentence: str) -> None:
    assert scores.advice(task_of("select", *roles)).startswith(sentence)


NAN = float("nan")
PAIRS = (["run1", "run2"], ["run1", "run10"], ["run2", "run10"])


class FixedScores(Evaluations):
    """Evaluations with scores set by `set_scores` in place of those in a store."""

    scores: dict[str, float]

    def stored(self, mixtures: Any, split: str) -> list[Evaluation | None]:
        found = [self.scores.get(mixture.key) for mixture in mixtures]
        return [None if score is None else _evaluation(score) for score in found]


def _evaluation(score: float) -> Any:
    return SimpleNamespace(score=score, loss=0.0, n=10, undefined=3)


@pytest.fixture
def view(evaluator: Evaluator, base_state: State, states: dict[str, State]) -> View:
    fixed = FixedScores(evaluator.task.describe(), evaluator.store)
    fixed.scores = {}
    return View(held_sweep(states, base_state), fixed, "held", "task.py:task")


@pytest.fixture
def soups(view: View) -> list[StoredSoup]:
    """Three soups, the one built first in front."""
    return [StoredSoup(uniform(view.sweep, pair), view.sweep) for pair in PAIRS]


def set_scores(view: View, scores: dict[str, float | None]) -> None:
    """Set the scores of ingredients and of uniform soups, such as run1+run2, on every split."""
    fixed = view.evaluations
    assert isinstance(fixed, FixedScores)
    for names, score in scores.items():
        parts = names.split("+")
        point = uniform(view.sweep, parts).mixture if len(parts) > 1 else view.sweep[names].mixture
        if score is not None:
            fixed.scores[point.key] = score


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        pytest.param([0.7, 0.9, 0.8], 1, id="the best, not the newest"),
        pytest.param([0.9, 0.8, 0.9], 0, id="of equals the one built first"),
        pytest.param([NAN, 0.5, 0.4], 1, id="an undefined score is never the best"),
        pytest.param([None, None, 0.1], 2, id="one that was evaluated before those that were not"),
        pytest.param([None, None, None], 2, id="the newest where none was evaluated"),
        pytest.param([-3.0, -2.0, -5.0], 1, id="scores that are no shares"),
    ],
)
def test_pages_open_on_the_best_soup_on_select(
    view: View, soups: list[StoredSoup], known: list[float | None], expected: int
) -> None:
    set_scores(view, dict(zip(map("+".join, PAIRS), known, strict=True)))
    assert scores.best_soup(view, soups) is soups[expected]


def test_the_session_keeps_a_chosen_soup_but_no_default(
    monkeypatch: pytest.MonkeyPatch, view: View, soups: list[StoredSoup]
) -> None:
    set_scores(view, {"run1+run2": 0.9, "run1+run10": 0.5})
    session = {"soup": "gone"}
    monkeypatch.setattr(st, "session_state", session)
    monkeypatch.setattr(st, "selectbox", lambda label, ids, index, **options: ids[index])
    assert scores.choose_soup(view, soups, "Soup") is soups[0]
    assert session["soup"] == "gone"
    monkeypatch.setattr(st, "selectbox", lambda label, ids, index, **options: ids[1])
    assert scores.choose_soup(view, soups, "Soup") is soups[1]
    assert session["soup"] == soups[1].soup.id


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        pytest.param({"base": 0.5, "run1": 0.8, "run2": 0.7, "run1+run2": 0.8}, "", id="as good"),
        pytest.param(
            {"base": 0.5, "run1": 0.989, "run2": 0.7, "run10": 1.0, "run1+run2": 0.85},
            "scores 85.00 % on val: 13.90 pp worse than its best ingredient, run1 (98.90 %).",
            id="below its best ingredient; others do not count",
        ),
        pytest.param(
            {"base": 0.9, "run1": 0.9, "run2": 0.95, "run1+run2": 0.85},
            "scores 85.00 % on val: 5.00 pp worse than the base (90.00 %) and 10.00 pp "
            "worse than its best ingredient, run2 (95.00 %).",
            id="below both",
        ),
        pytest.param(
            {"base": 0.9, "run1": 0.1, "run2": None, "run1+run2": 0.85},
            "scores 85.00 % on val: 5.00 pp worse than the base (90.00 %).",
            id="below the base",
        ),
        pytest.param({"run1": 0.9, "run1+run2": None}, "", id="the soup is not known"),
        pytest.param({"run1": NAN, "base": NAN, "run1+run2": 0.5}, "", id="undefined"),
    ],
)
def test_a_soup_below_its_ingredients_or_the_base_has_a_warning(
    view: View, soups: list[StoredSoup], known: dict[str, float | None], expected: str
) -> None:
    set_scores(view, known)
    label = f"**{soups[0].label}** "
    assert scores.shortfall(view, soups[0]) == (label + expected if expected else "")
