"""Each figure that a page shows is the one that the Python beside it makes."""

import runpy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import streamlit as st

from pages.components import (
    attribution,
    comparison,
    cooking,
    jobs,
    optimism,
    recipe_curve,
    reliability,
    score_snippets,
    scores,
    services,
)
from pages.components.state import View
from soupcore import RECIPES, Parts, Soup, Store, curve, greedy, uniform, wise_ft
from soupcore.analysis import leave_one_out, shapley_values
from soupcore.evaluation import StatisticsChoice
from soupcore.jobs.stored_soups import StoredSoup
from soupcore.recipes import Number
from tests.pages.conftest import NAMES, Run, Shown, assert_makes

LEARNED = RECIPES["learned"]


@pytest.fixture
def evaluated(view: View) -> View:
    evaluate_files(view)
    return view


def keep(view: View, soup: Soup, offered: dict[str, str] | None = None) -> StoredSoup:
    """Remember a soup as a job does, and return it as the pages have it."""
    soup.evaluate(view.evaluator)
    told = {"task": view.task_spec, "offered": offered or {}}
    view.evaluator.store.add_soup(soup.id, view.folder, soup.to_json() | told)
    return next(stored for stored in scores.soups(view) if stored.soup.id == soup.id)


def soup_of_soups(view: View) -> StoredSoup:
    first = keep(view, RECIPES["ties"].follow(view.sweep, view.evaluator, ["run1", "run2"]))
    more = view.including({"first": first})
    return keep(view, uniform(more.sweep, ["run10", "first"]), {"first": first.soup.id})


def evaluate_files(view: View) -> None:
    for name in ["base", *NAMES]:
        for split in view.task.reported:
            view.evaluator.evaluate(view.sweep[name].mixture, split)


def cook(monkeypatch: pytest.MonkeyPatch, view: View, soup: Soup, request: dict[str, Any]) -> None:
    """Show what came of a job that made a soup."""
    kept = keep(view, soup, request.get("soups"))
    result = {"soup": kept.soup.id, "other": None}
    job = SimpleNamespace(
        request=request, title="A soup", is_unfinished=False, error=None, result=result
    )
    monkeypatch.setattr(jobs, "get", lambda job_id: job)
    cooking.follow(view, RECIPES[request["recipe"]], 1)


@pytest.mark.parametrize("selection", [[], ["run2"]])
def test_ingredients(
    monkeypatch: pytest.MonkeyPatch,
    evaluated: View,
    run: Run,
    shown: dict[str, Shown],
    selection: list[str],
) -> None:
    session = {"view": evaluated, "selection": selection, "sweep": evaluated.folder}
    monkeypatch.setattr(st, "session_state", session)
    runpy.run_module("pages.ingredients")
    assert list(shown) == ["overview", "scatter"]
    for each in shown.values():
        assert_makes(run, each)
    assert list(shown["overview"].table.index) == NAMES
    assert list(shown["scatter"].table.index) == [*NAMES, "base"]


def test_ingredients_of_which_some_are_known(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown]
) -> None:
    view.evaluator.evaluate(view.sweep["run10"].mixture, "val")
    session = {"view": view, "selection": [], "sweep": view.folder}
    monkeypatch.setattr(st, "session_state", session)
    monkeypatch.setattr(jobs, "unfinished", lambda kind, **request: None)
    runpy.run_module("pages.ingredients")
    assert list(shown) == ["overview"]
    assert_makes(run, shown["overview"])
    assert list(shown["overview"].table.index) == ["run10"]


@pytest.mark.parametrize("statistics", ["averaged", "re-estimated"])
def test_the_comparison_with_soups_of_soups(
    monkeypatch: pytest.MonkeyPatch,
    evaluated: View,
    run: Run,
    shown: dict[str, Shown],
    statistics: StatisticsChoice,
) -> None:
    view = evaluated.with_statistics(statistics)
    of_soups = soup_of_soups(view)
    evaluate_files(view)
    monkeypatch.setattr(st, "session_state", {"soup": of_soups.soup.id})
    monkeypatch.setattr(jobs, "unfinished", lambda kind, **request: None)
    comparison.show(view)
    assert_makes(run, shown["comparison-scatter"])
    table = shown["comparison-scatter"].table
    assert list(table["kind"]) == ["ingredient"] * 3 + ["base"] + ["soup"] * 2
    assert of_soups.label in table.index


@pytest.mark.parametrize("after", [False, True])
def test_calibration(
    monkeypatch: pytest.MonkeyPatch, evaluated: View, run: Run, shown: dict[str, Shown], after: bool
) -> None:
    picked = soup_of_soups(evaluated)
    monkeypatch.setattr(st, "toggle", lambda label, key: after and "temperature" in key)
    points = scores.ingredients(evaluated) | {picked.label: picked.soup.mixture}
    reliability.show(evaluated, picked, "run2", scores.evaluations(evaluated, points))
    assert_makes(run, shown["reliability"])
    table = shown["reliability"].table
    assert list(table["network"].unique()) == [picked.label, "run2", "ensemble"]
    assert (table["temperature"] != 1).all() == after


@pytest.mark.parametrize("recipe", ["wise_ft", "ties"])
def test_the_curve_and_the_trade_off_of_a_recipe(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown], recipe: str
) -> None:
    followed = RECIPES[recipe]
    number = next(p for p in followed.parameters if isinstance(p, Number) and p.curve)
    others = {p.name: p.default for p in followed.parameters if p is not number}
    drawn = curve(
        recipe, number.name, view.sweep, view.evaluator, NAMES, splits=view.task.reported, **others
    )
    points = [
        {"value": value, "scores": soup.to_json()["scores"]}
        for value, soup in zip(drawn.values, drawn.soups, strict=True)
    ]
    result = {"points": points, "best": drawn.best.parameters[number.name]}
    monkeypatch.setattr(jobs, "last", lambda kind, **request: SimpleNamespace(result=result))
    monkeypatch.setattr(jobs, "unfinished", lambda kind, **request: None)
    monkeypatch.setattr(st, "segmented_control", lambda label, options, **told: options[0])
    recipe_curve.show(view, followed, NAMES, {number.name: number.default} | others)
    assert [key.partition(f"-{recipe}")[0] for key in shown] == ["curve", "trade-off"]
    for each in shown.values():
        assert_makes(run, each)


@pytest.mark.parametrize("recipe", ["uniform", "task_arithmetic", "ties", "of soups"])
def test_attribution(
    monkeypatch: pytest.MonkeyPatch,
    evaluated: View,
    run: Run,
    shown: dict[str, Shown],
    recipe: str,
) -> None:
    if recipe == "of soups":
        picked = soup_of_soups(evaluated)
    else:
        picked = keep(evaluated, RECIPES[recipe].follow(evaluated.sweep, evaluated.evaluator))
    parts = Parts(picked.sweep, picked.soup)
    shares = shapley_values(evaluated.evaluator, parts, "test")
    result = {
        "shapley": {name: [share.value, share.standard_error] for name, share in shares.items()},
        "without": leave_one_out(evaluated.evaluator, parts, "test"),
    }
    monkeypatch.setattr(jobs, "last", lambda kind, **request: SimpleNamespace(result=result))
    attribution.show(evaluated, picked)
    assert_makes(run, shown["attribution"])
    table = shown["attribution"].table
    assert dict(table["lost without it"]) == result["without"]
    assert list(table["Shapley value"]) == [share.value for share in shares.values()]


@pytest.mark.parametrize("statistics", ["averaged", "re-estimated"])
def test_the_trace_of_a_soup_that_is_shown_with_either_statistics(
    monkeypatch: pytest.MonkeyPatch,
    evaluated: View,
    run: Run,
    shown: dict[str, Shown],
    statistics: StatisticsChoice,
) -> None:
    first = keep(evaluated, uniform(evaluated.sweep, ["run1", "run2"]))
    more = evaluated.including({"first": first})
    then = more.with_statistics("re-estimated")
    names = [*NAMES, "first"]
    soup = greedy(then.sweep, then.evaluator, names, backward=True)
    assert greedy(more.sweep, more.evaluator, names, backward=True).trace != soup.trace
    request = then.request | {"recipe": "greedy", "names": names, "parameters": soup.parameters}
    monkeypatch.setattr(st, "session_state", {})
    if statistics == "averaged":
        soup = replace(soup, estimate=None, statistics={}, evaluations={})
    cook(monkeypatch, evaluated.with_statistics(statistics), soup, request)
    assert_makes(run, shown["greedy-trace"])
    table = shown["greedy-trace"].table
    assert set(table["candidate"]) == set(names)
    assert list(table["action"]).count("add") == 4
    np.testing.assert_allclose(table["soup so far"] * 100, shown["greedy-trace"].figure.data[0].y)


@pytest.mark.parametrize("stopped_after", [None, 2])
def test_the_passes_of_a_soup_even_if_it_was_stopped(
    monkeypatch: pytest.MonkeyPatch,
    evaluated: View,
    run: Run,
    shown: dict[str, Shown],
    stopped_after: int | None,
) -> None:
    told = LEARNED.check({"passes": 4, "optimizer": "adamw"})
    soup = LEARNED.follow(evaluated.sweep, evaluated.evaluator, NAMES, **told)
    soup.passes = soup.passes[:stopped_after]
    request = evaluated.request | {"recipe": "learned", "names": NAMES, "parameters": told}
    monkeypatch.setattr(st, "session_state", {})
    cook(monkeypatch, evaluated, soup, request)
    assert_makes(run, shown["learning-curve"])
    assert list(shown["learning-curve"].table["number"]) == [p.number for p in soup.passes]


def test_a_split_may_be_called_anything(evaluated: View, shown: dict[str, Shown]) -> None:
    picked = keep(evaluated, uniform(evaluated.sweep, ["run1", "run2"]))
    compile(score_snippets.attribution(evaluated, picked, 'a "{b}" \'c\\d'), "code", "exec")


def test_a_curve_is_told_of_the_soups_that_are_points_of_it(
    monkeypatch: pytest.MonkeyPatch, evaluated: View, store: Store
) -> None:
    on, off = (wise_ft(evaluated.sweep, ["run1"], alpha=alpha) for alpha in (0.5, 0.55))
    by_halves = {"promised": 0.75, "delivered": 0.5}
    drawn = {"points": [{"value": 0.5, "soup": on.id}], "cross_fit": by_halves}
    earlier = {"points": [{"value": 0.55}], "cross_fit": by_halves}
    found = [SimpleNamespace(result=each) for each in (None, earlier, drawn)]
    monkeypatch.setattr(jobs, "done", lambda kind, **request: iter(found))
    monkeypatch.setattr(services, "store", lambda: store)
    said: list[str] = []
    monkeypatch.setattr(st, "caption", said.append)
    known = scores.evaluations(evaluated, scores.ingredients(evaluated))
    for soup in (on, off):
        picked = keep(evaluated, soup)
        known |= scores.evaluations(evaluated, {picked.label: soup.mixture})
        optimism.show(evaluated, picked, "run1", known)
    assert [text for text in said if "The best α of 1, " in text] == [
        "The best α of 1, chosen on one half of val and scored on the other, 200 times over: "
        "75.00% promised, 50.00% delivered, so choosing flatters by 25.00 points."
    ]


def test_the_evidence_of_a_soup_of_soups_is_printed(
    capsys: pytest.CaptureFixture[str], evaluated: View, shown: dict[str, Shown]
) -> None:
    picked = soup_of_soups(evaluated)
    exec(score_snippets.evidence(evaluated, picked, "run2"), {})  # noqa: S102
    assert "first" in capsys.readouterr().out
