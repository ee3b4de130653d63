"""The evidence for a soup, which its page and the report read."""

import pytest

from soupcore import Evaluator, Soup, StockpotError, Sweep, greedy, learned, uniform
from soupcore.analysis import compare
from soupcore.calls import Context
from soupcore.evidence import (
    against_best,
    best_ingredient_bias,
    candidates,
    curves_with,
    greedy_bias,
    search_bias,
)
from soupcore.overview import Overview
from soupcore.stored_soups import StoredSoup
from tests.helpers import State, held_sweep

TASK = "task.py:task"


@pytest.fixture
def context(sweep: Sweep, evaluator: Evaluator) -> Context:
    return Context(sweep, evaluator, str(sweep.folder), TASK)


def keep(context: Context, soup: Soup) -> str:
    return context.keep_soup(soup, {})


def test_a_soup_is_compared_where_both_were_evaluated(context: Context) -> None:
    evaluator, sweep = context.evaluator, context.sweep
    soup = uniform(sweep)
    keep(context, soup)
    known = Overview.of(context)
    assert set(against_best(known, known.soups[0]).values()) == {None}
    assert best_ingredient_bias(known) is None
    for name in sweep.ingredients:
        evaluator.evaluate(sweep[name].mixture, "val")
        evaluator.evaluate(sweep[name].mixture, "test")
    one = evaluator.evaluate(soup.mixture, "val")
    known = Overview.of(context)
    found = against_best(known, known.soups[0])
    assert [split for split, each in found.items() if each is not None] == ["val"]
    other = evaluator.evaluate(sweep[str(known.best)].mixture, "val")
    compared = found["val"]
    assert compared is not None
    assert compared.difference == compare(evaluator.task, one, other)
    bias = best_ingredient_bias(known)
    assert bias is not None
    assert bias.names == tuple(sweep.ingredients)


def test_choosing_again_is_among_all_that_were_tried(
    evaluator: Evaluator, states: dict[str, State]
) -> None:
    plain = held_sweep(states)
    first = StoredSoup(uniform(plain, ["run1", "run2"]), plain)
    more = Context(plain, evaluator).including({"soup": first})
    chosen = greedy(more.sweep, evaluator, ["soup", "run10", "run1"])
    stored = StoredSoup(chosen, more.sweep, offered={"soup": first.soup.id, "other": "not tried"})
    names, soups = candidates(plain, stored)
    assert names == ("run1", "run10", "soup")
    assert soups == {"soup": first.soup.id}


def test_estimates_are_for_the_recipes_that_they_repeat(context: Context) -> None:
    sweep, evaluator = context.sweep, context.evaluator
    soups = {
        "greedy": greedy(sweep, evaluator),
        "random": greedy(sweep, evaluator, order="random"),
        "uniform": uniform(sweep),
    }
    stored = {name: context.soups[keep(context, soup)] for name, soup in soups.items()}
    assert [name for name in stored if greedy_bias(context, stored[name])] == ["greedy"]
    assert not any(search_bias(context, each) for each in stored.values())
    assert not any([*curves_with(context, each)] for each in stored.values())
    found = greedy_bias(context, stored["greedy"])
    assert found is not None
    seen, call = found
    assert (seen.folder, set(call.names)) == (context.folder, set(sweep.ingredients))


@pytest.mark.integration
def test_the_estimate_for_a_search_is_for_searches_only(context: Context) -> None:
    found = learned(context.sweep, context.evaluator, optimizer="cma", evaluations=4)
    stored = context.soups[keep(context, found)]
    assert search_bias(context, stored)
    assert not greedy_bias(context, stored)
    assert not any([*curves_with(context, stored)])


def test_a_rejected_candidate_has_to_be_there(
    evaluator: Evaluator, states: dict[str, State]
) -> None:
    sweep = held_sweep(states)
    stored = StoredSoup(greedy(sweep, evaluator), sweep)
    gone = stored.soup.trace[-1].candidate
    fewer = held_sweep({name: each for name, each in states.items() if name != gone})
    with pytest.raises(StockpotError, match=gone):
        greedy_bias(Context(fewer, evaluator), stored)
