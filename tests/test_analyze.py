"""The analysis of a sweep: all its steps in one call, each only once."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from soupcore import Cancelled, Evaluator, RecipeError, Sweep
from soupcore.analyze import Analysis, TimedPasses
from soupcore.calls import Call, Context, RecipeSoup, Report, Result, WeightGeometry
from soupcore.connectivity import stored_distances
from soupcore.evaluation import Evaluations
from soupcore.overview import Overview
from soupcore.plan import Step, seconds, steps


@pytest.fixture
def context(sweep: Sweep, evaluator: Evaluator) -> Context:
    return Context(sweep, evaluator, str(sweep.folder), "task.py:task")


def quietly(done: int, total: int, partial: object = None) -> None:
    assert 0 <= done <= total


def look(context: Context) -> Overview:
    """Return the overview as a page has it: with the description of the task only."""
    evaluations = Evaluations(context.task.describe(), context.evaluations.store)
    return Overview.of(replace(context, source=evaluations))


def plan(context: Context) -> dict[str, Step]:
    return {step.name: step for step in steps(look(context))}


def test_the_analysis_leads_to_a_verdict_and_costs_nothing_again(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, Any]] = []

    def report(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        quietly(done, total)
        told.append(json.loads(json.dumps(partial)))

    result = Analysis().work(context, report)
    found = plan(context)
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
    assert not plan(context)[soup.recipe].is_done


def test_what_was_done_before_a_cancel_is_kept(context: Context) -> None:
    def stop(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        running = [each["title"] for each in (partial or {})["steps"] if each["state"] == "running"]
        if running and running[0].startswith("Build the greedy"):
            raise Cancelled

    with pytest.raises(Cancelled):
        Analysis().work(context, stop)
    done = {name for name, step in plan(context).items() if step.is_done}
    assert done == {"evaluate", "pairs", "uniform"}


def test_a_soup_that_cannot_be_made_is_noted_and_the_others_are_made(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = RecipeSoup.work

    def refuse(call: RecipeSoup, context: Context, report: Report) -> Result:
        if call.recipe != "uniform":
            raise RecipeError("No ingredient has a finite score.")
        return make(call, context, report)

    monkeypatch.setattr(RecipeSoup, "work", refuse)
    Analysis().work(context, quietly)
    found = plan(context)
    assert found["greedy"].failure == "No ingredient has a finite score."
    assert all(step.is_done for step in found.values())
    assert [stored.soup.recipe for stored in look(context).soups] == ["uniform"]


def test_passes_are_timed_on_a_part(context: Context) -> None:
    TimedPasses().work(context, quietly)
    assert seconds(look(context), 100) is not None
