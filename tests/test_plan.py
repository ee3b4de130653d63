"""The analysis: its steps, when they are done, and all of them in one call."""

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from soupcore import (
    Cancelled,
    ClassificationTask,
    Evaluator,
    RecipeError,
    Split,
    Store,
    Sweep,
    plan,
    uniform,
)
from soupcore.calls import Call, Context, Paths, RecipeSoup, Report, Result, WeightGeometry
from soupcore.connectivity import stored_distances, summaries
from soupcore.evaluation import Evaluations
from soupcore.overview import Overview
from soupcore.plan import Analysis, Step, TimedPasses, seconds, steps
from soupcore.recipes import RECIPES
from tests.toy import build_model

NAMES = ("run1", "run2", "run10")


@pytest.fixture
def context(sweep: Sweep, evaluator: Evaluator) -> Context:
    return Context(sweep, evaluator, str(sweep.folder), "task.py:task")


def quietly(done: int, total: int, partial: object = None) -> None:
    assert 0 <= done <= total


def by_name(context: Context) -> dict[str, Step]:
    return {step.name: step for step in steps(Overview(context, ()))}


def look(context: Context) -> Overview:
    """Return the overview as a page has it: with the description of the task only."""
    evaluations = Evaluations(context.task.describe(), context.evaluations.store)
    return Overview.of(replace(context, source=evaluations))


def planned(context: Context) -> dict[str, Step]:
    return {step.name: step for step in steps(look(context))}


def test_each_step_estimates_its_examples(context: Context) -> None:
    found = by_name(context)
    task = context.task
    names = ["evaluate", "pairs", "uniform", "greedy", "learned", "ensemble", "distances"]
    assert list(found) == names
    every = sum(len(task.split(split)) for split in task.reported)
    points = len(NAMES) + (context.sweep.base is not None)
    assert found["evaluate"].examples == points * every
    every_pair = tuple(combinations(NAMES, 2))
    assert found["pairs"].call == Paths(pairs=every_pair, alphas="adaptive", splits=("val",))
    assert found["uniform"].examples == every
    assert found["greedy"].examples == 2 * len(task.split(task.select)) + every
    assert found["greedy"].call == RecipeSoup("greedy", NAMES, RECIPES["greedy"].check({}))
    assert not any(step.is_done for step in found.values())


def test_steps_with_stored_results_are_done_and_the_main_basin_is_averaged(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summaries, "SCREEN", 10)
    points = [each.mixture for each in context.sweep.ingredients.values()]
    base = [context.sweep.base.mixture] if context.sweep.base else []
    for split in context.task.reported:
        context.evaluator.evaluate_all([*points, *base], split)
    pairs = by_name(context)["pairs"]
    assert pairs.call.arguments["part"] == 10
    pairs.call.work(context, quietly)
    found = by_name(context)
    assert found["evaluate"].is_done
    assert found["pairs"].is_done
    assert found["pairs"].examples == found["evaluate"].examples == 0
    basin = Overview(context, ()).basins[0].names
    assert tuple(found["uniform"].call.arguments["names"]) == (basin if len(basin) > 1 else NAMES)


def test_only_lines_from_the_best_of_many_ingredients_are_screened(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_ALL_PAIRS", 2)
    points = [each.mixture for each in context.sweep.ingredients.values()]
    context.evaluator.evaluate_all(points, context.task.select)
    best = Overview(context, ()).best
    pairs = by_name(context)["pairs"]
    assert pairs.call.arguments["pairs"] == [[best, name] for name in NAMES if name != best]
    assert "2 pairs with the best run" in pairs.title


def test_without_a_report_split_greedy_is_cross_fitted(
    sweep: Sweep, splits: dict[str, Split], store: Store
) -> None:
    held = {name: split for name, split in splits.items() if split.role != "report"}
    evaluator = Evaluator(ClassificationTask(build_model, held), store, device="cpu")
    bias = by_name(Context(sweep, evaluator))["bias"]
    assert bias.examples == 20 * 2 * len(held["val"])


def test_a_large_network_or_another_task_learns_no_soup(
    context: Context, splits: dict[str, Split], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(ClassificationTask):
        is_classification = False
        output_kind = None  # type: ignore[assignment]

    other = Other(build_model, splits, name="other")
    evaluator = Evaluator(other, store, device="cpu")
    assert "learned" not in by_name(replace(context, source=evaluator))
    assert "ensemble" not in by_name(replace(context, source=evaluator))
    monkeypatch.setattr(plan, "_LEARNED_NUMBERS", 10)
    assert "learned" not in by_name(context)


def test_the_price_follows_from_the_passes_so_far(context: Context) -> None:
    assert seconds(Overview(context, ()), 100) is None
    part = context.task.part(context.task.select, plan.PART)
    timed = context.evaluator.evaluate(context.sweep["run1"].mixture, part)
    assert seconds(Overview(context, ()), 100) == pytest.approx(
        plan._OVERHEAD * 100 * timed.seconds / timed.n
    )


def test_distances_are_a_step_unless_they_would_take_minutes(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = by_name(context)["distances"]
    assert (found.examples, found.is_done) == (0, False)
    assert 0 < found.seconds < 1
    context.evaluator.evaluate(context.sweep["run1"].mixture, context.task.select)
    known = Overview(context, ())
    passes = seconds(known, 100)
    assert passes is not None
    some = replace(found, examples=100), replace(found, seconds=7.0)
    assert plan.price(known, some) == passes + found.seconds + 7
    monkeypatch.setattr(plan, "_LARGEST_WEIGHTS", 100)
    assert "distances" not in by_name(context)
    found.call.work(context, quietly)
    found = by_name(context)["distances"]  # by a click
    assert (found.seconds, found.is_done) == (0, True)
    twin = context.sweep.including({"twin": context.sweep["run1"].checkpoint})
    assert by_name(replace(context, sweep=twin))["distances"].is_done
    more = context.sweep.including({"new": uniform(context.sweep).checkpoint})
    assert "distances" not in by_name(replace(context, sweep=more))


def test_the_analysis_gives_a_verdict_and_is_not_computed_again(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    def report(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        quietly(done, total)
        told.append(json.loads(json.dumps(partial)))

    result = Analysis().work(context, report)
    found = planned(context)
    assert all(step.is_done and not step.failure for step in found.values())
    assert [step["state"] for step in result["steps"]] == ["done"] * len(found)
    assert [step["state"] for step in told[0]["steps"]] == ["running"] + ["waiting"] * 6
    known = look(context)
    assert [stored.soup.recipe for stored in known.soups] == ["uniform", "greedy", "learned"]
    assert known.headline is not None
    assert known.verdict.outcome != "unknown"
    assert stored_distances(context.sweep, context.store).keys() == {*context.sweep.ingredients}
    assert WeightGeometry().result(context) is not None

    def refuse(call: Call, context: Context, report: Report) -> Result:
        raise AssertionError("nothing is left to do")

    for step in found.values():
        monkeypatch.setattr(type(step.call), "work", refuse)
    assert Analysis().work(context, quietly) == result
    soup = known.soups[0].soup
    context.evaluations.store.remove_soup(soup.id)
    assert not planned(context)[soup.recipe].is_done


def test_steps_done_before_a_cancel_are_stored(context: Context) -> None:
    def stop(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        running = [each["title"] for each in (partial or {})["steps"] if each["state"] == "running"]
        if running and running[0].startswith("Build the greedy"):
            raise Cancelled

    with pytest.raises(Cancelled):
        Analysis().work(context, stop)
    done = {name for name, step in planned(context).items() if step.is_done}
    assert done == {"evaluate", "pairs", "uniform"}


def test_the_reason_why_a_soup_cannot_be_built_is_stored_and_other_soups_are_built(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = RecipeSoup.work

    def refuse(call: RecipeSoup, context: Context, report: Report) -> Result:
        if call.recipe != "uniform":
            raise RecipeError("No ingredient has a finite score.")
        return make(call, context, report)

    monkeypatch.setattr(RecipeSoup, "work", refuse)
    Analysis().work(context, quietly)
    found = planned(context)
    assert found["greedy"].failure == "No ingredient has a finite score."
    assert all(step.is_done for step in found.values())
    assert [stored.soup.recipe for stored in look(context).soups] == ["uniform"]


def test_weights_that_were_measured_in_two_groups_are_measured_again_together(
    context: Context,
) -> None:
    first, second = uniform(context.sweep, NAMES[:2]), uniform(context.sweep, NAMES[1:])
    one, two = {"first": first.checkpoint}, {"second": second.checkpoint}
    for more in (one, two):
        apart = replace(context, sweep=context.sweep.including(more))
        WeightGeometry().work(apart, quietly)
        assert by_name(apart)["distances"].is_done
    together = replace(context, sweep=context.sweep.including(one | two))
    assert WeightGeometry().result(together) is None
    assert not by_name(together)["distances"].is_done
    WeightGeometry().work(together, quietly)
    assert by_name(together)["distances"].is_done


def test_passes_are_timed_on_a_part(context: Context) -> None:
    TimedPasses().work(context, quietly)
    assert seconds(look(context), 100) is not None
