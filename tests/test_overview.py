"""What is known of a sweep, read from a store that a task has filled."""

import math
from dataclasses import fields, replace
from itertools import combinations

import numpy as np
import pytest
import torch

from soupcore import ClassificationTask, Evaluator, Soup, Split, Store, Sweep, greedy, uniform
from soupcore.analysis import paired
from soupcore.calls import Context, GreedyEnsembleScores, Optimism
from soupcore.connectivity import PairSummaries, evaluate_lines, summaries
from soupcore.evaluation import Evaluation, Evaluations
from soupcore.overview import (
    GREEDY,
    Overview,
    best_on_select,
    choose_headline,
    members,
    ranked,
    title,
)
from soupcore.progress import no_progress
from soupcore.stored_soups import StoredSoups
from soupcore.sweeps import Ingredient
from soupcore.sweeps.tables import Scalar
from tests.toy import build_model

NAMES = ("run1", "run2", "run10")
TASK = "task.py:task"


@pytest.fixture
def running(sweep: Sweep, evaluator: Evaluator) -> Context:
    return Context(sweep, evaluator)


def keep(context: Context, soup: Soup, task_spec: str = TASK) -> str:
    soup.evaluate(context.evaluator)
    body = soup.to_json() | {"task": task_spec}
    context.evaluator.store.add_soup(soup.id, str(context.sweep.folder), body)
    return soup.id


def look(context: Context) -> Overview:
    """Return the overview as a page has it: with the description of the task only."""
    evaluations = Evaluations(context.task.describe(), context.evaluations.store)
    known = StoredSoups(evaluations.store, context.sweep)
    soups = known.of_task(str(context.sweep.folder), TASK, None)
    return Overview(replace(context, source=evaluations), soups)


def test_a_new_store_gives_no_results(running: Context) -> None:
    found = look(running)
    assert (found.best, found.headline, found.evaluated) == (None, None, [])
    assert str(found.verdict) == "Nothing has been evaluated yet."


def test_the_headline_is_the_best_on_select_and_judged_on_report(running: Context) -> None:
    sweep, evaluator = running.sweep, running.evaluator
    select, report = evaluator.task.select, "test"
    for split in evaluator.task.reported:
        evaluator.evaluate_all([sweep[name].mixture for name in NAMES], split)
    soups = [greedy(sweep, evaluator), uniform(sweep), uniform(sweep, ["run1", "run2"])]
    ids = [keep(running, soup) for soup in soups]
    keep(running, uniform(sweep, ["run1", "run10"]), "another.py:task")
    found = look(running)
    assert list(found.of_soups) == ids
    scores = [soup.evaluations[select].score for soup in soups]
    assert found.headline is not None
    assert found.headline.soup.id == ids[scores.index(max(scores))]
    alone = {name: evaluator.evaluate(sweep[name].mixture, select).score for name in NAMES}
    assert found.best == max(NAMES, key=lambda name: alone[name])
    gain = found.gain(ids[1], report)
    best = evaluator.evaluate(sweep[found.best].mixture, report)
    expected = paired(soups[1].evaluations[report].scores, best.scores)
    assert gain is not None
    assert (gain.difference, gain.interval) == (expected.difference, expected.interval)
    facts = found.facts.soup
    assert facts is not None
    assert [gain.split for gain in facts.on_shifts] == evaluator.task.splits_with_role("shift")
    assert found.verdict.outcome in ("better", "even", "worse")


def test_pairs_and_the_ensemble_are_shown_once_they_are_stored(
    running: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "SCREEN", 10)
    sweep, evaluator = running.sweep, running.evaluator
    part = evaluator.task.part(evaluator.task.select, 10)
    evaluator.evaluate_all([sweep[name].mixture for name in NAMES], evaluator.task.select)
    lines = [(sweep[a], sweep[b]) for a, b in combinations(NAMES, 2)]
    evaluate_lines(lines, evaluator, split=part)
    GreedyEnsembleScores(NAMES).run_and_keep(running, no_progress)
    found = look(running)
    facts = found.facts
    assert facts.basins is not None
    assert (facts.basins.known, facts.basins.pairs, facts.basins.screened) == (3, 3, 10)
    assert facts.basins.main == len(found.basins[0].names)
    assert facts.ensemble is not None
    assert facts.ensemble.members >= 1


@pytest.mark.parametrize(
    ("barriers", "hub", "apart", "lowest"),
    [
        ({"ab": 0.05, "ac": 0.9}, "", "cd", 0.05),
        ({"ab": 0.05, "ac": 0.9, "ad": 0.8}, "a", "cd", 0.05),
        ({"ab": 0.05, "ac": 0.9, "ad": 0.8, "bc": 0.1}, "a", "d", 0.05),
        ({"ab": 0.7, "ac": 0.9, "ad": math.nan, "bc": 0.1}, "a", "bcd", 0.7),
        ({"ab": 0.7, "ac": 0.9, "ad": 0.8, "bc": 0.1, "bd": 0.1, "cd": 0.2}, "", "a", 0.1),
    ],
)
def test_lines_from_the_best_run_give_its_basin(
    running: Context, barriers: dict[str, float], hub: str, apart: str, lowest: float
) -> None:
    one = running.sweep["run1"]
    runs = {name: replace(one, name=name) for name in "abcd"}
    made = Sweep(running.sweep.folder, runs, None, running.sweep.fit)
    found = Overview(replace(running, sweep=made), ())
    ends = np.array(["abcd".index(name) for pair in sorted(barriers) for name in pair])
    values = np.full((len(barriers), len(fields(summaries.LineSummary))), math.nan)
    column = [field.name for field in fields(summaries.LineSummary)].index("barrier")
    values[:, column] = [barriers[pair] for pair in sorted(barriers)]
    settled = np.ones(len(barriers), dtype=bool)
    pairs = PairSummaries(tuple("abcd"), ends.reshape(-1, 2), values, settled, ~settled)
    vars(found).update(pairs=pairs, best="a")
    facts = found.facts.basins
    assert facts is not None
    assert (facts.hub, facts.apart, facts.main) == (hub, tuple(apart), 4 - len(apart))
    assert facts.lowest == lowest


def test_without_a_report_split_the_estimate_is_cross_fitted(
    sweep: Sweep, splits: dict[str, Split], store: Store
) -> None:
    held = {name: split for name, split in splits.items() if split.role != "report"}
    context = Context(sweep, Evaluator(ClassificationTask(build_model, held), store, device="cpu"))
    keep(context, greedy(sweep, context.evaluator))
    assert look(context).facts.cross_fit is None
    known = Optimism(NAMES, GREEDY).run_and_keep(context, no_progress)
    found = look(context)
    assert found.facts.cross_fit == known["gain_delivered"]
    assert found.facts.report is None
    assert found.verdict.outcome in ("open", "even")


@pytest.mark.parametrize(
    ("told", "apart"),
    [
        ({"lr": 0.2}, "odd (lr 0.2)"),
        ({"lr": 0.005}, "odd"),  # within the range of the others
        ({"init": "scratch"}, "odd (init scratch)"),
        ({"aug": "none"}, "odd"),  # the others do not agree
        ({"seed": 99}, "odd"),
        ({"lr": float("nan"), "init": True}, "odd"),
    ],
)
def test_a_run_outside_the_basin_is_named_with_its_differences(
    running: Context, told: dict[str, Scalar], apart: str
) -> None:
    sweep = running.sweep
    rates = {"a": 0.001, "b": 0.01}
    runs: dict[str, dict[str, Scalar]] = {
        name: {"lr": rate, "init": "base", "aug": name, "seed": 1} for name, rate in rates.items()
    }
    runs["odd"] = {"lr": 0.002, "init": "base", "aug": "a", "seed": 2, **told}
    one = sweep["run1"].checkpoint
    made = Sweep(
        sweep.folder, {n: Ingredient(n, one, each) for n, each in runs.items()}, None, sweep.fit
    )
    found = Overview(replace(running, sweep=made), ())
    assert found._apart({"a", "b"}) == (apart,)


def test_ties_go_to_the_first_and_undefined_scores_to_none(running: Context) -> None:
    at = running.evaluator.evaluate(running.sweep["run1"].mixture, "val")
    known: dict[str, dict[str, Evaluation | None]] = {
        "none": {"val": None},
        "nan": {"val": replace(at, score=float("nan"))},
        "b": {"val": replace(at, score=0.5)},
        "a": {"val": replace(at, score=0.5)},
    }
    assert best_on_select(known, "val") == "b"
    assert best_on_select(known, "val", ["a", "b"]) == "a"
    assert best_on_select(known, "val", ["none", "nan"]) is None
    better: dict[str, dict[str, Evaluation | None]] = {"c": {"val": replace(at, score=0.75)}}
    assert ranked(known | better, "val") == ["c", "b", "a"]


def scored(at: Evaluation, right: list[int]) -> Evaluation:
    """Return an evaluation with these scores of the examples."""

    class Scored(Evaluation):
        @property
        def scores(self) -> torch.Tensor:
            return torch.tensor(right, dtype=torch.float32)

    told = {each.name: getattr(at, each.name) for each in fields(at)}
    return Scored(**told | {"n": len(right), "score": sum(right) / len(right)})


@pytest.mark.parametrize(
    ("learned", "alone", "expected"),
    [
        pytest.param([1] * 58 + [0] * 42, (), ("greedy", "learned"), id="by chance"),
        pytest.param([1] * 90 + [0] * 10, (), ("learned", None), id="by more than chance"),
        pytest.param([1] * 40 + [0] * 60, (), ("greedy", None), id="worse"),
        pytest.param([1] * 58 + [0] * 42, ("greedy",), ("learned", None), id="best run alone"),
        pytest.param(None, (), ("greedy", None), id="not evaluated"),
    ],
)
def test_a_fitted_soup_has_to_be_ahead_by_more_than_chance(
    running: Context,
    learned: list[int] | None,
    alone: tuple[str, ...],
    expected: tuple[str, str | None],
) -> None:
    at = running.evaluator.evaluate(running.sweep["run1"].mixture, "val")
    known: dict[str, dict[str, Evaluation | None]] = {
        "greedy": {"val": scored(at, [0] * 2 + [1] * 55 + [0] * 43)},
        "learned": {"val": None if learned is None else scored(at, learned)},
    }
    soups = {name: replace(uniform(running.sweep), recipe=name) for name in known}
    assert choose_headline(running.task, known, soups, alone) == expected


def test_an_ingredient_with_coefficient_0_is_no_member(running: Context) -> None:
    soup = uniform(running.sweep, ["run1", "run2"])
    soup.coefficients["run2"] *= 0
    assert (members(soup), title(soup)) == (["run1"], "Uniform")
    soup.recipe = "manual"
    assert title(soup) == "Manual"
