"""The analysis of a sweep: all its steps in one job, each only once."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from soupcore import Cancelled, ClassificationTask, Evaluator, RecipeError, Store, Sweep
from soupcore.calls import Context
from soupcore.evaluation import Evaluations
from soupcore.jobs import kinds
from soupcore.jobs.analysis import KINDS
from soupcore.jobs.kinds import WarmState
from soupcore.overview import Overview
from soupcore.plan import Step, seconds, steps
from soupcore.stored_soups import StoredSoups

REQUEST_TASK = "toy"

Asked = tuple[WarmState, dict[str, str]]


@pytest.fixture
def asked(sweep: Sweep, store: Store, task: ClassificationTask) -> Asked:
    class Warm(WarmState):
        def evaluator(self, request: Mapping[str, Any]) -> Evaluator:
            return Evaluator(task, store, device="cpu")

    return Warm(store, [], "cpu"), {"sweep": str(sweep.folder), "task": REQUEST_TASK}


def quietly(done: int, total: int, partial: object = None) -> None:
    assert 0 <= done <= total


def look(asked: Asked) -> Overview:
    """Return the overview as a page has it."""
    warm, request = asked
    sweep, task = warm.sweep(request), warm.evaluator(request).task
    soups = StoredSoups(warm.store, sweep).of_task(request["sweep"], request["task"], None)
    return Overview(Context(sweep, Evaluations(task.describe(), warm.store)), soups)


def plan(asked: Asked) -> dict[str, Step]:
    return {step.name: step for step in steps(look(asked))}


def test_the_analysis_leads_to_a_verdict(asked: Asked) -> None:
    told: list[dict[str, Any]] = []

    def report(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        quietly(done, total)
        told.append(json.loads(json.dumps(partial)))

    result = KINDS["analyze"](*asked, report)
    found = plan(asked)
    assert all(step.is_done and not step.failure for step in found.values())
    assert [step["state"] for step in result["steps"]] == ["done"] * len(found)
    assert [step["state"] for step in told[0]["steps"]] == ["running"] + ["waiting"] * 5
    known = look(asked)
    assert [stored.soup.recipe for stored in known.soups] == ["uniform", "greedy", "learned"]
    assert known.headline is not None
    assert known.verdict.outcome != "unknown"
    assert seconds(known, 100) is not None


def test_the_second_time_it_costs_nothing(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    KINDS["analyze"](*asked, quietly)
    before = look(asked).verdict
    monkeypatch.setattr(kinds, "KINDS", {})  # no job of any kind is done
    assert KINDS["analyze"](*asked, quietly)["steps"]
    assert look(asked).verdict == before


def test_what_was_done_before_a_cancel_is_kept(asked: Asked) -> None:
    def stop(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        running = [each["title"] for each in (partial or {})["steps"] if each["state"] == "running"]
        if running and running[0].startswith("Build the greedy"):
            raise Cancelled

    with pytest.raises(Cancelled):
        KINDS["analyze"](*asked, stop)
    done = {name for name, step in plan(asked).items() if step.is_done}
    assert done == {"evaluate", "pairs", "uniform"}
    KINDS["analyze"](*asked, quietly)
    assert all(step.is_done for step in plan(asked).values())


def test_a_soup_that_cannot_be_made_is_noted_and_the_others_are_made(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = kinds.KINDS["soup"]

    def refuse(warm: WarmState, request: Mapping[str, Any], report: Any) -> dict[str, Any]:
        if request["recipe"] == "greedy":
            raise RecipeError("No ingredient has a finite score.")
        return make(warm, request, report)

    monkeypatch.setitem(kinds.KINDS, "soup", refuse)
    KINDS["analyze"](*asked, quietly)
    found = plan(asked)
    assert found["greedy"].failure == "No ingredient has a finite score."
    assert all(step.is_done for step in found.values())
    assert [stored.soup.recipe for stored in look(asked).soups] == ["uniform", "learned"]


def test_a_soup_that_was_removed_is_made_again(asked: Asked) -> None:
    KINDS["analyze"](*asked, quietly)
    soup = look(asked).soups[0].soup
    asked[0].store.remove_soup(soup.id)
    assert not plan(asked)[soup.recipe].is_done


def test_passes_are_timed_on_a_part(asked: Asked) -> None:
    KINDS["time"](*asked, quietly)
    assert seconds(look(asked), 100) is not None
