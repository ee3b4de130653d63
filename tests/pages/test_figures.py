"""The Python of each figure on the pages reproduces the figure."""

from dataclasses import replace
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import streamlit as st

from pages import compare
from pages import geometry as geometry_page
from pages import overview as overview_page
from pages.components import building, evidence, jobs, scores, selection_bias, snippets
from pages.components.state import View
from soupcore import (
    RECIPES,
    Parts,
    Soup,
    Store,
    barriers,
    geometry,
    greedy,
    linear_path,
    plane,
    uniform,
    wise_ft,
)
from soupcore.analysis import leave_one_out, shapley_values
from soupcore.calls import Attribution, Context, ParameterCurve, TwoModelTheory
from soupcore.connectivity import summaries
from soupcore.evaluation import StatisticsChoice
from soupcore.overview import Overview
from soupcore.plan import steps
from soupcore.progress import no_progress
from soupcore.recipes import Number
from soupcore.stored_soups import StoredSoup
from tests.pages.conftest import NAMES, Run, Shown, assert_makes, evaluator_of

LEARNED = RECIPES["learned"]


@pytest.fixture
def evaluated(view: View) -> View:
    evaluate_files(view)
    return view


def keep(view: View, soup: Soup, offered: dict[str, str] | None = None) -> StoredSoup:
    """Store a soup as a job does, and return it as the pages have it."""
    soup.evaluate(evaluator_of(view))
    request = {"task": view.task_spec, "offered": offered or {}}
    view.evaluations.store.add_soup(soup.id, view.folder, soup.to_json() | request)
    return next(stored for stored in scores.soups(view) if stored.soup.id == soup.id)


def soup_of_soups(view: View) -> StoredSoup:
    first = keep(view, RECIPES["ties"].follow(view.sweep, evaluator_of(view), ["run1", "run2"]))
    more = view.including({"first": first})
    return keep(view, uniform(more.sweep, ["run10", "first"]), {"first": first.soup.id})


def evaluate_files(view: View) -> None:
    evaluator = evaluator_of(view)
    for name in ["base", *NAMES]:
        for split in view.task.reported:
            evaluator.evaluate(view.sweep[name].mixture, split)


def show_built(
    monkeypatch: pytest.MonkeyPatch, view: View, soup: Soup, request: dict[str, Any]
) -> None:
    """Show the result of a job that built a soup."""
    kept = keep(view, soup, request.get("soups"))
    result = {"soup": kept.soup.id, "other": None}
    job = SimpleNamespace(
        kind="soup", request=request, title="A soup", is_unfinished=False, error=None, result=result
    )
    monkeypatch.setattr(jobs, "get", lambda job_id: job)
    building.show_result(view, RECIPES[request["recipe"]], 1)


def test_ingredients(
    monkeypatch: pytest.MonkeyPatch, evaluated: View, run: Run, shown: dict[str, Shown]
) -> None:
    for selection in ([], ["run2"]):
        session = {"view": evaluated, "selection": selection, "sweep": evaluated.folder}
        monkeypatch.setattr(st, "session_state", session)
        shown.clear()
        import_module("pages.ingredients").main(evaluated)
        assert list(shown) == ["parallel", "overview", "scatter", "columns"]
        for each in shown.values():
            assert_makes(run, each)
    assert list(shown["overview"].table.index) == NAMES
    assert list(shown["scatter"].table.index) == [*NAMES, "base"]


def test_ingredients_with_a_single_evaluation(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown]
) -> None:
    evaluator_of(view).evaluate(view.sweep["run10"].mixture, "val")
    session = {"view": view, "selection": [], "sweep": view.folder, "is_linked": True}
    monkeypatch.setattr(st, "session_state", session)
    monkeypatch.setattr(jobs, "unfinished", lambda kind, **request: None)
    import_module("pages.ingredients").main(session["view"])
    assert list(shown) == ["parallel", "overview", "columns"]
    for each in shown.values():
        assert_makes(run, each)
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
    rows = ["run1", of_soups.handle, "base", "gone"]
    session: dict[str, Any] = {"soup": of_soups.soup.id, "compare": rows, "selection": []}
    monkeypatch.setattr(st, "session_state", session)
    monkeypatch.setattr(jobs, "unfinished", lambda kind, **request: None)
    compare.main(view)
    assert session["compare"] == ["run1", of_soups.handle, "base"]
    assert_makes(run, shown["comparison-scatter"])
    assert_makes(run, shown["differences"])
    assert set(shown["differences"].table["name"]) <= {of_soups.label, "run1", "base"}
    table = shown["comparison-scatter"].table
    assert list(table["kind"]) == ["ingredient"] * 3 + ["base"] + ["soup"] * 2
    assert of_soups.label in table.index


def test_calibration(
    monkeypatch: pytest.MonkeyPatch, evaluated: View, run: Run, shown: dict[str, Shown]
) -> None:
    picked = soup_of_soups(evaluated)
    points = scores.ingredients(evaluated) | {picked.label: picked.soup.mixture}
    known = scores.evaluations(evaluated, points)
    for after in (False, True):
        scaled = {"calibration-temperature": after, "calibration-table": False}
        monkeypatch.setattr(st, "toggle", lambda label, key, scaled=scaled: scaled[key])
        evidence.show_calibration(evaluated, picked, "run2", known)
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
    given = {name: value for name, value in followed.check(others).items() if name in others}
    call = ParameterCurve(recipe, number.name, tuple(NAMES), number.curve, given)
    call.run_and_keep(Context(view.sweep, evaluator_of(view)), no_progress)
    monkeypatch.setattr(st, "segmented_control", lambda label, options, **more: options[0])
    building.show_curve(view, followed, NAMES, {number.name: number.default} | others)
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
        picked = keep(evaluated, RECIPES[recipe].follow(evaluated.sweep, evaluator_of(evaluated)))
    parts = Parts(picked.sweep, picked.soup)
    shares = shapley_values(evaluator_of(evaluated), parts, "test")
    call = Attribution(picked.soup.id, "test")
    call.run_and_keep(Context(evaluated.sweep, evaluator_of(evaluated)), no_progress)
    evidence.show_attribution(evaluated, picked)
    assert_makes(run, shown["attribution"])
    table = shown["attribution"].table
    without = leave_one_out(evaluator_of(evaluated), parts, "test")
    assert dict(table["lost without it"]) == without
    assert list(table["Shapley value"]) == [share.value for share in shares.values()]


def test_the_trace_of_a_soup_with_either_statistics(
    monkeypatch: pytest.MonkeyPatch, evaluated: View, run: Run, shown: dict[str, Shown]
) -> None:
    first = keep(evaluated, uniform(evaluated.sweep, ["run1", "run2"]))
    more = evaluated.including({"first": first})
    then = more.with_statistics("re-estimated")
    names = [*NAMES, "first"]
    soup = greedy(then.sweep, evaluator_of(then), names, backward=True)
    assert greedy(more.sweep, evaluator_of(more), names, backward=True).trace != soup.trace
    request = then.request | {"recipe": "greedy", "names": names, "parameters": soup.parameters}
    monkeypatch.setattr(st, "session_state", {})
    averaged = replace(soup, estimate=None, statistics={}, evaluations={})
    both: dict[StatisticsChoice, Soup] = {"averaged": averaged, "re-estimated": soup}
    for statistics, built in both.items():
        show_built(monkeypatch, evaluated.with_statistics(statistics), built, request)
        assert_makes(run, shown["greedy-trace"])
        table, figure = shown["greedy-trace"].table, shown["greedy-trace"].figure
        assert set(table["candidate"]) == set(names)
        assert list(table["action"]).count("add") == 4
        np.testing.assert_allclose(table["soup so far"] * 100, figure.data[0].y)


@pytest.mark.parametrize("kept", [None, 2])
def test_the_passes_of_a_complete_and_of_a_cancelled_soup(
    monkeypatch: pytest.MonkeyPatch,
    evaluated: View,
    run: Run,
    shown: dict[str, Shown],
    kept: int | None,
) -> None:
    parameters = LEARNED.check({"passes": 4, "optimizer": "adamw"})
    soup = LEARNED.follow(evaluated.sweep, evaluator_of(evaluated), NAMES, **parameters)
    soup.passes = soup.passes[:kept]
    request = evaluated.request | {"recipe": "learned", "names": NAMES, "parameters": parameters}
    monkeypatch.setattr(st, "session_state", {})
    show_built(monkeypatch, evaluated, soup, request)
    assert_makes(run, shown["learning-curve"])
    assert list(shown["learning-curve"].table["number"]) == [p.number for p in soup.passes]


def test_snippets_quote_names_of_splits(evaluated: View, shown: dict[str, Shown]) -> None:
    picked = keep(evaluated, uniform(evaluated.sweep, ["run1", "run2"]))
    call = Attribution(picked.soup.id, 'a "{b}" \'c\\d')
    compile(snippets.attribution(evaluated, call), "code", "exec")


def test_the_bias_of_a_curve_is_shown_for_its_points_only(
    monkeypatch: pytest.MonkeyPatch, evaluated: View, shown: dict[str, Shown], store: Store
) -> None:
    on, off = (wise_ft(evaluated.sweep, ["run1"], alpha=alpha) for alpha in (0.5, 0.55))
    number = next(p for p in RECIPES["wise_ft"].parameters if isinstance(p, Number) and p.curve)
    drawn = {
        "points": [{"value": 0.5, "soup": on.id}],
        "cross_fit": {"promised": 0.75, "delivered": 0.5},
    }
    for soup in (on, off):
        call = ParameterCurve.of_soup(soup, number, ["run1"])
        context = Context(evaluated.sweep, evaluated.evaluations)
        store.add_result(call.key(context), call.kind, drawn)
    captions: list[str] = []
    monkeypatch.setattr(st, "caption", captions.append)
    known = scores.evaluations(evaluated, scores.ingredients(evaluated))
    for soup in (on, off):
        picked = keep(evaluated, soup)
        known |= scores.evaluations(evaluated, {picked.label: soup.mixture})
        selection_bias.show(evaluated, picked, "run1", known)
    assert [text for text in captions if "values of α" in text] == [
        "Picking the best of 1 values of α inflates its val score by 25.00 pp: 75.00 % on the "
        "half used to pick, 50.00 % on the other half (mean of 200 random splits)."
    ]


def test_the_evidence_of_a_soup_of_soups_is_printed(
    capsys: pytest.CaptureFixture[str], evaluated: View, shown: dict[str, Shown]
) -> None:
    picked = soup_of_soups(evaluated)
    exec(snippets.evidence(evaluated, picked, "run2"), {})  # noqa: S102
    assert "first" in capsys.readouterr().out


def draw(monkeypatch: pytest.MonkeyPatch, view: View, page: str) -> None:
    pairs = [("run1", "run2"), ("base", "run10")]
    session = {"view": view, "selection": NAMES, "pairs": pairs, "sweep": view.folder}
    session["is_linked"] = True  # nothing starts by itself
    monkeypatch.setattr(st, "session_state", session)
    import_module(f"pages.{page}").main(view)


def choose(monkeypatch: pytest.MonkeyPatch, chosen: dict[str, Any]) -> None:
    """Have widgets of `streamlit` return what is chosen of them, by their labels."""
    for widget in ("selectbox", "segmented_control", "toggle"):
        usual = getattr(st, widget)

        def choice(label: str, *args: Any, usual: Any = usual, **options: Any) -> Any:
            return chosen[label] if label in chosen else usual(label, *args, **options)

        monkeypatch.setattr(st, widget, choice)


def test_a_screened_curve_of_the_two_best_is_drawn_until_all_examples_are_evaluated(
    monkeypatch: pytest.MonkeyPatch, evaluated: View, run: Run, shown: dict[str, Shown]
) -> None:
    monkeypatch.setattr(summaries, "SCREEN", 10)
    captions: list[str] = []
    monkeypatch.setattr(st, "caption", lambda text, **options: captions.append(text))
    evaluator = evaluator_of(evaluated)
    session = {"view": evaluated, "selection": [], "pairs": [], "is_linked": True}
    monkeypatch.setattr(st, "session_state", session)
    page = import_module("pages.connectivity")
    steps(Overview.of(evaluated))[1].call.work(
        replace(evaluated, source=evaluator), lambda *progress: None
    )
    page.main(evaluated)
    assert_makes(run, shown["curves"])
    assert {*shown["curves"].table["n"]} == {10}
    assert [text for text in captions if "screened on n = 10 examples of val" in text]
    ((first, second),) = page._best_two(evaluated)
    linear_path(evaluated.sweep[first], evaluated.sweep[second], evaluator)
    captions.clear()
    page.main(evaluated)
    assert {*shown["curves"].table["n"]} == {30}
    assert not [text for text in captions if "screened on n" in text]


def test_the_page_of_pairs(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown]
) -> None:
    barriers(view.sweep, evaluator_of(view), NAMES)
    geometry(view.sweep, view.evaluations.store)
    linear_path(view.sweep["base"], view.sweep["run10"], evaluator_of(view))
    for measure in ("loss", "error", "midpoint", "angle"):
        shown.clear()
        with pytest.MonkeyPatch.context() as patch:
            choose(patch, {"Metric": measure})
            draw(patch, view, "connectivity")
        assert list(shown) == ["heatmap", "curves"], measure
        made = run(shown["heatmap"].code)
        for figure in (made, shown["heatmap"].figure):  # hover texts are from the page
            for trace in figure.data:
                if trace.name == "cells":
                    trace.customdata = trace.hovertemplate = None
        assert made == shown["heatmap"].figure, measure
    assert_makes(run, shown["curves"])


def test_the_page_of_a_plane(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown]
) -> None:
    plane(view.sweep, evaluator_of(view), ["base", *NAMES[:2]], 7)
    choose(monkeypatch, {"Grid": 7})
    draw(monkeypatch, view, "plane")
    assert_makes(run, shown["plane"])


def test_the_page_of_paths_from_the_base(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown]
) -> None:
    for name in NAMES:
        for split in view.task.reported[1:]:
            linear_path(view.sweep["base"], view.sweep[name], evaluator_of(view), 11, split=split)
    draw(monkeypatch, view, "from_base")
    assert_makes(run, shown["from-base"])


def test_the_page_of_soups_and_ensembles(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown]
) -> None:
    context = Context(view.sweep, evaluator_of(view))
    TwoModelTheory(tuple(NAMES), "val").run_and_keep(context, no_progress)
    draw(monkeypatch, view, "soup_vs_ensemble")
    assert list(shown) == ["soups-and-ensembles", "theory"]
    for each in shown.values():
        assert_makes(run, each)


def test_the_page_of_geometry(
    monkeypatch: pytest.MonkeyPatch, view: View, run: Run, shown: dict[str, Shown]
) -> None:
    found = geometry(view.sweep, view.evaluations.store, NAMES)
    barriers(view.sweep, evaluator_of(view), NAMES, 3)
    monkeypatch.setattr(st, "session_state", {"view": view, "selection": NAMES})
    tabs = [("_layers", None), ("_layers", "run2"), ("_distances", None), ("_advantage", None)]
    for tab, against in tabs:
        shown.clear()
        with pytest.MonkeyPatch.context() as patch:
            choose(patch, {"Value": against})
            getattr(geometry_page, tab)(view, found)
        (each,) = shown.values()
        assert_makes(run, each)


def test_the_grids_of_hyperparameters(view: View, run: Run, shown: dict[str, Shown]) -> None:
    barriers(view.sweep, evaluator_of(view), NAMES, 3)
    for quantity in ("midpoint gain over better endpoint", "share of them right of ingredients"):
        shown.clear()
        with pytest.MonkeyPatch.context() as patch:
            choose(patch, {"Quantity": quantity})
            geometry_page.show_grids(view, NAMES)
        (each,) = shown.values()
        assert_makes(run, each)


def test_the_map_of_basins(
    evaluated: View, shown: dict[str, Shown], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "SCREEN", 10)
    steps(Overview.of(evaluated))[1].call.work(
        replace(evaluated, source=evaluator_of(evaluated)), lambda *progress: None
    )
    overview_page._basin_map(evaluated, Overview.of(evaluated))
    assert "task.part(task.select, 10)" in shown["basin-map"].code
    assert_makes(run, shown["basin-map"])
