"""The steps of the analysis: which there are, and when they are done."""

from dataclasses import replace
from itertools import combinations

import pytest

from soupcore import ClassificationTask, Evaluator, Split, Store, Sweep, plan, uniform
from soupcore.calls import Context, Paths, RecipeSoup
from soupcore.connectivity import summaries
from soupcore.overview import Overview
from soupcore.plan import Step, seconds, steps
from soupcore.recipes import RECIPES
from tests.helpers import build_model

NAMES = ("run1", "run2", "run10")


@pytest.fixture
def context(sweep: Sweep, evaluator: Evaluator) -> Context:
    return Context(sweep, evaluator)


def quietly(done: int, total: int, partial: object = None) -> None:
    assert 0 <= done <= total


def by_name(context: Context) -> dict[str, Step]:
    return {step.name: step for step in steps(Overview(context, ()))}


def test_each_step_says_what_it_takes(context: Context) -> None:
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


def test_what_is_known_is_done_and_the_main_basin_is_averaged(
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


def test_of_many_ingredients_only_the_lines_from_the_best_are_screened(
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
