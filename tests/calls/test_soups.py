"""Several recipes in one job give the soups of their own jobs, each as soon as it is built."""

from collections.abc import Mapping
from typing import Any

import pytest

import soupcore
from soupcore import RECIPES, Cancelled, Evaluator, RecipeError, Sweep
from soupcore.calls import Context, RecipeSoup, SeveralSoups

NAMES = ("run1", "run2", "run10")


@pytest.fixture
def context(sweep: Sweep, evaluator: Evaluator) -> Context:
    return Context(sweep, evaluator, str(sweep.folder), "task.py:task")


def several(*recipes: str, names: tuple[str, ...] = NAMES) -> SeveralSoups:
    told = ({"recipe": name, "parameters": RECIPES[name].check({})} for name in recipes)
    return SeveralSoups(tuple(told), names)


def test_the_soups_are_those_of_the_recipes_alone_and_come_one_by_one(context: Context) -> None:
    call = several("uniform", "greedy", "weighted")
    assert SeveralSoups.from_request(call.arguments) == call
    reports: list[tuple[float, int, list[str]]] = []

    def report(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        assert partial is not None
        built = [each["recipe"] for each in partial["soups"]]
        reports.append((done / total, partial["running"], built))

    found = call.work(context, report)["soups"]
    assert [each["recipe"] for each in found] == ["uniform", "greedy", "weighted"]
    for each in found:
        alone = RecipeSoup(each["recipe"], NAMES, RECIPES[each["recipe"]].check({}))
        assert each == {"recipe": each["recipe"]} | dict(alone.work(context, lambda *told: None))
    shares, running, built = zip(*reports, strict=True)
    assert list(shares) == sorted(shares)
    assert shares[0] >= 0
    assert shares[-1] <= 1
    assert list(dict.fromkeys(running)) == [0, 1, 2]
    assert built[-1] == ["uniform", "greedy"]


def test_a_recipe_that_cannot_be_used_does_not_stop_the_others(context: Context) -> None:
    found = several("slerp", "uniform").work(context, lambda *told: None)["soups"]
    assert found[0].keys() == {"recipe", "failure"}
    assert "needs" in found[0]["failure"]
    assert context.store.soup(found[1]["soup"]) is not None
    with pytest.raises(RecipeError, match="needs"):
        several("slerp", "slerp").work(context, lambda *told: None)


def test_a_cancelled_job_keeps_the_soups_that_it_built(context: Context) -> None:
    known: list[Any] = []

    def report(done: int, total: int, partial: Mapping[str, Any] | None = None) -> None:
        assert partial is not None
        known.append(partial["soups"])
        if partial["running"] == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        several("uniform", "greedy").work(context, report)
    (built,) = known[-1]
    assert context.store.soup(built["soup"]) is not None


def test_the_code_builds_the_same_soups(context: Context) -> None:
    call = several("uniform", "weighted")
    found = call.work(context, lambda *told: None)["soups"]
    known: dict[str, Any] = {
        "soupcore": soupcore, "sweep": context.sweep, "evaluator": context.evaluator,
    }  # fmt: skip
    exec(call.code(context).body, known)  # noqa: S102 - that it runs is what is tested
    assert {name: soup.id for name, soup in known["soups"].items()} == {
        each["recipe"]: each["soup"] for each in found
    }


def test_other_workers_evaluate_the_ingredients_that_a_recipe_ranks(context: Context) -> None:
    several("uniform", "greedy").share(context, lambda *told: None)
    points = context.mixtures(NAMES)
    assert context.evaluations.missing(points, context.task.select) == []
